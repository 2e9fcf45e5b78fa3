package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Decode returns the text of ids, special tokens included. Bytes that are not
// UTF-8 become U+FFFD, one for each maximal broken piece; with a SentencePiece
// vocabulary one for each byte of a run of byte tokens that is not UTF-8 as a
// whole, as in the reference. Ids that are not in the vocabulary are left out.
func (t *Tokenizer) Decode(ids []int32) string { return t.decode(ids, true) }

// DecodeText is Decode without the special tokens.
func (t *Tokenizer) DecodeText(ids []int32) string { return t.decode(ids, false) }

func (t *Tokenizer) decode(ids []int32, special bool) string {
	var b []byte
	run := -1
	for _, id := range ids {
		switch {
		case !t.said(id, special):
		case t.pieces != nil:
			b, run = t.appendDecoded(b, run, id)
		default:
			b = append(b, t.bytes[id]...)
		}
	}
	if t.pieces != nil {
		return string(endRun(b, run))
	}
	return lossy(b)
}

// said reports whether id is in the vocabulary and belongs to the text.
func (t *Tokenizer) said(id int32, special bool) bool {
	return id >= 0 && int(id) < len(t.bytes) && (special || !t.special[id])
}

// Stream decodes a growing answer token by token. It leaves special tokens out
// and holds back the bytes of a character that is not complete yet (with a
// SentencePiece vocabulary: of a run of byte tokens that has not ended yet), so
// that all it returned, with Flush, is DecodeText of all ids.
type Stream struct {
	t    *Tokenizer
	held []byte
}

// NewStream returns an empty stream.
func (t *Tokenizer) NewStream() *Stream { return &Stream{t: t} }

// Push adds a token and returns the text that became certain; often "".
func (s *Stream) Push(id int32) string {
	if !s.t.said(id, false) {
		return ""
	}
	if s.t.pieces != nil {
		b, run := s.t.appendDecoded(s.held, 0, id)
		if s.held = b; run == 0 {
			return ""
		}
		s.held = s.held[:0]
		return string(b)
	}
	s.held = append(s.held, s.t.bytes[id]...)
	n := len(s.held) - incomplete(s.held)
	text := lossy(s.held[:n])
	s.held = append(s.held[:0], s.held[n:]...)
	return text
}

// Flush ends the stream and returns what was held back.
func (s *Stream) Flush() string {
	text := ""
	if s.t.pieces != nil {
		text = string(endRun(s.held, 0))
	} else {
		text = lossy(s.held)
	}
	s.held = nil
	return text
}

// incomplete returns how many bytes at the end of b begin a character that
// further bytes could complete.
func incomplete(b []byte) int {
	for n := 1; n <= 3 && n <= len(b); n++ {
		tail := b[len(b)-n:]
		if tail[0] < 0x80 {
			return 0
		}
		if tail[0] >= 0xC0 {
			if got, need := subpart(tail); got == n && n < need {
				return n
			}
			return 0
		}
	}
	return 0
}

// lossy returns b as UTF-8 with one U+FFFD for each maximal broken piece
// (Unicode 3.9, "substitution of maximal subparts").
func lossy(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var o strings.Builder
	for len(b) > 0 {
		if r, n := utf8.DecodeRune(b); r != utf8.RuneError || n > 1 {
			o.Write(b[:n])
			b = b[n:]
			continue
		}
		n, _ := subpart(b)
		o.WriteRune(utf8.RuneError)
		b = b[n:]
	}
	return o.String()
}

// subpart returns how many bytes at the start of b are a valid beginning of a
// character (at least 1) and how many such a character has.
func subpart(b []byte) (got, need int) {
	lo, hi := byte(0x80), byte(0xBF)
	switch c := b[0]; {
	case c >= 0xC2 && c <= 0xDF:
		need = 2
	case c >= 0xE0 && c <= 0xEF:
		need = 3
		if c == 0xE0 {
			lo = 0xA0
		} else if c == 0xED {
			hi = 0x9F
		}
	case c >= 0xF0 && c <= 0xF4:
		need = 4
		if c == 0xF0 {
			lo = 0x90
		} else if c == 0xF4 {
			hi = 0x8F
		}
	default:
		return 1, 1
	}
	for got = 1; got < need && got < len(b) && b[got] >= lo && b[got] <= hi; got++ {
		lo, hi = 0x80, 0xBF
	}
	return got, need
}
