package columns

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/mattn/go-runewidth"
)

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  []string
	}{
		{"", 5, []string{""}},
		{"one two three", 7, []string{"one two", "three"}},
		{"one two three", 8, []string{"one two", "three"}},
		{"abcdefgh", 3, []string{"abc", "def", "gh"}},
		{"a abcdefgh", 3, []string{"a", "abc", "def", "gh"}},
		{"a\n\nb\n", 3, []string{"a", "", "b", ""}},
		{"船長船長", 4, []string{"船長", "船長"}},
		{"船", 1, []string{"船"}},
		{"\x1b[2Jhi", 9, []string{"\uFFFD[2Jhi"}},
		{"a\tb", 9, []string{"a    b"}},
		{"x", 0, []string{"x"}},
	} {
		if got := Wrap(c.text, c.width); !slices.Equal(got, c.want) {
			t.Errorf("Wrap(%q, %d) = %q, want %q", c.text, c.width, got, c.want)
		}
	}
}

// FuzzWrap: no line is too wide, nothing but spaces is lost, and growing changes the last line only.
func FuzzWrap(f *testing.F) {
	f.Add("one two three four", 7, 4)
	f.Add("船長 ahoy é", 3, 2)
	f.Fuzz(func(t *testing.T, text string, width, cut int) {
		if width < 2 || width > 200 || len(text) > 2000 {
			return
		}
		lines := Wrap(text, width)
		for _, l := range lines {
			if runewidth.StringWidth(l) > width {
				t.Errorf("%q is wider than %d", l, width)
			}
		}
		bare := func(s string) string {
			return strings.Map(func(r rune) rune {
				if r == ' ' || r == '\n' || r == '\t' {
					return -1
				}
				return r
			}, s)
		}
		if got, want := bare(strings.Join(lines, "")), bare(Plain(text)); got != want {
			t.Errorf("%q became %q", want, got)
		}
		runes := []rune(text)
		if cut < 0 || cut > len(runes) {
			return
		}
		before := Wrap(string(runes[:cut]), width)
		if n := len(before) - 1; len(lines) < n || !slices.Equal(before[:n], lines[:n]) {
			t.Errorf("growing changed more than the last line:\n%q\n%q", before, lines)
		}
	})
}

// screen is a terminal that knows what Live writes: lines, up, carriage return, clear to the end.
type screen struct {
	lines  []string
	row    int
	height int
	lost   bool // the cursor was sent above what is on the screen
}

func (s *screen) Write(b []byte) (int, error) {
	text := string(b)
	for text != "" {
		var n int
		switch {
		case strings.HasPrefix(text, "\x1b[J"):
			s.lines, text = s.lines[:min(s.row, len(s.lines))], text[3:]
		case strings.HasPrefix(text, "\x1b["):
			if _, err := fmt.Sscanf(text, "\x1b[%dA", &n); err != nil {
				return 0, err
			}
			if len(s.lines)-s.row+n >= s.height {
				s.lost = true
			}
			s.row -= n
			_, text, _ = strings.Cut(text, "A")
		case text[0] == '\r':
			text = text[1:]
		default:
			line, rest, ok := strings.Cut(text, "\n")
			if !ok {
				return 0, fmt.Errorf("a line without end: %q", text)
			}
			s.lines = append(s.lines[:s.row], line)
			s.row++
			text = rest
		}
	}
	return len(b), nil
}

// TestLive: whatever the order in which texts grow, the screen ends as if they had been printed at once.
func TestLive(t *testing.T) {
	texts := []string{"A short one.", strings.TrimSpace(strings.Repeat("A long one that goes on. ", 40)), "", "Lines\n\nof\nits own, " + strings.Repeat("x", 90)}
	titles := []string{"base", "dpo", "character", "a title that is far too long for its column"}
	var want strings.Builder
	var all []Text
	for i, s := range texts {
		all = append(all, Text{titles[i], s})
	}
	if err := Print(&want, 100, all...); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := &screen{height: 12}
		l := NewLive(s, 100, s.height, titles...)
		rest := slices.Clone(texts)
		for open := []int{0, 1, 2, 3}; len(open) > 0; {
			at := r.IntN(len(open))
			i := open[at]
			if rest[i] == "" {
				l.Done(i)
				open = slices.Delete(open, at, at+1)
				continue
			}
			n := 1 + r.IntN(min(7, len(rest[i])))
			l.Push(i, rest[i][:min(n, len(rest[i]))])
			rest[i] = rest[i][min(n, len(rest[i])):]
		}
		if got := strings.Join(s.lines, "\n") + "\n"; got != want.String() || s.lost {
			t.Fatalf("seed %d (lost %v):\n%s\nwant\n%s", seed, s.lost, got, want.String())
		}
	}
}
