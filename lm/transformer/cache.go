package transformer

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencharacter/opencharacter/tensor"
)

// Cache holds the keys and values of many sequences in pages of tensor.PageSize
// positions. Pages are counted by reference: forks share them, and a sequence that
// appends to a shared, partly filled page first makes its own copy. A cache grows
// as needed and is used by one goroutine at a time, together with those that it lends
// pages to (Beside). Its contents belong to one model and one stack of adapters, whose
// values must not change while it holds a sequence.
type Cache struct {
	model *Model
	stack *joined // the adapters of all sequences held
	held  int     // pages in the tables of its sequences, shared ones once for each
	*pages
}

// pages is the memory of one cache, or of several.
type pages struct {
	kv    *tensor.KV
	refs  []int32 // sequences that hold each page
	free  []int32 // pages that nobody holds
	limit int     // growth stops there while that is enough; 0: no limit
}

// Sequence is a row being decoded. Length counts the tokens it holds.
type Sequence struct {
	Length int

	cache *Cache // nil after Free
	pages []int32
}

// NewCache returns an empty cache for sequences of this model.
func (m *Model) NewCache() *Cache {
	return &Cache{model: m, pages: &pages{kv: tensor.NewKV(m.Layers, 0, m.shape)}}
}

// PageBytes is the memory that one page of a cache takes.
func (m *Model) PageBytes() int64 {
	return 2 * 4 * int64(m.Layers) * int64(m.KVHeads) * int64(m.HeadDim) * tensor.PageSize
}

// Beside returns an empty cache for another stack of adapters that takes its pages from
// the same memory.
func (c *Cache) Beside() *Cache { return &Cache{model: c.model, pages: c.pages} }

// Limit keeps the cache from growing in advance beyond so many pages; 0 lifts the limit.
// What is appended beyond it still finds room: who appends counts, with InUse and Need.
func (c *Cache) Limit(pages int) { c.limit = pages }

// NewSequence returns an empty sequence.
func (c *Cache) NewSequence() *Sequence { return &Sequence{cache: c} }

// Fork returns a new sequence with the same tokens. It costs no computation and no
// copy: the partly filled last page is copied when either side appends to it.
func (c *Cache) Fork(s *Sequence) *Sequence { return c.ForkAt(s, s.Length) }

// ForkAt is Fork with the first n tokens only.
func (c *Cache) ForkAt(s *Sequence, n int) *Sequence {
	c.own(s, "Fork")
	if n < 0 || n > s.Length {
		panic(fmt.Sprintf("transformer: Cache.ForkAt: %d tokens of a sequence of %d", n, s.Length))
	}
	f := &Sequence{Length: n, cache: c, pages: append([]int32(nil), s.pages[:pagesFor(n)]...)}
	for _, p := range f.pages {
		c.refs[p]++
	}
	c.held += len(f.pages)
	return f
}

// pagesFor is the number of pages that n tokens take.
func pagesFor(n int) int { return (n + tensor.PageSize - 1) / tensor.PageSize }

// Free gives back the pages that only this sequence holds. The sequence must not be
// used again.
func (c *Cache) Free(s *Sequence) {
	c.own(s, "Free")
	for _, p := range s.pages {
		c.release(p)
	}
	*s = Sequence{}
}

// adopt makes the stack that of the cache, or refuses if sequences of another one
// are held.
func (c *Cache) adopt(stack []*Adapter) error {
	if c.held == 0 {
		c.stack = join(c.model.Config, stack, c.model.compute)
		return nil
	}
	var mine []*Adapter
	if c.stack != nil {
		mine = c.stack.of
	}
	if !slices.Equal(mine, stack) {
		return errors.New("transformer: extend: the cache holds sequences of another stack of adapters; use a new cache")
	}
	return nil
}

// own panics on a sequence of another cache: a mistake in the program.
func (c *Cache) own(s *Sequence, op string) {
	if s == nil || s.cache != c {
		panic("transformer: Cache." + op + ": the sequence was freed or belongs to another cache")
	}
}

func (c *Cache) release(p int32) {
	c.held--
	if c.refs[p]--; c.refs[p] == 0 {
		c.free = append(c.free, p)
	}
}

// InUse counts the pages held by at least one sequence, of the caches beside it too.
func (c *Cache) InUse() int { return len(c.refs) - len(c.free) }

// take returns a page that nobody else holds, with one reference.
func (c *Cache) take() int32 {
	if len(c.free) == 0 {
		from := len(c.refs)
		to := from + max(8, from/2)
		if c.limit > 0 {
			to = max(from+1, min(to, c.limit))
		}
		c.kv.Grow(to)
		c.refs = append(c.refs, make([]int32, to-from)...)
		for p := to - 1; p >= from; p-- {
			c.free = append(c.free, int32(p))
		}
	}
	p := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	c.refs[p] = 1
	c.held++
	return p
}

// Need is how many pages appending n tokens to a sequence takes at most.
func (c *Cache) Need(s *Sequence, n int) int {
	c.own(s, "Need")
	need := pagesFor(s.Length+n) - len(s.pages)
	if c.copies(s) {
		need++
	}
	return need
}

// copies reports whether the next token makes a copy of the sequence's last page.
func (c *Cache) copies(s *Sequence) bool {
	return s.Length%tensor.PageSize != 0 && c.refs[s.pages[len(s.pages)-1]] > 1
}

// room prepares the pages for n more tokens of a sequence.
func (c *Cache) room(s *Sequence, n int) {
	if c.copies(s) {
		last := len(s.pages) - 1
		own := c.take()
		c.kv.CopyPage(int(own), int(s.pages[last]))
		c.release(s.pages[last])
		s.pages[last] = own
	}
	for len(s.pages)*tensor.PageSize < s.Length+n {
		s.pages = append(s.pages, c.take())
	}
}

// checkChunks reports the first chunk that cannot be appended.
func (m *Model) checkChunks(c *Cache, chunks []Chunk, logits *tensor.Tensor) error {
	if c.model != m {
		return errors.New("transformer: extend: the cache belongs to another model")
	}
	if len(chunks) == 0 {
		return errors.New("transformer: extend: no chunks given")
	}
	if logits != nil && (logits.Rows != len(chunks) || logits.Cols != m.Vocab) {
		return fmt.Errorf("transformer: extend: logits are %dx%d; %d chunks need %dx%d", logits.Rows, logits.Cols, len(chunks), len(chunks), m.Vocab)
	}
	seen := make(map[*Sequence]int, len(chunks))
	for i, ch := range chunks {
		if ch.Seq == nil || ch.Seq.cache != c {
			return fmt.Errorf("transformer: extend: the sequence of chunk %d was freed or belongs to another cache", i)
		}
		if j, ok := seen[ch.Seq]; ok {
			return fmt.Errorf("transformer: extend: chunks %d and %d extend the same sequence; join them", j, i)
		}
		seen[ch.Seq] = i
		if len(ch.Tokens) == 0 {
			return fmt.Errorf("transformer: extend: chunk %d has no tokens", i)
		}
		if total := ch.Seq.Length + len(ch.Tokens); total > m.Context {
			return fmt.Errorf("transformer: extend: chunk %d would make its sequence %d tokens long and the model's context is %d", i, total, m.Context)
		}
		if err := m.checkTokens(ch.Tokens); err != nil {
			return fmt.Errorf("transformer: extend: chunk %d: %w", i, err)
		}
	}
	return nil
}
