package tokenizer

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// SentencePiece vocabularies as Gemma has them: an entry is text in UTF-8 with
// ▁ for a space, a word begins as its characters, and a character that is not
// in the vocabulary becomes its bytes, spelled <0x0A>.
//
// The reference merges a whole text as one word. Here the text is first cut
// wherever no merge of the vocabulary could ever join the two sides, which
// gives the same ids: a token that spans such a place would have to be made by
// a merge whose left side ends and whose right side begins there.

// blank is how a vocabulary spells a space.
const blank = "▁"

// pieces is what a SentencePiece vocabulary needs beyond the merges.
type pieces struct {
	runes [][]int32 // id of a character by its code point, pages of 256; nil or -1: not in the vocabulary
	// joins[a<<8|b]: some merge may join a left side that ends in byte a of
	// the text and a right side that begins with byte b. A space stands here
	// for both of its spellings.
	joins [1 << 16]bool
}

// pieceByte returns the byte that an entry such as <0x0A> stands for, by the
// rules of the reference (a sign is allowed, lower case too).
func pieceByte(s string) (byte, bool) {
	if len(s) != 6 || s[:3] != "<0x" || s[5] != '>' {
		return 0, false
	}
	hex := func(c byte) (byte, bool) {
		switch {
		case c >= '0' && c <= '9':
			return c - '0', true
		case c >= 'a' && c <= 'f':
			return c - 'a' + 10, true
		case c >= 'A' && c <= 'F':
			return c - 'A' + 10, true
		}
		return 0, false
	}
	lo, ok := hex(s[4])
	if !ok || s[3] == '+' {
		return lo, ok
	}
	hi, ok := hex(s[3])
	return hi<<4 | lo, ok
}

// unspellPiece returns the text that an entry stands for.
func unspellPiece(s string) string {
	if c, ok := pieceByte(s); ok {
		return string([]byte{c})
	}
	return strings.ReplaceAll(s, blank, " ")
}

// addCharacters fills byteID and the table of characters. Every byte must have
// an id, so that no text needs the unknown token.
func (t *Tokenizer) addCharacters() error {
	p := &pieces{runes: make([][]int32, (utf8.MaxRune>>8)+1)}
	for id, s := range t.tokens {
		if !utf8.ValidString(s) {
			return fmt.Errorf("token %d is not valid UTF-8; %s", id, hint)
		}
		r, n := utf8.DecodeRuneInString(s)
		if n == 0 || n != len(s) || t.special[id] {
			continue
		}
		page := &p.runes[r>>8]
		if *page == nil {
			*page = make([]int32, 256)
			for i := range *page {
				(*page)[i] = -1
			}
		}
		(*page)[r&0xFF] = int32(id)
	}
	space := p.id('▁')
	if space < 0 {
		return fmt.Errorf("byte_fallback: %q, the spelling of a space, is not in the vocabulary; such a vocabulary is not supported", blank)
	}
	for b := range t.byteID {
		id, ok := t.vocab[fmt.Sprintf("<0x%02X>", b)]
		if !ok || t.special[id] {
			id = -1
		}
		if own := p.id(rune(b)); b < utf8.RuneSelf && own >= 0 {
			id = own
		}
		if b == ' ' {
			id = space
		}
		if id < 0 {
			return fmt.Errorf("byte_fallback: the vocabulary has no entry <0x%02X>; one for each byte is needed", b)
		}
		t.byteID[b] = id
	}
	t.pieces = p
	return nil
}

// id returns the id of a character, -1 when it is not in the vocabulary.
func (p *pieces) id(r rune) int32 {
	if page := p.runes[r>>8]; page != nil {
		return page[r&0xFF]
	}
	return -1
}

// join notes that a merge of left and right exists.
func (p *pieces) join(left, right string) {
	_, fromByte := pieceByte(left)
	_, toByte := pieceByte(right)
	if fromByte || toByte { // what such a side looks like in a text is another matter; no vocabulary in use has one
		for i := range p.joins {
			p.joins[i] = true
		}
		return
	}
	ends := [2]byte{left[len(left)-1], left[len(left)-1]}
	if strings.HasSuffix(left, blank) {
		ends[1] = ' '
	}
	starts := [2]byte{right[0], right[0]}
	if strings.HasPrefix(right, blank) {
		starts[1] = ' '
	}
	for _, a := range ends {
		for _, b := range starts {
			p.joins[int(a)<<8|int(b)] = true
		}
	}
}

// noCutsInside keeps characters whole. A stray continuation byte is kept with
// what stands before it, which does no harm.
func (p *pieces) noCutsInside() {
	for i := range p.joins {
		if byte(i)&0xC0 == 0x80 {
			p.joins[i] = true
		}
	}
}

// appendPieces cuts s where no merge joins and appends the ids of the parts.
func (t *Tokenizer) appendPieces(sc *scratch, s string) {
	joins := &t.pieces.joins
	start := 0
	for i := 1; i < len(s); i++ {
		if !joins[uint16(s[i-1])<<8|uint16(s[i])] {
			t.appendWord(sc, s[start:i])
			start = i
		}
	}
	t.appendWord(sc, s[start:])
}

// appendCharacters appends what the word w begins as.
func (t *Tokenizer) appendCharacters(sy []int32, w string) []int32 {
	for i := 0; i < len(w); {
		if c := w[i]; c < utf8.RuneSelf {
			sy = append(sy, t.byteID[c])
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(w[i:])
		if id := t.pieces.id(r); id >= 0 && (r != utf8.RuneError || n > 1) {
			sy = append(sy, id)
		} else {
			for k := range n {
				sy = append(sy, t.byteID[w[i+k]])
			}
		}
		i += n
	}
	return sy
}

// appendDecoded appends the text of id to b, in which a run of byte entries
// begins at run (-1: none), and returns where the run begins now.
func (t *Tokenizer) appendDecoded(b []byte, run int, id int32) ([]byte, int) {
	if _, ok := pieceByte(t.tokens[id]); ok {
		if run < 0 {
			run = len(b)
		}
		return append(b, t.bytes[id]...), run
	}
	return append(endRun(b, run), t.bytes[id]...), -1
}

// endRun ends a run of byte entries: they must be UTF-8 as a whole, or each of
// them becomes U+FFFD.
func endRun(b []byte, run int) []byte {
	if run < 0 || utf8.Valid(b[run:]) {
		return b
	}
	n := len(b) - run
	b = b[:run]
	for range n {
		b = utf8.AppendRune(b, utf8.RuneError)
	}
	return b
}

var errPieceRules = errors.New("byte_fallback (SentencePiece style BPE) is supported only as Gemma has it: " +
	`a normalizer that writes ▁ for a space, no pre-tokenizer, and the decoder Replace, ByteFallback, Fuse`)
