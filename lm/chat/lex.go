package chat

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// rewrite turns a chat template into an equivalent one for the engine.
//
// White space around tags is settled here, by the rules of Jinja with
// trim_blocks and lstrip_blocks (the environment Hugging Face uses), and all
// literal text becomes an expression, so the engine's own trimming finds
// nothing to do. On the way, calls to the guard's functions are put in: one at
// the start of each loop and macro, one around every output, one after every
// assignment.
func rewrite(source string, g guardNames) (string, error) {
	// Jinja reads all newlines as \n and drops one at the very end.
	source = strings.ReplaceAll(source, "\r\n", "\n")
	source = strings.ReplaceAll(source, "\r", "\n")
	source = strings.TrimSuffix(source, "\n")
	l := lexer{src: source, names: g, lineStart: true}
	for l.pos < len(l.src) {
		if err := l.step(); err != nil {
			line := 1 + strings.Count(l.src[:min(l.pos, len(l.src))], "\n")
			return "", fmt.Errorf("line %d: %w", line, err)
		}
	}
	return l.out.String(), nil
}

type lexer struct {
	src       string
	pos       int
	lineStart bool // what stands before pos ended a line
	out       strings.Builder
	names     guardNames
	sets      []string // names of open {% set x %} blocks
}

const spaces = " \t\n\v\f\r"

// step handles the text up to the next tag, and the tag.
func (l *lexer) step() error {
	rest := l.src[l.pos:]
	open := -1
	for i := 0; i+1 < len(rest); i++ {
		if rest[i] == '{' && (rest[i+1] == '{' || rest[i+1] == '%' || rest[i+1] == '#') {
			open = i
			break
		}
	}
	if open < 0 {
		l.text(rest)
		l.pos = len(l.src)
		return nil
	}
	text, kind := rest[:open], rest[open+1]
	l.pos += open
	body, left, right, end, err := l.tag(kind)
	if err != nil {
		return err
	}
	switch {
	case left == '-':
		text = strings.TrimRightFunc(text, unicode.IsSpace)
	case left != '+' && kind != '{':
		// lstrip_blocks: the tag is the first thing on its line.
		nl := strings.LastIndexByte(text, '\n') + 1
		if (nl > 0 || l.lineStart) && strings.Trim(text[nl:], spaces) == "" {
			text = text[:nl]
		}
	}
	l.text(text)
	l.pos = end
	if kind == '%' && strings.TrimSpace(body) == "raw" {
		if right == '-' { // trim_blocks does not hold for this tag
			l.after(kind, right)
		}
		return l.raw()
	}
	l.after(kind, right)
	word := firstWord.FindString(strings.TrimLeft(body, spaces))
	return l.emit(kind, word, body)
}

// after skips the white space that the end of a tag swallows.
func (l *lexer) after(kind, right byte) {
	from := l.pos
	if right == '-' {
		l.pos = len(l.src) - len(strings.TrimLeftFunc(l.src[l.pos:], unicode.IsSpace))
	} else if right != '+' && kind != '{' && strings.HasPrefix(l.src[l.pos:], "\n") {
		l.pos++
	}
	l.lineStart = l.pos > from && l.src[l.pos-1] == '\n'
}

// tag reads the tag at pos: its body and its whitespace signs.
func (l *lexer) tag(kind byte) (body string, left, right byte, end int, err error) {
	closer := map[byte]string{'{': "}}", '%': "%}", '#': "#}"}[kind]
	i := l.pos + 2
	if i < len(l.src) && (l.src[i] == '-' || l.src[i] == '+') {
		left = l.src[i]
		i++
	}
	start := i
	if kind == '#' {
		k := strings.Index(l.src[i:], closer)
		if k < 0 {
			return "", 0, 0, 0, errors.New("a comment is not closed")
		}
		i += k
		if i > start && (l.src[i-1] == '-' || l.src[i-1] == '+') {
			right = l.src[i-1]
		}
		return "", left, right, i + 2, nil
	}
	var b strings.Builder
	var brackets []byte
	for i < len(l.src) {
		c := l.src[i]
		if len(brackets) == 0 {
			if strings.HasPrefix(l.src[i:], closer) {
				return b.String(), left, 0, i + 2, nil
			}
			if (c == '-' || c == '+') && strings.HasPrefix(l.src[i+1:], closer) {
				return b.String(), left, c, i + 3, nil
			}
		}
		if b.Len() > maxTag {
			return "", 0, 0, 0, fmt.Errorf("a tag is longer than %d bytes", maxTag)
		}
		switch c {
		case '\'', '"':
			n, err := quoted(&b, l.src[i:])
			if err != nil {
				return "", 0, 0, 0, err
			}
			i += n
			continue
		case '(', '[', '{':
			if len(brackets) >= maxBrackets {
				return "", 0, 0, 0, fmt.Errorf("brackets are nested more than %d deep", maxBrackets)
			}
			brackets = append(brackets, map[byte]byte{'(': ')', '[': ']', '{': '}'}[c])
		case ')', ']', '}':
			if len(brackets) == 0 || brackets[len(brackets)-1] != c {
				return "", 0, 0, 0, fmt.Errorf("unexpected %q", string(c))
			}
			brackets = brackets[:len(brackets)-1]
			b.WriteByte(c)
			b.WriteByte(' ') // the engine would end the tag at }}
			i++
			continue
		}
		b.WriteByte(c)
		i++
	}
	return "", 0, 0, 0, fmt.Errorf("a tag is not closed by %s", closer)
}

