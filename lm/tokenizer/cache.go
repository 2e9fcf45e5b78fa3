package tokenizer

import (
	"hash/maphash"
	"sync/atomic"
)

// wordCache remembers the ids of short words. It is one array of buckets of two
// cache lines, of which a word has one; a bucket holds as many words as go into
// it, the newest first, and forgets the last ones. Nothing is locked: a bucket
// carries a version, odd while it is written, and what was read while it changed
// does not count.
type wordCache struct {
	seed    maphash.Seed
	buckets []bucket
}

// bucket is its version and then, for each word: a head (see cacheHead), the
// bytes of the word, eight in each uint64, and the ids from the third on, three
// in each. A head of 0 ends the words.
type bucket [bucketSize]atomic.Uint64

const (
	bucketSize   = 16
	cacheBuckets = 3 << 13 // 3 MiB
	cacheBytes   = 63      // longer words are merged anew each time
	cacheIDs     = 31
	cacheIDBits  = 21 // larger ids are not kept
	cacheIDMask  = 1<<cacheIDBits - 1
)

func newWordCache() wordCache { return wordCache{maphash.MakeSeed(), make([]bucket, cacheBuckets)} }

// cacheHead is the first two ids, the number of ids (5 bits), the length of the
// word (6 bits) and the upper bits of its hash.
type cacheHead uint64

const (
	countShift  = 2 * cacheIDBits
	lengthShift = countShift + 5
	tagShift    = lengthShift + 6
)

func (h cacheHead) count() int  { return int(h >> countShift & 31) }
func (h cacheHead) length() int { return int(h >> lengthShift & 63) }

// size is that of the entry; an absurd head, read while it changed, gives one too.
func (h cacheHead) size() int {
	return 1 + (h.length()+7)/8 + max(h.count(), 2)/3 // two ids are in the head: (count-2+2)/3
}

// eight returns up to eight bytes of w at i.
func eight(w string, i int) (v uint64) {
	if s := w[i:]; len(s) >= 8 {
		return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	}
	for k := len(w) - 1; k >= i; k-- {
		v = v<<8 | uint64(w[k])
	}
	return v
}

// get appends the ids of w, which has the hash, if they are there.
func (b *bucket) get(ids []int32, w string, hash uint64) ([]int32, bool) {
	version := b[0].Load()
	like := hash>>tagShift<<6 | uint64(len(w))
	for i := 1; i < bucketSize; {
		h := cacheHead(b[i].Load())
		if h == 0 {
			break
		}
		if uint64(h>>lengthShift) == like && b.holds(i+1, w) {
			base, count := len(ids), h.count()
			ids = append(ids, int32(h&cacheIDMask))
			if count > 1 {
				ids = append(ids, int32(h>>cacheIDBits&cacheIDMask))
			}
			for at := i + 1 + (len(w)+7)/8; len(ids)-base < count && at < bucketSize; at++ {
				v := b[at].Load()
				for k := 0; k < 3 && len(ids)-base < count; k++ {
					ids = append(ids, int32(v>>(k*cacheIDBits)&cacheIDMask))
				}
			}
			if version&1 != 0 || b[0].Load() != version {
				return ids[:base], false
			}
			return ids[:base+count], true
		}
		i += h.size()
	}
	return ids, false
}

// holds reports whether the bytes of w stand at i.
func (b *bucket) holds(i int, w string) bool {
	if i+(len(w)+7)/8 > bucketSize {
		return false
	}
	for k := 0; k < len(w); k += 8 {
		if b[i].Load() != eight(w, k) {
			return false
		}
		i++
	}
	return true
}

// put keeps the ids of w in front of what the bucket holds, unless they are too
// many or another goroutine writes there.
func (b *bucket) put(ids []int32, w string, hash uint64) {
	if len(ids) == 0 || len(ids) > cacheIDs {
		return
	}
	h := cacheHead(hash >> tagShift << tagShift)
	h |= cacheHead(len(w))<<lengthShift | cacheHead(len(ids))<<countShift | cacheHead(ids[0])
	if len(ids) > 1 {
		h |= cacheHead(ids[1]) << cacheIDBits
	}
	size := h.size()
	for _, id := range ids {
		if id > cacheIDMask {
			return
		}
	}
	version := b[0].Load()
	if size >= bucketSize || version&1 != 0 || !b[0].CompareAndSwap(version, version+1) {
		return
	}
	keep := 1 // what stands before this stays
	for keep < bucketSize {
		old := cacheHead(b[keep].Load())
		if old == 0 || keep+old.size()+size > bucketSize {
			break
		}
		keep += old.size()
	}
	if keep+size < bucketSize {
		b[keep+size].Store(0)
	}
	for i := keep - 1; i > 0; i-- {
		b[i+size].Store(b[i].Load())
	}
	b[1].Store(uint64(h))
	i := 2
	for k := 0; k < len(w); k += 8 {
		b[i].Store(eight(w, k))
		i++
	}
	for k := 2; k < len(ids); k += 3 {
		v := uint64(0)
		for j, id := range ids[k:min(k+3, len(ids))] {
			v |= uint64(id) << (j * cacheIDBits)
		}
		b[i].Store(v)
		i++
	}
	b[0].Store(version + 2)
}

// appendWord appends the ids of one word.
func (t *Tokenizer) appendWord(sc *scratch, w string) {
	h := maphash.String(t.words.seed, w)
	if len(w) > cacheBytes {
		t.merge(sc, w, h)
		return
	}
	b := &t.words.buckets[h%cacheBuckets]
	ids, ok := b.get(sc.ids, w, h)
	if sc.ids = ids; !ok {
		base := len(sc.ids)
		t.merge(sc, w, h)
		b.put(sc.ids[base:], w, h)
	}
}
