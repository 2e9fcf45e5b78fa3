package tokenizer

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// TestUnicodeTables notices when Go moves to new Unicode tables: the patterns
// may then cut some rare characters differently from the reference. With the
// counts below (Unicode 15.0) all 1,112,064 code points were compared and none
// differed. On a failure, compare them again and record the new counts.
func TestUnicodeTables(t *testing.T) {
	var got [5]int
	for r := rune(0); r <= unicode.MaxRune; r++ {
		got[classOf(r)]++
	}
	want := [5]int{letter: 136104, number: 1831, space: 23, newline: 2}
	want[other] = unicode.MaxRune + 1 - want[letter] - want[number] - want[space] - want[newline]
	if got != want {
		t.Errorf("Unicode %s: letters, numbers, spaces, newlines, others: %v, recorded %v", unicode.Version, got, want)
	}
}

// TestRuneTable compares the table with what it stands for: the class of each
// character, and that NFC leaves a settled one alone after what could join it.
func TestRuneTable(t *testing.T) {
	fillRuneTable()
	settledRunes := 0
	for r := rune(0); r < utf8.MaxRune; r++ {
		s := string(r)
		if !utf8.ValidRune(r) {
			continue
		}
		if got, _ := class(s); got != classOf(r) {
			t.Fatalf("%U: class %d, want %d", r, got, classOf(r))
		}
		if _, ok := settledRune(s); !ok {
			continue
		}
		settledRunes++
		for _, before := range []string{"", "a", "\u1112\u1161", "\u0915", "\u0B47", "e\u0301", "\u0f71"} {
			if norm.NFC.String(before+s) != norm.NFC.String(before)+s {
				t.Fatalf("%U after %+q is not left alone", r, before)
			}
		}
	}
	if settledRunes < 50_000 {
		t.Errorf("only %d characters are settled", settledRunes)
	}
	for _, s := range []string{"\xff", "\u0301", "\u1161", "\u2126", "\U000110BA", "\U0002F800"} {
		if _, ok := settledRune(s); ok {
			t.Errorf("%+q is not settled", s)
		}
	}
}

// TestSettled compares the bit settled with what it stands for, and with what x/text says of the character alone.
func TestSettled(t *testing.T) {
	fillRuneTable()
	for r := rune(utf8.RuneSelf); r < utf8.MaxRune; r++ {
		s := string(r)
		if !utf8.ValidRune(r) {
			continue
		}
		_, got := settledRune(s)
		want := norm.NFC.IsNormalString(s) && norm.NFC.PropertiesString(s).BoundaryBefore()
		if got != want && r < 0x2F800 || got && !want {
			t.Fatalf("%U: settled is %v", r, got)
		}
	}
}

// FuzzDecode compares with the standard library, at every place of a text.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"é", "\xc1\xbf", "\xe0\x9f\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xed\xa0\x80", "\xee\x80\x80", "\xf0\x8f\xbf\xbf", "😀", "\xf4\x90\x80\x80", "\x80\x80\x80", "한\xe4\xbd", "\xf0\x9f\x98", "\uFFFD"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for i := range len(s) {
			if s[i] < utf8.RuneSelf {
				continue
			}
			want, n := utf8.DecodeRuneInString(s[i:])
			if got, k := decode(s[i:]); got != want || k != n {
				t.Errorf("%q: %U of %d bytes, want %U of %d", s[i:], got, k, want, n)
			}
		}
	})
}

// FuzzDigits compares the two ways to cut numbers out.
func FuzzDigits(f *testing.F) {
	for _, s := range []string{"", "a 1", "a  12 34\n5", " 1", "12ab 's1's", "  ", "x½ ٣٤  \t7\n\n8 ", "\xff1\xff 2"} {
		f.Add(s)
	}
	fillRuneTable()
	f.Fuzz(func(t *testing.T, s string) {
		for _, groups := range []bool{false, true} {
			s, plain, r := s, rules{split: splitGPT2}, rules{split: splitGPT2, digits: true, digitGroups: groups}
			for rest := s; rest != ""; {
				part := rest[:digitPiece(rest, groups)]
				rest = rest[len(part):]
				for part != "" {
					want := plain.next(part)
					if got := r.next(s); got != want {
						t.Fatalf("groups %v: %q begins with a word of %d bytes, want %d", groups, s, got, want)
					}
					part, s = part[want:], s[want:]
				}
			}
		}
	})
}

// FuzzNFC compares with x/text on texts without runs of marks that it cuts.
func FuzzNFC(f *testing.F) {
	for _, s := range []string{"", "e\u0301\u0323x\u0301", "\u0301e\u0301 \u0301", "\u1112\u1161\u11ab한\u11ab", "\xffe\u0301\xcc", "\U00011099\U000110BA", "\u0B47\u0B3E", "क\u093c", "\u2126\u212b"} {
		f.Add(s)
	}
	fillRuneTable()
	f.Fuzz(func(t *testing.T, s string) {
		if longMarks(s) {
			return
		}
		if got, want := nfc(s), JudgeNFC(s); got != want {
			t.Errorf("%+q: %+q, want %+q", s, got, want)
		}
	})
}

// JudgeNFC is x/text's NFC of each part of s that is UTF-8: beside broken bytes x/text itself leaves some characters as
// they are, and which depends on how long the text is.
func JudgeNFC(s string) string {
	var b strings.Builder
	from := 0
	for i := 0; i < len(s); {
		_, n := utf8.DecodeRuneInString(s[i:])
		if brokenRune(s[i:]) {
			b.WriteString(norm.NFC.String(s[from:i]))
			b.WriteByte(s[i])
			from = i + 1
		}
		i += n
	}
	b.WriteString(norm.NFC.String(s[from:]))
	return b.String()
}
