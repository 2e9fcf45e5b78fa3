package chat

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Calls that make a long text out of short ones: x.replace(a, b), x.format(a), x | replace(a, b), x | join(s) and
// x | indent(n). One of them in a chain of itself would fill the memory before its result could be seen, so the rewritten
// template calls the functions of growcalls.go instead, which know the size of a result before they make it. What they
// make is what the engine makes.

var (
	growingMethod = regexp.MustCompile(`\.\s*(replace|format)\b\s*(\(?)`)
	growingFilter = regexp.MustCompile(`\|\s*(replace|join|indent)\b`)
	jsonIndent    = regexp.MustCompile(`\bindent\s*=`)
	smallIndent   = regexp.MustCompile(`\bindent\s*=\s*[0-9]{1,2}\s*[,)]`)
)

// mask is body with the contents of its string literals blotted out, byte for byte.
func mask(body string) string {
	return literal.ReplaceAllStringFunc(body, func(s string) string { return s[:1] + strings.Repeat("q", len(s)-2) + s[:1] })
}

// bound rewrites the growing calls of a tag.
func (g guardNames) bound(body string) (string, error) {
	code := mask(body)
	for i := range len(code) {
		if code[i] >= 0x80 { // the engine passes over some and makes names of others
			r, _ := utf8.DecodeRuneInString(code[i:])
			return "", fmt.Errorf("%q stands outside of a text; names and operators are ASCII", r)
		}
	}
	if strings.Contains(code, "__filter_") { // the engine's own names for its filters
		return "", errors.New("a name with __filter_ is not allowed")
	}
	if len(jsonIndent.FindAllString(code, -1)) != len(smallIndent.FindAllString(code, -1)) {
		return "", errors.New("indent must be a number of at most two digits")
	}
	before := make(map[int]string) // what goes in before a byte
	instead := make(map[int]string)
	until := make(map[int]int) // where to go on after what stands instead
	for _, m := range growingFilter.FindAllStringSubmatchIndex(code, -1) {
		before[m[2]] = g.prefix
	}
	for _, m := range growingMethod.FindAllStringSubmatchIndex(code, -1) {
		name := code[m[2]:m[3]]
		start := primary(code, m[0])
		if start == m[0] {
			return "", fmt.Errorf("what .%s belongs to cannot be found", name)
		}
		if m[4] == m[5] { // no call: a field of that name, or a function to be kept
			before[start] = g.prefix + "field(" + before[start]
			instead[m[0]], until[m[0]] = ", '"+name+"')", m[3]
			continue
		}
		before[start] = g.prefix + name + "(" + before[start] // the last call of a chain is the outermost
		instead[m[0]], until[m[0]] = ", ", m[5]
		if rest := strings.TrimLeft(code[m[5]:], spaces); strings.HasPrefix(rest, ")") {
			instead[m[0]] = ""
		}
	}
	var b strings.Builder
	for i := 0; i < len(body); {
		b.WriteString(before[i])
		if to, ok := until[i]; ok {
			b.WriteString(instead[i])
			i = to
			continue
		}
		b.WriteByte(body[i])
		i++
	}
	return b.String(), nil
}

// primary returns where the operand begins that ends before code[end]: a name, text or bracket with all fields, calls
// and indices that follow it. It returns end when there is none.
func primary(code string, end int) int {
	word := func(c byte) bool {
		return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	}
	at := end
	for {
		i := len(strings.TrimRight(code[:at], spaces))
		if i == 0 {
			return at
		}
		switch c := code[i-1]; {
		case c == '\'' || c == '"':
			return strings.LastIndexByte(code[:i-1], c)
		case c == ')' || c == ']' || c == '}':
			open, ok := opening(code, i-1)
			if !ok {
				return end
			}
			at = open
			// What stands right before it is what is called or indexed.
			if k := len(strings.TrimRight(code[:open], spaces)); c == '}' || k == 0 || !word(code[k-1]) && strings.IndexByte(")]'\"", code[k-1]) < 0 || keyword(code[:k]) {
				return at
			}
		case word(c):
			k := i
			for k > 0 && word(code[k-1]) {
				k--
			}
			if at < end && keyword(code[:i]) {
				return at
			}
			at = k
			dot := len(strings.TrimRight(code[:k], spaces))
			if dot == 0 || code[dot-1] != '.' {
				return at
			}
			at = dot - 1
		default:
			return at
		}
	}
}

var keywords = regexp.MustCompile(`(?:^|\W)(?:and|or|not|in|is|if|elif|else|for|set|recursive|with|call|filter|include)$`)

// keyword reports whether code ends with a word that is no operand.
func keyword(code string) bool { return keywords.MatchString(code) }

// opening returns the place of the bracket that code[at] closes.
func opening(code string, at int) (int, bool) {
	depth := 0
	for i := at; i >= 0; i-- {
		switch code[i] {
		case ')', ']', '}':
			depth++
		case '(', '[', '{':
			if depth--; depth == 0 {
				return i, true
			}
		}
	}
	return 0, false
}
