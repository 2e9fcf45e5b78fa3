package tokenizer

import (
	"cmp"
	"slices"
	"strings"
)

// addedToken is an entry that is found in text as a whole, before BPE.
type addedToken struct {
	content string
	id      int32
	special bool
}

// matcher finds added tokens, leftmost first, longest first at one place.
type matcher struct {
	tokens []addedToken // by id
	byHead [256][]addedToken
	heads  string // the first bytes in use, for strings.IndexAny when all are ASCII
	ascii  bool
}

func newMatcher(tokens []addedToken) matcher {
	m := matcher{tokens: tokens, ascii: true}
	slices.SortFunc(m.tokens, func(a, b addedToken) int { return cmp.Compare(a.id, b.id) })
	var heads []byte
	for _, a := range m.tokens {
		c := a.content[0]
		if len(m.byHead[c]) == 0 {
			heads = append(heads, c)
			m.ascii = m.ascii && c < 0x80
		}
		m.byHead[c] = append(m.byHead[c], a)
	}
	for c := range m.byHead {
		slices.SortStableFunc(m.byHead[c], func(a, b addedToken) int { return cmp.Compare(len(b.content), len(a.content)) })
	}
	m.heads = string(heads)
	return m
}

// find returns the first added token in s at or after from.
func (m *matcher) find(s string, from int) (a addedToken, at int, ok bool) {
	if len(m.tokens) == 0 {
		return addedToken{}, 0, false
	}
	for i := from; i < len(s); i++ {
		if m.ascii {
			k := strings.IndexAny(s[i:], m.heads)
			if k < 0 {
				return addedToken{}, 0, false
			}
			i += k
		}
		for _, a := range m.byHead[s[i]] {
			if strings.HasPrefix(s[i:], a.content) {
				return a, i, true
			}
		}
	}
	return addedToken{}, 0, false
}

// each appends the ids of s: added tokens by their id, what stands between
// them through rest. With special false, special tokens are left in the text.
func (m *matcher) each(ids []int32, s string, special bool, rest func([]int32, string) []int32) []int32 {
	start := 0
	for from := 0; ; {
		a, at, ok := m.find(s, from)
		if !ok {
			break
		}
		from = at + len(a.content)
		if a.special && !special {
			continue
		}
		if at > start {
			ids = rest(ids, s[start:at])
		}
		ids = append(ids, a.id)
		start = from
	}
	if start < len(s) {
		ids = rest(ids, s[start:])
	}
	return ids
}

// FindSpecial returns the first special token that Encode would recognise in
// text: its id and the byte range it covers.
func (t *Tokenizer) FindSpecial(text string) (id int32, start, end int, ok bool) {
	for _, m := range []*matcher{&t.raw, &t.norm} {
		for from := 0; ; {
			a, at, found := m.find(text, from)
			if !found || ok && at >= start {
				break
			}
			if from = at + len(a.content); a.special {
				id, start, end, ok = a.id, at, from, true
				break
			}
		}
	}
	return id, start, end, ok
}
