package tokenizer

import (
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Character classes of the patterns.
const (
	letter  uint8 = iota // \p{L}
	number               // \p{N}
	space                // \s but not newline
	newline              // \r \n
	other
)

var asciiClass = func() (t [utf8.RuneSelf]uint8) {
	for i := range t {
		t[i] = classOf(rune(i))
	}
	return t
}()

// runeTable holds what is asked of each character of a text, for the first two
// planes: its class, and the bit settled.
var runeTable [0x20000]uint8

// settled marks a character that NFC never changes, moves or joins with the one
// before it: a text of such characters is in NFC.
const settled uint8 = 0x80

// fillRuneTable is called once, by the first tokenizer that needs the table.
var fillRuneTable = sync.OnceFunc(func() {
	for i := range runeTable {
		runeTable[i] = other
	}
	for _, t := range []struct {
		ranges *unicode.RangeTable
		class  uint8
	}{{unicode.L, letter}, {unicode.N, number}, {unicode.White_Space, space}} {
		for _, r := range t.ranges.R16 {
			for c := int(r.Lo); c <= int(r.Hi); c += int(r.Stride) {
				runeTable[c] = t.class
			}
		}
		for _, r := range t.ranges.R32 {
			for c := int(r.Lo); c <= int(r.Hi) && c < len(runeTable); c += int(r.Stride) {
				runeTable[c] = t.class
			}
		}
	}
	runeTable['\r'], runeTable['\n'] = newline, newline
	var text [utf8.UTFMax]byte
	for r := range rune(len(runeTable)) {
		b := text[:utf8.EncodeRune(text[:], r)]
		if p := norm.NFC.Properties(b); p.BoundaryBefore() && (p.Decomposition() == nil || norm.NFC.IsNormal(b)) {
			runeTable[r] |= settled
		}
	}
})

func classOf(r rune) uint8 {
	switch {
	case r == '\r' || r == '\n':
		return newline
	case unicode.IsSpace(r):
		return space
	case unicode.IsLetter(r):
		return letter
	case unicode.IsNumber(r):
		return number
	}
	return other
}

// class returns the class of the first rune of s and its length.
func class(s string) (uint8, int) {
	if c := s[0]; c < utf8.RuneSelf {
		return asciiClass[c], 1
	}
	e, n := wide(s)
	return e &^ settled, n
}

// wide returns the entry of runeTable for the first character of s, which is not
// ASCII, and its length: 1 for a byte that is not UTF-8.
func wide(s string) (entry uint8, n int) {
	r, n := decode(s)
	switch {
	case r == utf8.RuneError && n == 1:
		return other, 1
	case int(r) < len(runeTable):
		return runeTable[r], n
	case r < 0x2F800: // ideographs: NFC leaves them alone
		return classOf(r) | settled, n
	}
	return classOf(r), n
}

// decode is utf8.DecodeRuneInString for a text that does not begin with ASCII,
// but quicker for most characters.
func decode(s string) (r rune, n int) {
	c := rune(s[0])
	switch {
	case c < 0xE0 && len(s) > 1 && s[1]&0xC0 == 0x80:
		if r = c&0x1F<<6 | rune(s[1]&0x3F); c > 0xC1 {
			return r, 2
		}
	case c < 0xF0 && len(s) > 2 && s[1]&0xC0 == 0x80 && s[2]&0xC0 == 0x80:
		r = c&0x0F<<12 | rune(s[1]&0x3F)<<6 | rune(s[2]&0x3F)
		if c >= 0xE0 && r >= 0x800 && r&^0x7FF != 0xD800 {
			return r, 3
		}
	case c == 0xF0 && len(s) > 3 && s[1]&0xC0 == 0x80 && s[2]&0xC0 == 0x80 && s[3]&0xC0 == 0x80:
		r = rune(s[1]&0x3F)<<12 | rune(s[2]&0x3F)<<6 | rune(s[3]&0x3F)
		if r >= 0x10000 {
			return r, 4
		}
	}
	return utf8.DecodeRuneInString(s)
}

// skip returns the end of the run of class want that goes on at i.
func skip(s string, i int, want uint8) int {
	for i < len(s) {
		c, n := class(s[i:])
		if c != want {
			break
		}
		i += n
	}
	return i
}
