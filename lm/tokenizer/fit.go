package tokenizer

import (
	"fmt"
	"slices"
	"sync"
)

// Fit makes the tokenizer fit a model with rows embedding rows: added tokens
// beyond them are forgotten and their text is encoded like any other. Gemma 3's
// tokenizer.json is the same for all sizes, and the text-only ones have no row
// for its last entry, <image_soft_token>. It returns an error, and changes
// nothing, where any other token lies beyond. Call it before the tokenizer is
// shared; a tokenizer that fits is left as it is.
func (t *Tokenizer) Fit(rows int) error {
	if rows >= len(t.tokens) {
		return nil
	}
	beyond := func(a addedToken) bool { return int(a.id) >= rows }
	added := map[int32]bool{t.bos: false, t.eos: false}
	for _, list := range [][]addedToken{t.raw.tokens, t.norm.tokens} {
		for _, a := range list {
			if _, end := added[a.id]; !end {
				added[a.id] = true
			}
		}
	}
	for _, e := range t.pairs.entries {
		if e.made != unmerged { // what a merge makes is no mere added token
			added[e.made.id()] = false
		}
	}
	for id := max(rows, 0); id < len(t.tokens); id++ {
		if t.tokens[id] != "" && !added[int32(id)] {
			return fmt.Errorf("tokenizer: the model has %d embedding rows and the token %q the id %d; the files do not belong together", rows, t.tokens[id], id)
		}
	}
	rows = max(rows, 0)
	for _, s := range t.tokens[rows:] {
		delete(t.vocab, s)
	}
	t.tokens, t.bytes, t.special = t.tokens[:rows:rows], t.bytes[:rows:rows], t.special[:rows:rows]
	t.raw = newMatcher(slices.DeleteFunc(t.raw.tokens, beyond))
	t.norm = newMatcher(slices.DeleteFunc(t.norm.tokens, beyond))
	t.hashOnce = sync.Once{}
	return nil
}
