package tokenizer

import (
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
)

// source is a vocabulary as read from a file, before it is checked.
type source struct {
	tokens []string // id -> spelling; "" unused
	added  []addedSource
	merges []mergeText
	rules  rules
	pieces bool // SentencePiece spelling, see pieces.go
	bos    int32
	eos    int32
}

type addedSource struct {
	addedToken
	normalized bool // looked for after normalisation
}

type mergeText struct{ left, right string }

// cutMerge reads the form "left right".
func cutMerge(line string) (mergeText, error) {
	left, right, ok := strings.Cut(line, " ")
	if !ok || strings.Contains(right, " ") {
		return mergeText{}, fmt.Errorf("%q is not two tokens with one space between; %s", line, hint)
	}
	return mergeText{left, right}, nil
}

const hint = "re-download the file"

// build checks a source and makes a Tokenizer of it.
func build(src source) (*Tokenizer, error) {
	n := len(src.tokens)
	if n == 0 {
		return nil, errors.New("the vocabulary is empty; " + hint)
	}
	if n > maxTokens {
		return nil, fmt.Errorf("%d tokens are more than the limit of %d; %s", n, maxTokens, hint)
	}
	t := &Tokenizer{
		vocab: make(map[string]int32, n), tokens: src.tokens, bytes: make([]string, n), special: make([]bool, n),
		rules: src.rules, bos: src.bos, eos: src.eos, words: newWordCache(),
	}
	for id, s := range t.tokens {
		if s == "" {
			continue
		}
		if old, ok := t.vocab[s]; ok {
			return nil, fmt.Errorf("token %q has two ids, %d and %d; %s", s, old, id, hint)
		}
		t.vocab[s] = int32(id)
		if src.pieces {
			t.bytes[id] = unspellPiece(s)
		} else {
			t.bytes[id] = unspell(s)
		}
	}
	if t.rules.ignoreMerges {
		t.whole = newFilter(8 * n)
		for _, s := range t.bytes { // added tokens stand here as they are spelled, like all others
			t.whole.add(maphash.String(t.words.seed, s))
		}
	}
	var raw, norm []addedToken
	for _, a := range src.added {
		t.special[a.id] = a.special
		if !src.pieces {
			t.bytes[a.id] = a.content
		}
		switch {
		case a.normalized && src.pieces && strings.Contains(unspellPiece(a.content), " "):
			return nil, fmt.Errorf("added token %q holds a space and is looked for in normalized text, which is not supported", a.content)
		case a.normalized && src.pieces:
			norm = append(norm, a.addedToken)
		case a.normalized && t.rules.nfc:
			norm = append(norm, addedToken{nfc(a.content), a.id, a.special})
		default:
			raw = append(raw, a.addedToken)
		}
	}
	t.raw, t.norm = newMatcher(raw), newMatcher(norm)
	if src.pieces {
		if err := t.addCharacters(); err != nil {
			return nil, err
		}
	} else {
		fillRuneTable()
		t.addBytes()
	}
	if err := t.addMerges(src.merges); err != nil {
		return nil, err
	}
	for _, e := range []struct {
		name string
		id   int32
	}{{"begin", t.bos}, {"end", t.eos}} {
		if e.id >= 0 && t.Token(e.id) == "" {
			return nil, fmt.Errorf("the %s token has id %d, which is not in the vocabulary of %d; %s", e.name, e.id, n, hint)
		}
	}
	return t, nil
}

// addBytes fills byteID of a byte-level vocabulary.
func (t *Tokenizer) addBytes() {
	for b := range t.byteID {
		id, ok := t.vocab[string(byteRune[b])]
		if !ok || t.special[id] {
			id = -1
		}
		t.byteID[b] = id
	}
}

func (t *Tokenizer) addMerges(merges []mergeText) error {
	if len(merges) > 2*maxTokens {
		return fmt.Errorf("%d merges are more than the limit of %d; %s", len(merges), 2*maxTokens, hint)
	}
	t.pairs = newPairTable(len(merges))
	var s sides
	if t.pieces == nil {
		s = newSides(len(t.tokens))
	}
	var joined []byte
	for rank, m := range merges {
		left, ok := t.vocab[m.left]
		if !ok || m.left == "" {
			return fmt.Errorf("merge %d: %q is not in the vocabulary; %s", rank, m.left, hint)
		}
		right, ok := t.vocab[m.right]
		if !ok || m.right == "" {
			return fmt.Errorf("merge %d: %q is not in the vocabulary; %s", rank, m.right, hint)
		}
		joined = append(append(joined[:0], m.left...), m.right...)
		id, ok := t.vocab[string(joined)]
		if !ok {
			return fmt.Errorf("merge %d: %q and %q make %q, which is not in the vocabulary; %s", rank, m.left, m.right, joined, hint)
		}
		if t.special[id] {
			return fmt.Errorf("merge %d makes the special token %q out of plain text; such a vocabulary is not safe and not supported", rank, joined)
		}
		t.pairs.set(left, right, int32(rank), id)
		if t.pieces != nil {
			t.pieces.join(m.left, m.right)
		} else {
			s.add(m.left, m.right, left, right, int32(rank))
		}
	}
	if t.pieces != nil {
		t.pieces.noCutsInside()
	} else {
		t.addCharacterTable(s)
	}
	return nil
}
