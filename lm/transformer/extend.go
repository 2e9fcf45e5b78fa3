package transformer

import "github.com/opencharacter/opencharacter/tensor"

// Chunk is tokens to append to one sequence: a piece of a prompt, or one sampled token.
type Chunk struct {
	Seq    *Sequence
	Tokens []int32
}

// Extend appends the tokens of every chunk to its sequence, storing keys and values
// in the cache, and writes row i of logits [len(chunks), Vocab]: the scores of the
// token that follows the last token of chunk i. logits may be nil when only the cache
// is wanted. Prompts and single tokens may be mixed in one call.
//
// The bits are those of the packed forward pass: how a row is cut into chunks and
// which chunks share a call change nothing. On error no sequence has changed.
func (m *Model) Extend(ws *Workspace, c *Cache, chunks []Chunk, stack []*Adapter, logits *tensor.Tensor) error {
	if err := m.CheckStack(stack); err != nil {
		return err
	}
	if err := m.checkChunks(c, chunks, logits); err != nil {
		return err
	}
	if err := c.adopt(stack); err != nil {
		return err
	}
	ws.layout(c, chunks)
	ws.reserve(m.Config, 1, len(ws.pos), len(ws.pos), 0)
	a, s, at := &ws.layers[0], lora{joined: c.stack}, 0
	for _, ch := range chunks {
		m.embedTokens(a.x.View(at, at+len(ch.Tokens)), ch.Tokens)
		at += len(ch.Tokens)
	}
	for l := range m.Layers {
		if err := ws.interrupted(); err != nil {
			return err
		}
		m.qkv(ws, a, l, ws.pos, s)
		c.kv.Write(l, a.k, a.v, ws.page, ws.cell)
		if l+1 == m.Layers && logits == nil {
			break // nothing reads the output
		}
		tensor.AttentionKV(a.att, a.q, c.kv, l, ws.pages, ws.lengths, m.attentionShape(l).Window)
		if l+1 == m.Layers {
			a.narrow(ws, ws.ends)
		}
		m.mix(ws, a.x, a, l, s)
	}
	for _, ch := range chunks {
		ch.Seq.Length += len(ch.Tokens)
	}
	if logits != nil {
		norm := ws.get(slotTopNorm, len(chunks), m.Width)
		tensor.RMSNorm(norm, a.x, m.finalNorm, m.NormEps, nil)
		tensor.Linear(logits, norm, m.head, false)
	}
	return nil
}

// layout makes room in the cache and lists, for every token of the call, its
// position, its page and slot, and the pages and positions it attends to. ends are
// the last tokens of the chunks.
func (ws *Workspace) layout(c *Cache, chunks []Chunk) {
	ws.pos, ws.page, ws.cell = ws.pos[:0], ws.page[:0], ws.cell[:0]
	ws.pages, ws.lengths, ws.ends = ws.pages[:0], ws.lengths[:0], ws.ends[:0]
	for _, ch := range chunks {
		s := ch.Seq
		c.room(s, len(ch.Tokens))
		for i := range ch.Tokens {
			p := s.Length + i
			ws.pos = append(ws.pos, int32(p))
			ws.page = append(ws.page, s.pages[p/tensor.PageSize])
			ws.cell = append(ws.cell, int32(p%tensor.PageSize))
			ws.pages = append(ws.pages, s.pages)
			ws.lengths = append(ws.lengths, int32(p+1))
		}
		ws.ends = append(ws.ends, int32(len(ws.pos)-1))
	}
}
