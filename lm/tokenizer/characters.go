package tokenizer

import (
	"math"
	"unicode/utf8"
)

// A word of a byte-level vocabulary begins as its bytes. Most characters merge
// to the same one or two ids in whatever word they stand, and these are worked
// out once, so that a word begins as its characters.
//
// This is exact where it is done. Let top be the highest rank among the merges
// of a character by itself. If every merge of the vocabulary that could take its
// first or its last symbol away, at any step on the way, has a rank above top,
// then the character is merged to the end before any of these has its turn, and
// no merge elsewhere in the word depends on when that happened. Which merges can
// take the first symbol away depends on the byte before it, since they end in
// that byte; so a character is marked by the kinds of bytes that may stand
// before it and after it, and beside any other it begins as its bytes.

// Kinds of bytes beside a character.
const (
	besideSpace = iota
	besideASCII
	besideInner // 80 to BF: continues a character
	besideLead  // C0 to FF: begins one
	besides
	besideEnd = besides // the word begins or ends here
)

var beside = func() (k [256]uint8) {
	for b := range k {
		switch {
		case b == ' ':
			k[b] = besideSpace
		case b < 0x80:
			k[b] = besideASCII
		case b < 0xC0:
			k[b] = besideInner
		default:
			k[b] = besideLead
		}
	}
	return k
}()

// character is what a character merges to: from bit 0 and from bit 22 an id, a
// bit that says whether the second is there, a bit for each kind of byte that
// may stand before the character and one for each that may follow. 0: unknown.
type character uint64

const (
	idBits     = 22
	secondBit  = 2 * idBits
	beforeBits = secondBit + 1
	afterBits  = beforeBits + besides + 1
	idMask     = maxTokens - 1
)

func (c character) fits(before, after uint8) bool {
	return c>>(beforeBits+before)&(c>>(afterBits+after))&1 != 0
}

// characters holds the characters below maxCharacter in pages of 256.
type characters [maxCharacter >> 8]*[256]character

const maxCharacter = 0x20000

// sides says of each id the lowest rank of the merges that join it to a symbol
// before it that ends in a kind of byte, and to one after it that begins so.
type sides struct{ before, after [][besides]int32 }

func newSides(n int) sides {
	s := sides{make([][besides]int32, n), make([][besides]int32, n)}
	for i := range n {
		for k := range besides {
			s.before[i][k], s.after[i][k] = math.MaxInt32, math.MaxInt32
		}
	}
	return s
}

// add notes a merge of two symbols that are spelled left and right. A spelling
// that is not in the byte alphabet never comes out of a text: any kind will do.
func (s *sides) add(left, right string, leftID, rightID, rank int32) {
	last, _ := utf8.DecodeLastRuneInString(left)
	first, _ := utf8.DecodeRuneInString(right)
	b, a := &s.before[rightID][beside[runeByte[last&0x1FF]]], &s.after[leftID][beside[runeByte[first&0x1FF]]]
	*b, *a = min(*b, rank), min(*a, rank)
}

// addCharacterTable fills t.characters: the characters of the first plane and
// the block of emoji that the vocabulary merges.
func (t *Tokenizer) addCharacterTable(s sides) {
	inner := false // some merge joins two bytes inside a character
	for b := 0x80; b < 0xC0; b++ {
		id := t.byteID[b]
		inner = inner || id >= 0 && s.after[id][besideInner] != math.MaxInt32
	}
	add := func(from, to rune) {
		var text [utf8.UTFMax]byte
		for r := from; r < to; r++ {
			b := text[:utf8.EncodeRune(text[:], r)]
			if lead := t.byteID[b[0]]; !utf8.ValidRune(r) || lead < 0 || !inner && s.after[lead][besideInner] == math.MaxInt32 {
				r |= 0x3F // so it is with all that have the same bytes but for the last
				continue
			}
			c := t.characterOf(b, s)
			if c == 0 {
				continue
			}
			page := &t.characters[r>>8]
			if *page == nil {
				*page = new([256]character)
			}
			(*page)[r&0xFF] = c
		}
	}
	add(utf8.RuneSelf, 0x10000)
	add(0x1F000, maxCharacter)
}

// characterOf merges the bytes of one character.
func (t *Tokenizer) characterOf(b []byte, s sides) character {
	var symbols [utf8.UTFMax]int32
	sy := symbols[:0]
	for _, c := range b {
		if t.byteID[c] < 0 {
			return 0
		}
		sy = append(sy, t.byteID[c])
	}
	top := int32(-1)
	before, after := s.before[sy[0]], s.after[sy[len(sy)-1]]
	for len(sy) > 1 {
		best, at := unmerged, 0
		for i := 1; i < len(sy); i++ {
			if m := t.pairs.get(sy[i-1], sy[i]); m < best {
				best, at = m, i-1
			}
		}
		if best == unmerged {
			break
		}
		top = max(top, best.rank())
		sy[at] = best.id()
		sy = append(sy[:at+1], sy[at+2:]...)
		for k := range besides {
			before[k] = min(before[k], s.before[sy[0]][k])
			after[k] = min(after[k], s.after[sy[len(sy)-1]][k])
		}
	}
	if len(sy) > 2 {
		return 0
	}
	c := character(1)<<(beforeBits+besideEnd) | 1<<(afterBits+besideEnd) | character(sy[0])
	if len(sy) == 2 {
		c |= 1<<secondBit | character(sy[1])<<idBits
	}
	for k := range besides {
		if before[k] > top {
			c |= 1 << (beforeBits + k)
		}
		if after[k] > top {
			c |= 1 << (afterBits + k)
		}
	}
	return c
}

// appendSymbols appends what the word w begins as.
func (t *Tokenizer) appendSymbols(sy []int32, w string) []int32 {
	before := uint8(besideEnd)
	for i := 0; i < len(w); {
		b := w[i]
		if b < utf8.RuneSelf {
			id := t.byteID[b]
			if id < 0 {
				return t.appendBytes(sy[:0], w)
			}
			sy = append(sy, id)
			before = beside[b]
			i++
			continue
		}
		r, n := decode(w[i:])
		end, after := i+n, uint8(besideEnd)
		if end < len(w) {
			after = beside[w[end]]
		}
		if c := t.character(r); n > 1 && c.fits(before, after) {
			sy = append(sy, int32(c&idMask))
			if c>>secondBit&1 != 0 {
				sy = append(sy, int32(c>>idBits&idMask))
			}
			i = end
		}
		for ; i < end; i++ {
			id := t.byteID[w[i]]
			if id < 0 {
				return t.appendBytes(sy[:0], w)
			}
			sy = append(sy, id)
		}
		before = beside[w[end-1]]
	}
	return sy
}

// appendBytes appends the bytes of w that the vocabulary has. Where it lacks
// one, its neighbours stand side by side, which no character reckons with.
func (t *Tokenizer) appendBytes(sy []int32, w string) []int32 {
	for i := 0; i < len(w); i++ {
		if id := t.byteID[w[i]]; id >= 0 {
			sy = append(sy, id)
		}
	}
	return sy
}

func (t *Tokenizer) character(r rune) character {
	if r < maxCharacter {
		if page := t.characters[r>>8]; page != nil {
			return page[r&0xFF]
		}
	}
	return 0
}
