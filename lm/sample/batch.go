package sample

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// row is one answer in work.
type row struct {
	i      int // index of the request
	req    *Request
	seq    *transformer.Sequence
	fed    int // prompt tokens in seq
	seen   []int32
	isSeen map[int32]struct{} // nil without a repetition penalty
	out    Result
}

// batch is the state of one call of Generate.
type batch struct {
	model  *transformer.Model
	stack  []*transformer.Adapter
	reqs   []Request
	opt    Options
	emit   func(i int, r Result) error
	ws     *transformer.Workspace
	cache  *transformer.Cache
	leaf   map[int]*prefix // of each waiting request, the longest beginning it shares; nil: none
	queue  []int           // requests that wait
	active []*row
	done   int
	drawn  []draw
	choose []chooser // one for each goroutine that draws
}

// draw is a row's next token with its log-prob.
type draw struct {
	id      int32
	logProb float32
}

func newBatch(m *transformer.Model, stack []*transformer.Adapter, reqs []Request, o Options, emit func(int, Result) error) *batch {
	return &batch{model: m, stack: stack, reqs: reqs, opt: o, emit: emit, ws: transformer.NewWorkspace(), cache: m.NewCache()}
}

func (b *batch) run(ctx context.Context) error {
	b.ws.Interrupt = func() error {
		if b.opt.Alive != nil {
			b.opt.Alive()
		}
		return ctx.Err()
	}
	for i := range b.reqs {
		if len(b.reqs[i].Prompt) < b.model.Context {
			b.queue = append(b.queue, i)
			continue
		}
		if err := b.finish(&row{i: i, req: &b.reqs[i], out: Result{Finish: FinishContext}}); err != nil {
			return err
		}
	}
	b.share()
	logits := tensor.New(min(b.opt.MaxRows, max(1, len(b.queue))), b.model.Vocab)
	var chunks []transformer.Chunk
	var rows []*row
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := b.admit(ctx); err != nil {
			return err
		}
		if len(b.active) == 0 {
			return nil
		}
		chunks, rows = b.plan(chunks[:0], rows[:0])
		scores := logits.View(0, len(chunks))
		if err := b.model.Extend(b.ws, b.cache, chunks, b.stack, scores); err != nil {
			return fmt.Errorf("sample: %w", err)
		}
		if err := b.draws(rows, scores); err != nil {
			return err
		}
		drawn := 0
		for k, r := range rows {
			if r.fed < len(r.req.Prompt) {
				continue // more of the prompt to come
			}
			drawn++
			if !b.next(r, b.drawn[k]) {
				if err := b.finish(r); err != nil {
					return err
				}
			}
		}
		b.active = slices.DeleteFunc(b.active, func(r *row) bool { return r.out.Finish != "" })
		if drawn > 0 && b.opt.Progress != nil {
			b.opt.Progress(b.done, drawn)
		}
	}
}

// admit starts waiting requests while there is room.
func (b *batch) admit(ctx context.Context) error {
	for len(b.active) < b.opt.MaxRows && len(b.queue) > 0 {
		i := b.queue[0]
		seq, err := b.begin(ctx, b.leaf[i])
		if err != nil {
			return err
		}
		b.queue = b.queue[1:]
		b.started(i)
		r := &row{i: i, req: &b.reqs[i], seq: seq, fed: seq.Length}
		if p := r.req.Params.RepetitionPenalty; p != 0 && p != 1 {
			r.isSeen = make(map[int32]struct{})
			for _, id := range r.req.Prompt {
				r.see(id)
			}
		}
		b.active = append(b.active, r)
	}
	return nil
}

func (r *row) see(id int32) {
	if r.isSeen == nil {
		return
	}
	if _, ok := r.isSeen[id]; !ok {
		r.isSeen[id] = struct{}{}
		r.seen = append(r.seen, id)
	}
}

