package tokenizer

import (
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxMarks is how many combining marks in a row x/text accepts before it puts
// a joiner of its own into the text (the Stream-Safe form of UAX #15). The
// reference does not, so longer runs go through slowNFC.
const maxMarks = 30

// nfc returns s in Unicode normalisation form C. Only what stands around a
// character that is not settled is looked at closely: from the settled one
// before it, which may join with it, up to the next. Bytes that are not UTF-8 stay,
// and nothing joins over them.
func nfc(s string) string {
	var b strings.Builder
	done, last := 0, 0 // s up to done is written to b; last is where the character before i begins
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			last = i
			i++
			continue
		}
		n, ok := settledRune(s[i:])
		if ok {
			last = i
			i += n
			continue
		}
		if brokenRune(s[i:]) {
			i++
			last = i
			continue
		}
		for i += n; i < len(s); i += n {
			if n, ok = settledRune(s[i:]); ok || brokenRune(s[i:]) {
				break
			}
		}
		if part := s[last:i]; !norm.NFC.IsNormalString(part) {
			b.WriteString(s[done:last])
			b.WriteString(partNFC(part))
			done = i
		}
		last = i
	}
	if done == 0 && b.Len() == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

func partNFC(s string) string {
	if longMarks(s) {
		return slowNFC(s)
	}
	return norm.NFC.String(s)
}

// settledRune returns the length of the first character of s and whether NFC
// leaves it alone whatever stands beside it, but for what may follow and join.
func settledRune(s string) (n int, ok bool) {
	if s[0] < utf8.RuneSelf {
		return 1, true
	}
	e, n := wide(s)
	return n, e&settled != 0
}

// brokenRune reports whether s begins with a byte that is not UTF-8.
func brokenRune(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return r == utf8.RuneError && n < 2
}

// longMarks reports whether s holds a run of marks that x/text would cut.
func longMarks(s string) bool {
	run := 0
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			run = 0
			i++
			continue
		}
		p := norm.NFD.PropertiesString(s[i:])
		// A rune may decompose into several marks; count its bytes as an upper bound.
		if p.CCC() != 0 || len(p.Decomposition()) > 0 {
			run += 1 + len(p.Decomposition())/2
		} else {
			run = 0
		}
		if run > maxMarks {
			return true
		}
		i += max(p.Size(), 1)
	}
	return false
}

// slowNFC is the algorithm of UAX #15 written out: decompose, order the marks
// by class, compose. x/text supplies the tables one rune or pair at a time.
func slowNFC(s string) string {
	var rs []rune
	for _, r := range s {
		if d := norm.NFD.PropertiesString(string(r)).Decomposition(); len(d) > 0 {
			rs = append(rs, []rune(string(d))...)
		} else if h := norm.NFD.String(string(r)); h != string(r) { // Hangul is computed, not tabled
			rs = append(rs, []rune(h)...)
		} else {
			rs = append(rs, r)
		}
	}
	class := func(r rune) uint8 { return norm.NFD.PropertiesString(string(r)).CCC() }
	cs := make([]uint8, len(rs))
	for i, r := range rs {
		cs[i] = class(r)
	}
	for i := 0; i < len(rs); {
		j := i
		for j < len(rs) && cs[j] != 0 {
			j++
		}
		if j > i {
			idx := make([]int, j-i)
			for k := range idx {
				idx[k] = i + k
			}
			slices.SortStableFunc(idx, func(a, b int) int { return int(cs[a]) - int(cs[b]) })
			r2, c2 := make([]rune, len(idx)), make([]uint8, len(idx))
			for k, p := range idx {
				r2[k], c2[k] = rs[p], cs[p]
			}
			copy(rs[i:], r2)
			copy(cs[i:], c2)
		}
		i = max(j, i+1)
	}
	out, oc := rs[:0], cs[:0]
	starter := -1
	for i, r := range rs {
		c := cs[i]
		if starter >= 0 {
			// Blocked when a mark of the same or a higher class, or another starter, stands between.
			blocked := len(out)-1 > starter && oc[len(out)-1] >= c
			if !blocked {
				if p := norm.NFC.String(string([]rune{out[starter], r})); utf8.RuneCountInString(p) == 1 {
					out[starter], _ = utf8.DecodeRuneInString(p)
					continue
				}
			}
		}
		if c == 0 {
			starter = len(out)
		}
		out, oc = append(out, r), append(oc, c)
	}
	var b strings.Builder
	for _, r := range out {
		b.WriteRune(r)
	}
	return b.String()
}
