package tokenizer

import (
	"hash/maphash"
	"sync/atomic"
)

// wordCache remembers the ids of short words. A word has two places, the
// second for what a newer one pushed out of the first; so the cache is bounded,
// and it needs no lock, because an entry never changes.
type wordCache struct {
	seed  maphash.Seed
	slots []atomic.Pointer[cachedWord]
}

// cachedWord is laid out for the processor: a short word of up to four ids is
// read in one cache line.
type cachedWord struct {
	n, k uint8 // bytes of the word, ids
	word [cacheBytes]byte
	ids  [cacheIDs]int32
}

const (
	cacheSlots = 1 << 15
	cacheBytes = 46 // longer words are merged anew each time
	cacheIDs   = 20
)

func newWordCache() wordCache {
	return wordCache{maphash.MakeSeed(), make([]atomic.Pointer[cachedWord], cacheSlots)}
}

func (c *cachedWord) is(w string) bool {
	return c != nil && int(c.n) == len(w) && string(c.word[:c.n]) == w
}

// appendWord appends the ids of one word.
func (t *Tokenizer) appendWord(sc *scratch, w string) {
	if len(w) > cacheBytes {
		t.merge(sc, w)
		return
	}
	h := maphash.String(t.words.seed, w) % cacheSlots
	slot := &t.words.slots[h]
	old := slot.Load()
	c := old
	if !c.is(w) {
		second := &t.words.slots[h^1]
		if c = second.Load(); !c.is(w) {
			base := len(sc.ids)
			t.merge(sc, w)
			if ids := sc.ids[base:]; len(ids) <= cacheIDs {
				e := &cachedWord{n: uint8(len(w)), k: uint8(len(ids))}
				copy(e.word[:], w)
				copy(e.ids[:], ids)
				if old != nil {
					second.Store(old)
				}
				slot.Store(e)
			}
			return
		}
	}
	if c.k == 1 {
		sc.ids = append(sc.ids, c.ids[0])
		return
	}
	sc.ids = append(sc.ids, c.ids[:c.k]...)
}
