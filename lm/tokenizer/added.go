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

// matcher finds added tokens, leftmost first, longest first at one place. It
// keeps them sorted, so that the cost of a place does not grow with their
// number (Gemma has 6,415, most of which begin with "<unused").
type matcher struct {
	tokens []addedToken // by id
	sorted []addedToken // by content
	first  [257]int32   // sorted[first[c]:first[c+1]] begin with the byte c
	one    int          // the only byte that tokens begin with; -1: several
}

func newMatcher(tokens []addedToken) matcher {
	m := matcher{tokens: tokens, one: -1}
	slices.SortFunc(m.tokens, func(a, b addedToken) int { return cmp.Compare(a.id, b.id) })
	m.sorted = slices.Clone(m.tokens)
	slices.SortStableFunc(m.sorted, func(a, b addedToken) int { return cmp.Compare(a.content, b.content) })
	for _, a := range m.sorted {
		m.first[int(a.content[0])+1]++
	}
	for c := range 256 {
		if n := m.first[c+1]; n > 0 && int(n) == len(m.sorted) {
			m.one = c
		}
		m.first[c+1] += m.first[c]
	}
	return m
}

// find returns the first added token in s at or after from.
func (m *matcher) find(s string, from int) (a addedToken, at int, ok bool) {
	if len(m.sorted) == 0 {
		return addedToken{}, 0, false
	}
	for i := from; i < len(s); i++ {
		if m.one >= 0 {
			k := strings.IndexByte(s[i:], byte(m.one))
			if k < 0 {
				break
			}
			i += k
		} else if c := int(s[i]); m.first[c] == m.first[c+1] {
			continue
		}
		if k := m.longest(s[i:]); k >= 0 {
			return m.sorted[k], i, true
		}
	}
	return addedToken{}, 0, false
}

// longest returns the index in sorted of the longest token that s, which is
// not empty, begins with; -1: none. At each step the tokens from lo to hi have
// their first d bytes in common with s.
func (m *matcher) longest(s string) int {
	best := -1
	lo, hi := int(m.first[s[0]]), int(m.first[int(s[0])+1])
	for d := 1; lo < hi; d++ {
		if len(m.sorted[lo].content) == d {
			best = lo
			for lo++; lo < hi && len(m.sorted[lo].content) == d; lo++ { // equal only after normalising; the lowest id wins
			}
		}
		if d == len(s) || lo == hi {
			break
		}
		c := s[d]
		if m.sorted[lo].content[d] == c && m.sorted[hi-1].content[d] == c {
			continue
		}
		part := m.sorted[lo:hi]
		from, _ := slices.BinarySearchFunc(part, c, func(a addedToken, c byte) int { return cmp.Compare(a.content[d], c) })
		to, _ := slices.BinarySearchFunc(part[from:], c, func(a addedToken, c byte) int {
			if a.content[d] <= c {
				return -1
			}
			return 1
		})
		lo, hi = lo+from, lo+from+to
	}
	return best
}

// each appends the ids of s to those of sc: added tokens by their id, what stands
// between them through rest. With special false, special tokens are left in the text.
func (m *matcher) each(sc *scratch, s string, special bool, rest func(*scratch, string)) {
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
			rest(sc, s[start:at])
		}
		sc.ids = append(sc.ids, a.id)
		start = from
	}
	if start < len(s) {
		rest(sc, s[start:])
	}
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
