// Package doclines finds the commands that our Markdown pages tell people to type, so that tests can run them.
//
// A command stands in a fenced block, in inline code, or in a cell of a table. Blocks say in their fence what they are:
// sh has commands, one a line; console has commands behind "$ " and what they print; anything else has none. It knows
// nothing of what commands there are.
package doclines

import (
	"fmt"
	"regexp"
	"strings"
)

// Where a command was found.
const (
	Block   = "block"   // a line of a sh block: to be typed as it stands
	Console = "console" // behind a prompt in a transcript
	Inline  = "inline"  // in a sentence or a table: may have names in capitals in place of values
)

// Line is one command of a page.
type Line struct {
	Page string // as given to Of
	N    int    // line number in the page, from 1
	In   string // Block, Console or Inline
	Text string // without its comment; lines that end in a backslash are joined
}

// At says where it stands.
func (l Line) At() string { return fmt.Sprintf("%s:%d", l.Page, l.N) }

var (
	code     = regexp.MustCompile("`([^`]+)`")
	variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)
)

// Of lists the commands of a page. A block without a word in its fence is an error: a reader's tools, and we, could not
// tell what it is.
func Of(page, text string) (lines []Line, err error) {
	fence, kind, opened := "", "", 0
	joined := ""
	first := 0
	for i, raw := range strings.Split(text, "\n") {
		n := i + 1
		line := strings.TrimSpace(strings.TrimSuffix(raw, "\r"))
		if fence == "" {
			if mark := fenceOf(line); mark != "" {
				fence, opened = mark, n
				if kind = strings.TrimSpace(strings.TrimLeft(line, mark[:1])); kind == "" {
					return nil, fmt.Errorf("%s:%d: a block without a word behind its fence; write sh for commands, console for a transcript, text for anything else", page, n)
				}
				continue
			}
			for _, m := range code.FindAllStringSubmatch(line, -1) {
				lines = append(lines, Line{page, n, Inline, m[1]})
			}
			continue
		}
		if strings.HasPrefix(line, fence) && strings.Trim(line, fence[:1]) == "" {
			if joined != "" {
				return nil, fmt.Errorf("%s:%d: a command ends in a backslash and goes on nowhere", page, first)
			}
			fence = ""
			continue
		}
		in := Block
		switch kind {
		case "console":
			if joined == "" && !strings.HasPrefix(line, "$ ") {
				continue
			}
			in, line = Console, strings.TrimPrefix(line, "$ ")
		case "sh", "bash", "shell":
		default:
			continue
		}
		if joined == "" {
			first = n
		}
		if rest, more := strings.CutSuffix(line, `\`); more {
			joined += rest
			continue
		}
		if t := strings.TrimSpace(WithoutComment(joined + line)); t != "" {
			lines = append(lines, Line{page, first, in, t})
		}
		joined = ""
	}
	if fence != "" {
		return nil, fmt.Errorf("%s:%d: this block is not closed", page, opened)
	}
	return lines, nil
}

func fenceOf(line string) string {
	for _, c := range []string{"`", "~"} {
		if n := len(line) - len(strings.TrimLeft(line, c)); n >= 3 && !strings.Contains(line[n:], "`") {
			return line[:n]
		}
	}
	return ""
}

// WithoutComment cuts a shell comment off a line: from a # that begins a word and is not quoted.
func WithoutComment(line string) string {
	quote := rune(0)
	before := ' '
	for i, r := range line {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '\'' || r == '"':
			quote = r
		case r == '#' && (before == ' ' || before == '\t'):
			return line[:i]
		}
		before = r
	}
	return line
}

// Commands cuts a line into commands, and each into its words, as a shell does that knows quotes, backslashes, the
// separators | ; &, files written to, and variables before a command, and nothing else; the last two are left out. A quote that is not closed is an error.
func Commands(line string) (commands [][]string, err error) {
	var word strings.Builder
	var words []string
	in, quote, escaped := false, rune(0), false
	file := false // the next word is one that is written to
	endWord := func() {
		if in && !file {
			words = append(words, word.String())
		}
		file = file && !in
		word.Reset()
		in = false
	}
	endCommand := func() {
		endWord()
		file = false
		for len(words) > 0 && variable.MatchString(words[0]) {
			words = words[1:]
		}
		if len(words) > 0 {
			commands = append(commands, words)
		}
		words = nil
	}
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			in, escaped = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			in, quote = true, r
		case r == ' ' || r == '\t':
			endWord()
		case r == '>':
			endWord()
			file = true
		case r == '|' || r == ';' || r == '&':
			endCommand()
		default:
			in = true
			word.WriteRune(r)
		}
	}
	endCommand()
	if quote != 0 || escaped {
		return nil, fmt.Errorf("%s: a quote is not closed", line)
	}
	return commands, nil
}