// quoted copies the string literal at the start of s, with Python's escapes
// that the engine does not know turned into the characters themselves.
func quoted(b *strings.Builder, s string) (int, error) {
	quote := s[0]
	b.WriteByte(quote)
	for i := 1; i < len(s); {
		c := s[i]
		if c == quote {
			b.WriteByte(quote)
			return i + 1, nil
		}
		if c != '\\' || i+1 == len(s) {
			b.WriteByte(c)
			i++
			continue
		}
		if strings.IndexByte("nt\\'\"", s[i+1]) >= 0 {
			b.WriteString(s[i : i+2])
			i += 2
			continue
		}
		if r, _, tail, err := strconv.UnquoteChar(s[i:], quote); err == nil && r != '\\' && r != '\'' && r != '"' {
			b.WriteRune(r)
			i = len(s) - len(tail)
			continue
		}
		b.WriteString(s[i : i+2])
		i += 2
	}
	return 0, errors.New("a string is not closed")
}

var endRaw = regexp.MustCompile(`\{%([-+]?)\s*endraw\s*([-+]?)%\}`)

// raw copies everything up to {% endraw %} as text.
func (l *lexer) raw() error {
	m := endRaw.FindStringSubmatchIndex(l.src[l.pos:])
	if m == nil {
		return errors.New("{% raw %} is not closed by {% endraw %}")
	}
	text := l.src[l.pos : l.pos+m[0]]
	sign := func(k int) byte {
		if m[k] == m[k+1] {
			return 0
		}
		return l.src[l.pos+m[k]]
	}
	left, right := sign(2), sign(4)
	if left == '-' {
		text = strings.TrimRightFunc(text, unicode.IsSpace)
	} else if left != '+' {
		if nl := strings.LastIndexByte(text, '\n') + 1; nl > 0 && strings.Trim(text[nl:], spaces) == "" {
			text = text[:nl]
		}
	}
	l.text(text)
	l.pos += m[1]
	l.after('%', right)
	return nil
}

// text emits literal text as an expression.
func (l *lexer) text(s string) {
	if s == "" {
		return
	}
	s = strings.ReplaceAll(s, `\`, `\\`)
	s = strings.ReplaceAll(s, `'`, `\'`)
	fmt.Fprintf(&l.out, "{{ %s('%s') }}", l.names.output, s)
}

var firstWord = regexp.MustCompile(`^\w*`)

var assignment = regexp.MustCompile(`^\s*set\s+([A-Za-z_]\w*)(?:\.\w+)?\s*(=?)`)

// emit writes a tag and the guard's call that belongs to it.
func (l *lexer) emit(kind byte, word, body string) error {
	if kind == '#' {
		return nil
	}
	if err := forbid(body); err != nil {
		return err
	}
	body, err := l.names.bound(body)
	if err != nil {
		return err
	}
	if kind == '{' {
		if strings.TrimSpace(body) == "" {
			return errors.New("an empty expression")
		}
		fmt.Fprintf(&l.out, "{{ %s(%s) }}", l.names.output, body)
		return nil
	}
	switch word {
	case "generation", "endgeneration": // Hugging Face's marks for a training mask print nothing
		return nil
	case "endmacro":
		fmt.Fprintf(&l.out, "{{ %s() }}", l.names.leave)
	}
	fmt.Fprintf(&l.out, "{%% %s %%}", strings.TrimSpace(body))
	switch word {
	case "macro":
		fmt.Fprintf(&l.out, "{{ %s() }}", l.names.enter)
	case "for", "call":
		fmt.Fprintf(&l.out, "{{ %s() }}", l.names.step)
	case "set":
		m := assignment.FindStringSubmatch(body)
		if m == nil {
			return fmt.Errorf("the assignment %.80q is not supported", body)
		}
		if m[2] == "" {
			l.sets = append(l.sets, m[1])
			break
		}
		fmt.Fprintf(&l.out, "{{ %s(%s) }}", l.names.value, m[1])
	case "endset":
		if len(l.sets) > 0 {
			fmt.Fprintf(&l.out, "{{ %s(%s) }}", l.names.value, l.sets[len(l.sets)-1])
			l.sets = l.sets[:len(l.sets)-1]
		}
	}
	return nil
}
