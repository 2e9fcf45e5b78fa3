package tokenizer

import "strings"

// split names a pattern that cuts text into words. The patterns are regular
// expressions with a lookahead in their published form; here each is a hand
// scanner that runs in linear time.
type split uint8

const (
	// splitGPT2: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
	splitGPT2 split = iota + 1
	// splitQwen: (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
	splitQwen
	// splitLlama3 is splitQwen with \p{N}{1,3}.
	splitLlama3
)

// part returns the length of the first part of s, which words do not cross.
func (r *rules) part(s string) int {
	if r.digits && r.split != splitGPT2 { // nextGPT2 does it on the way
		return digitPiece(s, r.digitGroups)
	}
	return len(s)
}

// next returns the length of the first word of s, which is not empty.
func (r *rules) next(s string) int {
	switch r.split {
	case splitGPT2:
		return r.nextGPT2(s)
	case splitLlama3:
		return nextGPT4(s, 3)
	default:
		return nextGPT4(s, 1)
	}
}

// digitPiece returns the length of the first piece of s when numbers are cut
// out: one digit (or a run of them, with groups), or all up to the next digit.
func digitPiece(s string, groups bool) int {
	c, n := class(s)
	if c == number {
		if groups {
			return skip(s, n, number)
		}
		return n
	}
	for n < len(s) {
		c, k := class(s[n:])
		if c == number {
			break
		}
		n += k
	}
	return n
}

// nextGPT2 cuts numbers out too where the rules say so: to what stands before a
// digit, the text ends there.
func (r *rules) nextGPT2(s string) int {
	if s[0] == '\'' && len(s) > 1 {
		switch s[1] {
		case 's', 't', 'm', 'd':
			return 2
		case 'r', 'v':
			if len(s) > 2 && s[2] == 'e' {
				return 3
			}
		case 'l':
			if len(s) > 2 && s[2] == 'l' {
				return 3
			}
		}
	}
	i := 0
	if s[0] == ' ' && len(s) > 1 {
		i = 1
	}
	switch c, n := class(s[i:]); {
	case c == number && r.digits && i > 0:
		return i
	case c == number && r.digits && !r.digitGroups:
		return n
	case c == letter || c == number || c == other:
		return skip(s, i+n, c)
	}
	return spaces(s, r.digits)
}

// spaces is \s+(?!\S)|\s+ : the whole run at the end of the text, else the run
// without its last rune, which goes to the next word. With digits, a digit ends
// the text.
func spaces(s string, digits bool) int {
	end, last := 0, 0
	for end < len(s) {
		c, n := class(s[end:])
		if c == number && digits {
			return end
		}
		if c != space && c != newline {
			break
		}
		last = end
		end += n
	}
	if end == len(s) || last == 0 {
		return end
	}
	return last
}

func nextGPT4(s string, digits int) int {
	if s[0] == '\'' {
		if n := contraction(s); n > 0 {
			return n
		}
	}
	c, n := class(s)
	if c == letter {
		return skip(s, n, letter)
	}
	if c != newline && c != number && n < len(s) {
		if c2, n2 := class(s[n:]); c2 == letter {
			return skip(s, n+n2, letter)
		}
	}
	if c == number {
		for k := 1; k < digits && n < len(s); k++ {
			c2, n2 := class(s[n:])
			if c2 != number {
				break
			}
			n += n2
		}
		return n
	}
	end := -1
	if c == other {
		end = n
	} else if s[0] == ' ' && len(s) > 1 {
		if c2, n2 := class(s[1:]); c2 == other {
			end = 1 + n2
		}
	}
	if end >= 0 {
		end = skip(s, end, other)
		return skip(s, end, newline)
	}
	// \s*[\r\n]+ ends at the last newline of the run of white space.
	end, lastNewline := 0, -1
	for end < len(s) {
		c, n := class(s[end:])
		if c != space && c != newline {
			break
		}
		end += n
		if c == newline {
			lastNewline = end
		}
	}
	if lastNewline >= 0 {
		return lastNewline
	}
	return spaces(s, false)
}

// contraction is (?i:'s|'t|'re|'ve|'m|'ll|'d) at the start of s; 0: no match.
// Case folding makes U+017F (long s) an s.
func contraction(s string) int {
	if strings.HasPrefix(s[1:], "ſ") {
		return 3
	}
	for _, c := range [...]string{"s", "t", "m", "d", "re", "ve", "ll"} {
		if len(s) > len(c) && asciiFold(s[1:1+len(c)], c) {
			return 1 + len(c)
		}
	}
	return 0
}

// asciiFold reports whether a is lower in any case; both have one length.
func asciiFold(a, lower string) bool {
	for i := 0; i < len(a); i++ {
		if c := a[i]; c != lower[i] && c != lower[i]-0x20 {
			return false
		}
	}
	return true
}