// plan lists what the next forward pass appends: the last token of every row
// that is drawing, and pieces of prompts up to PrefillTokens in all. Rows for
// whose prompt no tokens are left wait for the next pass.
func (b *batch) plan(chunks []transformer.Chunk, rows []*row) ([]transformer.Chunk, []*row) {
	budget := b.opt.PrefillTokens
	for _, r := range b.active {
		var tokens []int32
		if rest := r.req.Prompt[r.fed:]; len(rest) > 0 {
			tokens = rest[:min(len(rest), budget)]
			budget -= len(tokens)
			r.fed += len(tokens)
		} else {
			tokens = r.out.Tokens[len(r.out.Tokens)-1:]
		}
		if len(tokens) > 0 {
			chunks = append(chunks, transformer.Chunk{Seq: r.seq, Tokens: tokens})
			rows = append(rows, r)
		}
	}
	return chunks, rows
}

// fewDraws is up to how many rows one goroutine draws for: waking another takes as long.
const fewDraws = 2

// draws sets drawn to the next tokens of the rows whose prompts are read. A draw depends
// on its row alone, so they may run at the same time.
func (b *batch) draws(rows []*row, scores *tensor.Tensor) error {
	b.drawn = slices.Grow(b.drawn[:0], len(rows))[:len(rows)]
	n := max(1, min(runtime.GOMAXPROCS(0), len(rows)/fewDraws))
	for len(b.choose) < n {
		b.choose = append(b.choose, chooser{})
	}
	var g errgroup.Group
	for w := range n {
		some := func() error {
			for k := w; k < len(rows); k += n {
				if r := rows[k]; r.fed == len(r.req.Prompt) {
					if err := b.draw(k, r, scores.Row(k), &b.choose[w]); err != nil {
						return err
					}
				}
			}
			return nil
		}
		if w == n-1 { // this goroutine's own share
			return errors.Join(some(), g.Wait())
		}
		g.Go(some)
	}
	return nil
}

// draw draws the next token of rows[k] from its logits.
func (b *batch) draw(k int, r *row, logits []float32, c *chooser) error {
	p, position := &r.req.Params, len(r.out.Tokens)
	lse := tensor.LogSumExp(logits)
	if math.IsNaN(float64(lse)) || math.IsInf(float64(lse), 0) {
		return &ScoreError{Request: r.i, Token: position}
	}
	id := c.choose(logits, p, r.seen, uniform(p.Seed, r.req.Key, position))
	b.drawn[k] = draw{id, logits[id] - lse}
	return nil
}

// next takes the row's next token and reports whether the answer goes on; otherwise
// out.Finish is set.
func (b *batch) next(r *row, d draw) (more bool) {
	p, id, logProb := &r.req.Params, d.id, d.logProb
	if slices.Contains(p.StopTokens, id) {
		r.out.Finish, r.out.EndLogProb = FinishStop, logProb
		return false
	}
	r.out.Tokens = append(r.out.Tokens, id)
	r.out.LogProbs = append(r.out.LogProbs, logProb)
	r.see(id)
	if b.opt.OnToken != nil {
		b.opt.OnToken(r.i, id)
	}
	switch {
	case len(p.StopTexts) > 0 && stopAt(b.opt.Decode(r.out.Tokens), p.StopTexts) >= 0:
		r.out.Finish = FinishStop
	case len(r.out.Tokens) == p.MaxTokens:
		r.out.Finish = FinishLength
	case len(r.req.Prompt)+len(r.out.Tokens) >= b.model.Context:
		r.out.Finish = FinishContext
	}
	return r.out.Finish == ""
}

// finish gives the row's memory back and hands its answer out.
func (b *batch) finish(r *row) error {
	if r.seq != nil {
		b.cache.Free(r.seq)
		r.seq = nil
	}
	if b.opt.Decode != nil {
		r.out.Text = b.opt.Decode(r.out.Tokens)
		if at := stopAt(r.out.Text, r.req.Params.StopTexts); at >= 0 {
			r.out.Text = r.out.Text[:at]
		}
	}
	b.done++
	if err := b.emit(r.i, r.out); err != nil {
		return fmt.Errorf("sample: request %d: %w", r.i, err)
	}
	return nil
}

// stopAt returns where the first of the stop texts begins in text; -1: none.
func stopAt(text string, stops []string) int {
	at := -1
	for _, s := range stops {
		if k := strings.Index(text, s); k >= 0 && (at < 0 || k < at) {
			at = k
		}
	}
	return at
}
