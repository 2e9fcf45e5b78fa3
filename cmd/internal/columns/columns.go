// Package columns lays texts out side by side on a terminal: whole ones, and ones that grow while they are shown.
//
// Widths are in cells of the terminal: a Chinese character takes two, a combining mark none. The package knows nothing of
// what the texts are; nothing in it asks whether there is a terminal.
package columns

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/mattn/go-runewidth"
)

// gap stands between two columns.
const gap = " │ "

const gapCells = 3

// Text is one column: a title and what stands under it.
type Text struct{ Title, Text string }

// Plain makes a text safe to print: control characters, with which a text could move the cursor or change colours, become
// U+FFFD; line ends and tabs stay.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// Wrap breaks a text into lines of at most width cells (at least 1), at spaces where it can. A text that ends in a line
// end has an empty last line, like an empty text. When a text grows at its end, only its last line changes.
func Wrap(text string, width int) []string {
	width = max(width, 1)
	var out []string
	for line := range strings.SplitSeq(strings.ReplaceAll(Plain(text), "\t", "    "), "\n") {
		out = append(out, wrapLine(line, width)...)
	}
	return out
}

func wrapLine(line string, width int) []string {
	var out []string
	var cur []rune // of the line that is being filled
	cells, space := 0, -1
	for _, r := range line {
		w := runewidth.RuneWidth(r)
		if cells+w > width && len(cur) > 0 {
			if r == ' ' { // the break eats it
				out = append(out, string(cur))
				cur, cells, space = cur[:0:0], 0, -1
				continue
			}
			rest := []rune(nil)
			if space >= 0 {
				rest = append(rest, cur[space+1:]...)
				cur = cur[:space]
			}
			out = append(out, string(cur))
			cur, cells, space = rest, runewidth.StringWidth(string(rest)), -1
		}
		if r == ' ' && len(cur) > 0 {
			space = len(cur)
		}
		cur = append(cur, r)
		cells += w
	}
	return append(out, string(cur))
}

// each is the width of one of n columns on a terminal of width cells.
func each(width, n int) int { return max((width-gapCells*(n-1))/n, 1) }

// row is one line of all columns.
func row(lines [][]string, i, cells int) string {
	var b strings.Builder
	for c, l := range lines {
		text := ""
		if i < len(l) {
			text = l[i]
		}
		if c > 0 {
			b.WriteString(gap)
		}
		b.WriteString(text)
		if c < len(lines)-1 {
			b.WriteString(strings.Repeat(" ", max(cells-runewidth.StringWidth(text), 0)))
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// Print writes texts side by side on width cells.
func Print(out io.Writer, width int, texts ...Text) error {
	cells := each(width, len(texts))
	lines, heads, longest := make([][]string, len(texts)), make([][]string, len(texts)), 0
	for i, t := range texts {
		lines[i] = Wrap(strings.TrimRight(t.Text, "\n "), cells)
		heads[i] = []string{runewidth.Truncate(Plain(t.Title), cells, "…"), strings.Repeat("─", cells)}
		longest = max(longest, len(lines[i]))
	}
	var b strings.Builder
	for i := range 2 {
		b.WriteString(row(heads, i, cells) + "\n")
	}
	for i := range longest {
		b.WriteString(row(lines, i, cells) + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// Live shows columns that grow. It is used by one goroutine at a time.
type Live struct {
	out           io.Writer
	cells, height int
	texts         []strings.Builder
	done          []bool
	printed       int // rows that do not change any more
	shown         int // rows below them that may
}

// NewLive writes the titles. height is the terminal's in lines: what is taller than that waits until it does not change
// any more, because what has left the screen cannot be drawn again.
func NewLive(out io.Writer, width, height int, titles ...string) *Live {
	l := &Live{out: out, cells: each(width, len(titles)), height: max(height, 4), texts: make([]strings.Builder, len(titles)), done: make([]bool, len(titles))}
	heads := make([][]string, len(titles))
	for i, t := range titles {
		heads[i] = []string{runewidth.Truncate(Plain(t), l.cells, "…"), strings.Repeat("─", l.cells)}
	}
	fmt.Fprintf(out, "%s\n%s\n", row(heads, 0, l.cells), row(heads, 1, l.cells))
	return l
}

// Push appends to column i and draws what changed.
func (l *Live) Push(i int, text string) {
	if text == "" {
		return
	}
	l.texts[i].WriteString(text)
	l.draw()
}

// Done says that column i does not grow any more.
func (l *Live) Done(i int) {
	l.done[i] = true
	l.draw()
}

// draw writes the rows that have become final, and under them those that may still change.
func (l *Live) draw() {
	lines := make([][]string, len(l.texts))
	final, longest, open := 0, 0, false
	for i := range l.texts {
		lines[i] = Wrap(l.texts[i].String(), l.cells)
		longest = max(longest, len(lines[i]))
		if stable := len(lines[i]) - 1; !l.done[i] && (!open || stable < final) {
			final, open = stable, true
		}
	}
	if !open {
		final = longest
	}
	var b strings.Builder
	if l.shown > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", l.shown)
	}
	b.WriteString("\r\x1b[J")
	for ; l.printed < final; l.printed++ {
		b.WriteString(row(lines, l.printed, l.cells) + "\n")
	}
	l.shown = min(longest-l.printed, l.height-2)
	for i := range l.shown {
		b.WriteString(row(lines, l.printed+i, l.cells) + "\n")
	}
	_, _ = io.WriteString(l.out, b.String()) // a terminal that is gone is nobody's loss
}
