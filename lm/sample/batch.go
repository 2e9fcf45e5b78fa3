package sample

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// row is one answer in work.
type row struct {
	i      int // index of the request
	req    *Request
	top    int                   // alternatives to list for each token
	seq    *transformer.Sequence // nil: not begun
	fed    int                   // tokens in seq, of the prompt and then of the answer
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
	drawer
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
		b.draws(rows, scores)
		for _, d := range b.drawn[:len(rows)] {
			if d.err != nil {
				return d.err
			}
		}
		drawn := 0
		for k, r := range rows {
			if !r.ready() {
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
		r.begin()
		b.active = append(b.active, r)
	}
	return nil
}

// begin notes the prompt's tokens, when a repetition penalty wants them.
func (r *row) begin() {
	if p := r.req.Params.RepetitionPenalty; p != 0 && p != 1 {
		r.isSeen = make(map[int32]struct{})
		for _, id := range r.req.Prompt {
			r.see(id)
		}
	}
}

// length counts the tokens that stand before the next draw.
func (r *row) length() int { return len(r.req.Prompt) + len(r.out.Tokens) }

// ready says that the next token can be drawn after this pass.
func (r *row) ready() bool { return r.fed == r.length() }

// piece is what the next pass appends, and whether it counts against the budget
// of prompt tokens: all does but a token that was just drawn.
func (r *row) piece(budget int) (tokens []int32, counts bool) {
	counts = r.length()-r.fed != 1 || len(r.out.Tokens) == 0
	if tokens = r.req.Prompt[min(r.fed, len(r.req.Prompt)):]; len(tokens) == 0 {
		tokens = r.out.Tokens[r.fed-len(r.req.Prompt):]
	}
	if counts {
		tokens = tokens[:min(len(tokens), budget)]
	}
	return tokens, counts
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
		tokens, counts := r.piece(budget)
		if counts {
			budget -= len(tokens)
		}
		if len(tokens) > 0 {
			r.fed += len(tokens)
			chunks = append(chunks, transformer.Chunk{Seq: r.seq, Tokens: tokens})
			rows = append(rows, r)
		}
	}
	return chunks, rows
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
