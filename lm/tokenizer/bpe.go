package tokenizer

import (
	"math/rand/v2"
	"sync"
)

// pairTable maps a pair of ids to the rank of its merge and the id it makes:
// open addressing, at most half full. The multiplier is drawn at random so
// that no vocabulary file can be built to collide; results do not depend on it.
type pairTable struct {
	entries []pairEntry
	mul     uint64
	shift   uint
}

type pairEntry struct {
	key  uint64 // left<<32 | right
	rank int32  // -1: empty
	id   int32
}

func newPairTable(n int) pairTable {
	bits := uint(4)
	for 1<<bits < 2*n {
		bits++
	}
	t := pairTable{entries: make([]pairEntry, 1<<bits), mul: rand.Uint64() | 1, shift: 64 - bits}
	for i := range t.entries {
		t.entries[i].rank = -1
	}
	return t
}

func pairKey(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

// set stores a merge; a pair that is listed twice keeps its last rank, as in
// the reference.
func (t *pairTable) set(left, right, rank, id int32) {
	k := pairKey(left, right)
	h := k * t.mul >> t.shift
	for t.entries[h].rank >= 0 && t.entries[h].key != k {
		h = (h + 1) & uint64(len(t.entries)-1)
	}
	t.entries[h] = pairEntry{k, rank, id}
}

// get returns rank -1 when the pair does not merge.
func (t *pairTable) get(left, right int32) (rank, id int32) {
	k := pairKey(left, right)
	h := k * t.mul >> t.shift
	for {
		e := &t.entries[h]
		if e.rank < 0 {
			return -1, -1
		}
		if e.key == k {
			return e.rank, e.id
		}
		h = (h + 1) & uint64(len(t.entries)-1)
	}
}

// inOrder lists the keys by rank, 0 for a rank that a later line replaced.
func (t *pairTable) inOrder() []uint64 {
	top := int32(-1)
	for _, e := range t.entries {
		top = max(top, e.rank)
	}
	keys := make([]uint64, top+1)
	for _, e := range t.entries {
		if e.rank >= 0 {
			keys[e.rank] = e.key
		}
	}
	return keys
}

// symbol is one piece of a word during merging, in a doubly linked list.
type symbol struct{ id, prev, next int32 }

// candidate is a merge that was possible when it was put on the heap.
type candidate struct{ rank, pos, id int32 }

func (a candidate) less(b candidate) bool {
	return a.rank < b.rank || (a.rank == b.rank && a.pos < b.pos)
}

type scratch struct {
	symbols  []symbol
	heap     []candidate
	spelling []byte
}

var scratchPool = sync.Pool{New: func() any { return new(scratch) }}

// merge appends the ids of w: all its bytes, then the merge of lowest rank
// again and again, leftmost first. A heap keeps this at n log n for a word of
// any length. Bytes that the vocabulary lacks are dropped, as in the reference.
func (t *Tokenizer) merge(ids []int32, w string) []int32 {
	sc := scratchPool.Get().(*scratch)
	defer scratchPool.Put(sc)
	if t.rules.ignoreMerges {
		sc.spelling = appendSpelling(sc.spelling[:0], w)
		if id, ok := t.vocab[string(sc.spelling)]; ok && !t.special[id] {
			return append(ids, id)
		}
	}
	sy := sc.symbols[:0]
	if t.pieces != nil {
		sy = t.appendCharacters(sy, w)
	} else {
		for i := 0; i < len(w); i++ {
			if id := t.byteID[w[i]]; id >= 0 {
				sy = append(sy, symbol{id: id})
			}
		}
	}
	for i := range sy {
		sy[i].prev, sy[i].next = int32(i)-1, int32(i)+1
	}
	sc.symbols = sy
	if len(sy) == 0 {
		return ids
	}
	sy[len(sy)-1].next = -1
	h := sc.heap[:0]
	for i := 0; i+1 < len(sy); i++ {
		if rank, id := t.pairs.get(sy[i].id, sy[i+1].id); rank >= 0 {
			h = append(h, candidate{rank, int32(i), id})
		}
	}
	for i := len(h)/2 - 1; i >= 0; i-- {
		siftDown(h, i)
	}
	for len(h) > 0 {
		c := h[0]
		last := len(h) - 1
		h[0] = h[last]
		h = h[:last]
		siftDown(h, 0)
		left := &sy[c.pos]
		if left.id < 0 || left.next < 0 {
			continue
		}
		right := &sy[left.next]
		// Out of date when either side has been merged since.
		if rank, id := t.pairs.get(left.id, right.id); rank != c.rank || id != c.id {
			continue
		}
		left.id, right.id = c.id, -1
		left.next = right.next
		if right.next >= 0 {
			sy[right.next].prev = c.pos
			if rank, id := t.pairs.get(left.id, sy[left.next].id); rank >= 0 {
				h = push(h, candidate{rank, c.pos, id})
			}
		}
		if left.prev >= 0 {
			if rank, id := t.pairs.get(sy[left.prev].id, left.id); rank >= 0 {
				h = push(h, candidate{rank, left.prev, id})
			}
		}
	}
	sc.heap = h
	for i := int32(0); i >= 0; i = sy[i].next {
		ids = append(ids, sy[i].id)
	}
	return ids
}

func siftDown(h []candidate, i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1].less(h[c]) {
			c++
		}
		if !h[c].less(h[i]) {
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
		if !h[i].less(h[p]) {
			break
		}
		h[i], h[p] = h[p], h[i]
		i = p
	}
	return h
}
