package sample

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencharacter/opencharacter/lm/transformer"
)

// prefix is a beginning that several waiting prompts have in common. It is
// computed once, when the first of them starts, and freed when the last has.
type prefix struct {
	up      *prefix
	tokens  []int32               // from the first token on; up's are a beginning of them
	seq     *transformer.Sequence // nil until computed
	waiting int                   // requests below that have not started
}

// minShared is the number of further tokens from which a beginning gets a
// sequence of its own. Fewer are computed again sooner than copied.
const minShared = 8

// share sorts the waiting requests by their prompts and finds the beginnings
// that neighbours have in common: the system prompt of all, the example turns of
// some, a whole prompt that is asked many times. Every prompt keeps at least one
// token of its own to begin with.
func (b *batch) share() {
	slices.SortStableFunc(b.queue, func(i, j int) int { return slices.Compare(b.reqs[i].Prompt, b.reqs[j].Prompt) })
	b.leaf = make(map[int]*prefix, len(b.queue))
	var open []*prefix // the beginnings of the request before, shortest first
	for k := 1; k < len(b.queue); k++ {
		before, here := b.queue[k-1], b.queue[k]
		n := common(b.reqs[before].Prompt, b.reqs[here].Prompt)
		var longer *prefix // the shortest of those that end here
		for len(open) > 0 && len(open[len(open)-1].tokens) > n {
			longer, open = open[len(open)-1], open[:len(open)-1]
		}
		var top *prefix
		depth := 0
		if len(open) > 0 {
			top = open[len(open)-1]
			depth = len(top.tokens)
		}
		if n-depth >= minShared {
			p := &prefix{up: top, tokens: b.reqs[here].Prompt[:n]}
			if longer != nil {
				longer.up = p
			} else {
				b.leaf[before] = p
			}
			open, top = append(open, p), p
		}
		b.leaf[here] = top
	}
	for _, i := range b.queue {
		for p := b.leaf[i]; p != nil; p = p.up {
			p.waiting++
		}
	}
}

// common counts the tokens at which two prompts begin alike, leaving one to each.
func common(p, q []int32) int {
	n := 0
	for n < len(p)-1 && n < len(q)-1 && p[n] == q[n] {
		n++
	}
	return n
}

// sequence computes a beginning, and the ones below it, unless that was done.
func (b *batch) sequence(ctx context.Context, p *prefix) (*transformer.Sequence, error) {
	if p == nil {
		return b.cache.NewSequence(), nil
	}
	if p.seq == nil {
		s, err := b.begin(ctx, p.up)
		if err != nil {
			return nil, err
		}
		for s.Length < len(p.tokens) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			piece := p.tokens[s.Length:min(len(p.tokens), s.Length+b.opt.PrefillTokens)]
			if err := b.model.Extend(b.ws, b.cache, []transformer.Chunk{{Seq: s, Tokens: piece}}, b.stack, nil); err != nil {
				return nil, fmt.Errorf("sample: %w", err)
			}
		}
		p.seq = s
	}
	return p.seq, nil
}

// begin returns a sequence of the caller's own that begins with p's tokens.
func (b *batch) begin(ctx context.Context, p *prefix) (*transformer.Sequence, error) {
	s, err := b.sequence(ctx, p)
	if err != nil || p == nil {
		return s, err
	}
	return b.cache.Fork(s), nil
}

// started counts a request off the beginnings that it had to wait for.
func (b *batch) started(i int) {
	for p := b.leaf[i]; p != nil; p = p.up {
		if p.waiting--; p.waiting == 0 && p.seq != nil {
			b.cache.Free(p.seq)
			p.seq = nil
		}
	}
}
