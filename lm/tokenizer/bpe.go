package tokenizer

import (
	"slices"
	"sync"
)

// shortWord is how many symbols are merged by looking through all of them each
// time, which is quicker than a heap where there are few.
const shortWord = 64

// Passes over a long word go on while they pay: so many symbols may be looked at
// for each one of the word, and so many more for each merge.
const (
	passSymbols = 4
	passMerges  = 16
)

// scratch is what encoding a text needs besides the tokenizer.
type scratch struct {
	ids      []int32 // of the text so far
	symbols  []int32 // of the word
	made     []merged
	links    []link
	heap     []candidate
	spelling []byte
}

var scratchPool = sync.Pool{New: func() any { return new(scratch) }}

// merge appends the ids of w: all its bytes, then the merge of lowest rank
// again and again, leftmost first. Bytes that the vocabulary lacks are dropped,
// as in the reference. The hash is that of w by the seed of the word cache.
func (t *Tokenizer) merge(sc *scratch, w string, hash uint64) {
	if t.rules.ignoreMerges && t.whole.has(hash) {
		sc.spelling = appendSpelling(sc.spelling[:0], w)
		if id, ok := t.vocab[string(sc.spelling)]; ok && !t.special[id] {
			sc.ids = append(sc.ids, id)
			return
		}
	}
	if t.pieces != nil {
		sc.symbols = t.appendCharacters(sc.symbols[:0], w)
	} else {
		sc.symbols = t.appendSymbols(sc.symbols[:0], w)
	}
	if len(sc.symbols) < 2 {
		sc.ids = append(sc.ids, sc.symbols...)
		return
	}
	t.pairUp(sc)
	switch {
	case len(sc.symbols) <= shortWord:
		t.mergeShort(sc)
	case t.mergePasses(sc):
		sc.ids = append(sc.ids, sc.symbols...)
	default:
		t.mergeHeap(sc)
	}
}

// pairUp fills sc.made: what each symbol makes with the next one.
func (t *Tokenizer) pairUp(sc *scratch) {
	made := sc.made[:0]
	for i := 1; i < len(sc.symbols); i++ {
		made = append(made, t.pairs.get(sc.symbols[i-1], sc.symbols[i]))
	}
	sc.made = append(made, unmerged)
}

// mergeShort looks for the lowest rank anew after each merge.
func (t *Tokenizer) mergeShort(sc *scratch) {
	sy, made := sc.symbols, sc.made[:len(sc.symbols)-1]
	for {
		best, at := unmerged, 0
		for i, m := range made {
			if m < best {
				best, at = m, i
			}
		}
		if best == unmerged {
			break
		}
		sy[at] = best.id()
		sy, made = slices.Delete(sy, at+1, at+2), slices.Delete(made, at, at+1)
		if at > 0 {
			made[at-1] = t.pairs.get(sy[at-1], sy[at])
		}
		if at < len(made) {
			made[at] = t.pairs.get(sy[at], sy[at+1])
		}
	}
	sc.ids = append(sc.ids, sy...)
}

// mergePasses merges in each pass over the word all places of the lowest rank,
// which is quick where a few pairs come again and again. A pass does no more of
// them once a merge of a lower rank has become possible. It reports whether
// nothing is left to merge.
func (t *Tokenizer) mergePasses(sc *scratch) bool {
	sy, made := sc.symbols, sc.made
	for work := passSymbols * len(sy); ; {
		low := slices.Min(made)
		if low == unmerged || work < 0 {
			sc.symbols, sc.made = sy, made
			return low == unmerged
		}
		out, lower := 0, false
		for i := 0; i < len(sy); out++ {
			id, m := sy[i], made[i]
			i++
			if m == low && !lower {
				id, m = low.id(), unmerged
				if i++; i < len(sy) {
					m = t.pairs.get(id, sy[i])
					lower = m < low
				}
				if out > 0 {
					made[out-1] = t.pairs.get(sy[out-1], id)
					lower = lower || made[out-1] < low
				}
			}
			sy[out], made[out] = id, m
		}
		work += passMerges*(len(sy)-out) - len(sy)
		sy, made = sy[:out], made[:out]
	}
}

// link is a symbol of a long word in a doubly linked list.
type link struct {
	made           merged // with the next one
	id, prev, next int32  // prev, next -1: none
}

// candidate is a merge that was possible when it was put on the heap: its rank
// in the upper half and the place of its left symbol in the lower one.
type candidate uint64

// mergeHeap keeps the possible merges on a heap: n log n for a word of any length.
func (t *Tokenizer) mergeHeap(sc *scratch) {
	l, h := sc.links[:0], sc.heap[:0]
	for i, id := range sc.symbols {
		m := sc.made[i]
		l = append(l, link{m, id, int32(i) - 1, int32(i) + 1})
		if m != unmerged {
			h = append(h, candidate(pairKey(m.rank(), int32(i))))
		}
	}
	l[len(l)-1].next = -1
	for i := len(h)/2 - 1; i >= 0; i-- {
		siftDown(h, i)
	}
	for len(h) > 0 {
		c := h[0]
		last := len(h) - 1
		h[0] = h[last]
		h = h[:last]
		siftDown(h, 0)
		at := int32(uint32(c))
		left := &l[at]
		if left.made.rank() != int32(c>>32) { // out of date: either side has been merged since
			continue
		}
		right := &l[left.next]
		left.id, left.next, left.made, right.made = left.made.id(), right.next, unmerged, unmerged
		if left.next >= 0 {
			next := &l[left.next]
			next.prev = at
			if m := t.pairs.get(left.id, next.id); m != unmerged {
				left.made = m
				h = push(h, candidate(pairKey(m.rank(), at)))
			}
		}
		if left.prev >= 0 {
			prev := &l[left.prev]
			prev.made = t.pairs.get(prev.id, left.id)
			if prev.made != unmerged {
				h = push(h, candidate(pairKey(prev.made.rank(), left.prev)))
			}
		}
	}
	sc.links, sc.heap = l, h
	for i := int32(0); i >= 0; i = l[i].next {
		sc.ids = append(sc.ids, l[i].id)
	}
}

func siftDown(h []candidate, i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1] < h[c] {
			c++
		}
		if h[c] >= h[i] {
			return
		}
		h[c], h[i] = h[i], h[c]
		i = c
	}
}

func push(h []candidate, c candidate) []candidate {
	h = append(h, c)
	for i := len(h) - 1; i > 0; {
		p := (i - 1) / 2
		if h[i] >= h[p] {
			break
		}
		h[i], h[p] = h[p], h[i]
		i = p
	}
	return h
}
