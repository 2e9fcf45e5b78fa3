package tokenizer

import "unicode/utf8"

// Byte-level vocabularies spell every byte as one printable rune: GPT-2's
// table, in which a space is Ġ and a newline Ċ.

var (
	byteRune [256]rune
	runeByte [512]byte // 0 for a rune that spells no byte
)

func init() {
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if (b < '!' || b > '~') && (b < 0xA1 || b > 0xAC) && b < 0xAE || b == 0xAD {
			r = next
			next++
		}
		byteRune[b] = r
		runeByte[r] = byte(b)
	}
}

// appendSpelling appends the vocabulary's spelling of the bytes of s.
func appendSpelling(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		dst = utf8.AppendRune(dst, byteRune[s[i]])
	}
	return dst
}

// unspell returns the bytes that a vocabulary entry stands for. An entry that
// is not in the byte alphabet stands for itself.
func unspell(s string) string {
	plain := true
	for i := 0; i < len(s); i++ {
		if s[i] < '!' || s[i] > '~' {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	b := make([]byte, 0, len(s))
	for _, r := range s {
		c := runeByte[r&0x1FF]
		if byteRune[c] != r {
			return s
		}
		b = append(b, c)
	}
	return string(b)
}
