// Package tokenizer turns text into token ids and back, exactly as the
// Hugging Face tokenizers library does for byte-level BPE models (SmolLM2 and
// the GPT-2 family, Qwen2/Qwen3, Llama 3) and for the SentencePiece BPE of
// Gemma 3.
//
// A Tokenizer is built from a tokenizer.json file (FromJSON) or from the keys
// of a GGUF file (FromGGUF). It is read-only after that and safe for many
// goroutines. The package knows nothing of chat templates (lm/chat) and never
// adds a begin or end token by itself.
//
// The work is done in four steps, one file each: added tokens are cut out of
// the text (added.go), the rest is normalised (normalize.go), cut into words
// (split.go) and every word is merged by rank (bpe.go), from its characters
// (characters.go). Gemma's spelling and cutting are in pieces.go.
package tokenizer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"sync"
)

// maxTokens bounds the size of a vocabulary. The largest real ones have about
// 260,000 entries; a file that claims more than this is damaged or hostile.
const maxTokens = 1 << 22

// Tokenizer maps text to ids and back.
type Tokenizer struct {
	vocab   map[string]int32 // spelling in the file -> id
	tokens  []string         // id -> spelling in the file ("Ġthe"); "" where an id is unused
	bytes   []string         // id -> bytes the token stands for (" the")
	special []bool           // id -> control token, left out by DecodeText
	bos     int32            // -1: none
	eos     int32

	rules rules
	raw   matcher // added tokens looked for in the raw text
	norm  matcher // added tokens looked for in the normalised text

	byteID     [256]int32 // id of a single byte (of an ASCII character with pieces); -1: not in the vocabulary
	whole      filter     // words that may be in the vocabulary, for ignoreMerges
	characters characters // of a byte-level vocabulary
	pieces     *pieces    // nil: byte-level vocabulary
	pairs      pairTable
	words      wordCache

	hashOnce sync.Once
	hash     string
}

// rules says how text is normalised and cut into words.
type rules struct {
	nfc          bool  // Unicode normalisation form C first
	split        split // pattern that cuts text into words
	digits       bool  // cut numbers out before the pattern runs
	digitGroups  bool  // with digits: keep runs of digits together
	ignoreMerges bool  // a word that is in the vocabulary is not merged
}

// ID returns the id of a token by its spelling in the vocabulary file:
// "<|im_end|>" for an added token, "Ġthe" ("▁the" for Gemma) for the word " the".
func (t *Tokenizer) ID(token string) (int32, bool) {
	id, ok := t.vocab[token]
	return id, ok
}

// Size is one more than the largest id.
func (t *Tokenizer) Size() int { return len(t.tokens) }

// BOS returns the token that begins a document, if the model has one.
func (t *Tokenizer) BOS() (int32, bool) { return t.bos, t.bos >= 0 }

// EOS returns the token that ends a document or a turn, if the file names one.
// A tokenizer.json does not: see ReadConfig.
func (t *Tokenizer) EOS() (int32, bool) { return t.eos, t.eos >= 0 }

// IsSpecial reports whether id is a control token.
func (t *Tokenizer) IsSpecial(id int32) bool {
	return id >= 0 && int(id) < len(t.special) && t.special[id]
}

// Token returns the spelling of id in the vocabulary file, "" for an id that
// is not in use.
func (t *Tokenizer) Token(id int32) string {
	if id < 0 || int(id) >= len(t.tokens) {
		return ""
	}
	return t.tokens[id]
}

// TokenBytes returns the bytes that id stands for, nil for an id that is not
// in use. They need not be valid UTF-8 by themselves.
func (t *Tokenizer) TokenBytes(id int32) []byte {
	if id < 0 || int(id) >= len(t.bytes) || t.tokens[id] == "" {
		return nil
	}
	return []byte(t.bytes[id])
}

// Encode returns the ids of text. Added and special tokens that stand in the
// text are recognised; none are put in.
func (t *Tokenizer) Encode(text string) []int32 { return t.encode(text, true) }

// EncodeOrdinary is Encode for text of unknown origin: special tokens that
// stand in the text are read as plain characters, so no text can put a control
// token into a prompt. Added tokens that are not special (such as <think> of
// Qwen3) are ordinary words of the model and are still recognised. This is
// what Hugging Face calls split_special_tokens.
func (t *Tokenizer) EncodeOrdinary(text string) []int32 { return t.encode(text, false) }

func (t *Tokenizer) encode(text string, special bool) []int32 {
	sc := scratchPool.Get().(*scratch)
	defer scratchPool.Put(sc)
	sc.ids = sc.ids[:0]
	t.raw.each(sc, text, special, func(sc *scratch, part string) {
		switch {
		case t.pieces != nil:
			t.norm.each(sc, part, special, t.appendPieces)
		case t.rules.nfc:
			t.norm.each(sc, nfc(part), special, t.appendWords)
		default:
			t.norm.each(sc, part, special, t.appendWords)
		}
	})
	return append(make([]int32, 0, len(sc.ids)), sc.ids...)
}

// appendWords cuts s into words and appends their ids.
func (t *Tokenizer) appendWords(sc *scratch, s string) {
	for len(s) > 0 {
		part := s[:t.rules.part(s)]
		s = s[len(part):]
		for len(part) > 0 {
			n := t.rules.next(part)
			t.appendWord(sc, part[:n])
			part = part[n:]
		}
	}
}

// Hash names the tokenizer by everything that shapes its ids: sha256, hex.
// A GGUF and a tokenizer.json of the same model need not agree, because they
// may list different unused entries.
func (t *Tokenizer) Hash() string {
	t.hashOnce.Do(func() {
		h := sha256.New()
		fmt.Fprintf(h, "%+v %d %d %d\n", t.rules, t.bos, t.eos, len(t.tokens))
		if t.pieces != nil {
			fmt.Fprintln(h, "pieces")
		}
		var n [8]byte
		for id, s := range t.tokens {
			binary.LittleEndian.PutUint64(n[:], uint64(len(s))<<1|b2u(t.special[id]))
			h.Write(n[:])
			h.Write([]byte(s))
		}
		for _, m := range []matcher{t.raw, t.norm} {
			for _, a := range m.tokens {
				fmt.Fprintf(h, "a%d ", a.id)
			}
			h.Write([]byte{'\n'})
		}
		for _, k := range t.pairs.inOrder() {
			binary.LittleEndian.PutUint64(n[:], k)
			h.Write(n[:])
		}
		t.hash = hex.EncodeToString(h.Sum(nil))
	})
	return t.hash
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
