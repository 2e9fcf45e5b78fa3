package tokenizer

import (
	"math"
	"math/rand/v2"
)

// merged is what a pair of ids makes: the rank of its merge in the upper half
// and the id in the lower one, so that the smaller of two comes first. Every
// rank belongs to one pair.
type merged uint64

// unmerged stands for a pair that does not merge.
const unmerged = merged(math.MaxUint64)

func (m merged) rank() int32 { return int32(m >> 32) }
func (m merged) id() int32   { return int32(uint32(m)) }

// filter tells of most hashes that were not added that they were not.
type filter struct {
	bits  []uint64
	shift uint
}

// newFilter returns a filter of at least n bits.
func newFilter(n int) filter {
	bits := uint(6)
	for 1<<bits < n {
		bits++
	}
	return filter{make([]uint64, 1<<(bits-6)), 64 - bits}
}

func (f *filter) add(hash uint64) {
	h := hash >> f.shift
	f.bits[h/64] |= 1 << (h % 64)
}

func (f *filter) has(hash uint64) bool {
	h := hash >> f.shift
	return f.bits[h/64]>>(h%64)&1 != 0
}

// pairTable maps a pair of ids to what it makes: open addressing, at most three
// quarters full, behind a filter of a few bits a pair. Most pairs of a text do not merge;
// the filter, which stays in the processor's cache, answers nearly all of these.
// The multiplier is drawn at random so that no vocabulary file can be built to
// collide; results do not depend on it.
type pairTable struct {
	filter  filter
	entries []pairEntry
	mul     uint64
	shift   uint
}

type pairEntry struct {
	key  uint64 // left<<32 | right
	made merged // unmerged: empty
}

func newPairTable(n int) pairTable {
	bits := uint(4)
	for 3<<bits < 4*n {
		bits++
	}
	t := pairTable{newFilter(8 << bits), make([]pairEntry, 1<<bits), rand.Uint64() | 1, 64 - bits}
	for i := range t.entries {
		t.entries[i].made = unmerged
	}
	return t
}

func pairKey(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

// set stores a merge; a pair that is listed twice keeps its last rank, as in
// the reference.
func (t *pairTable) set(left, right, rank, id int32) {
	k := pairKey(left, right)
	h := k * t.mul
	t.filter.add(h)
	i := h >> t.shift
	for t.entries[i].made != unmerged && t.entries[i].key != k {
		i = (i + 1) & uint64(len(t.entries)-1)
	}
	t.entries[i] = pairEntry{k, merged(pairKey(rank, id))}
}

// get returns what the pair makes, or unmerged.
func (t *pairTable) get(left, right int32) merged {
	if !t.filter.has(pairKey(left, right) * t.mul) {
		return unmerged
	}
	return t.find(left, right)
}

func (t *pairTable) find(left, right int32) merged {
	k := pairKey(left, right)
	for i := k * t.mul >> t.shift; ; i = (i + 1) & uint64(len(t.entries)-1) {
		if e := &t.entries[i]; e.key == k || e.made == unmerged {
			return e.made
		}
	}
}

// inOrder lists the keys by rank, 0 for a rank that a later line replaced.
func (t *pairTable) inOrder() []uint64 {
	top := int32(-1)
	for _, e := range t.entries {
		if e.made != unmerged {
			top = max(top, e.made.rank())
		}
	}
	keys := make([]uint64, top+1)
	for _, e := range t.entries {
		if e.made != unmerged {
			keys[e.made.rank()] = e.key
		}
	}
	return keys
}
