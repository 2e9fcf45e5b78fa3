package sample

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// Live is a batch that rows join and leave while it runs: the generator behind a server. The
// rows may be for different stacks of adapters on one model; all take their memory from one
// bounded cache. As with Generate nothing of this shows in an answer.
//
// One goroutine at a time uses a Live: it calls Add as requests arrive, and Step again and
// again while there is Busy. When memory is short the youngest answers give theirs back and
// are read again later, which costs time and changes no bit. What an answer's tokens left in
// the cache stays there while there is room, for prompts that begin in the same way.
type Live struct {
	model   *transformer.Model
	stacks  [][]*transformer.Adapter
	caches  []*transformer.Cache // of each stack; all share their pages
	o       LiveOptions
	ws      *transformer.Workspace
	logits  *tensor.Tensor
	waiting []*liveRow
	active  []*liveRow // in the order of their arrival
	kept    []*kept    // the last used at the end
	chunks  []transformer.Chunk
	rows    []*row
	live    []*liveRow // of rows
	drawer
}

// LiveOptions bound the work. Nothing in here changes an answer, but for Context, where it ends.
type LiveOptions struct {
	// MaxRows bounds the answers in work at once; 0 is 16.
	MaxRows int
	// PrefillTokens bounds the prompt tokens of one step; 0 is 256.
	PrefillTokens int
	// Context bounds prompt and answer together; 0 is the model's own.
	Context int
	// Pages bounds the cache, in pages of tensor.PageSize positions; 0 is what MaxRows rows of
	// full length take. It must hold one row of full length.
	Pages int
	// Keep bounds the ended answers whose beginnings stay in the cache; 0 is 2*MaxRows, -1 none.
	Keep int
}

// Row is a request to a Live batch, with those who wait for its answer.
type Row struct {
	Request
	// Stack is the index of the row's stack of adapters.
	Stack int
	// Top is how many alternatives are listed for each token.
	Top int
	// Context ends the answer early when it is done; nil never is.
	Context context.Context
	// Token is called with every token as it is drawn, without the end token. It must not
	// wait for anything. False ends the answer, as a stop text does.
	Token func(Token) bool
	// End is called once, at the end: with FinishStop, FinishLength or FinishContext, or with
	// an error: a *ScoreError, or that of Context.
	End func(finish string, err error)
}

// Token is a drawn token.
type Token struct {
	ID int32
	// LogProb is the model's own: temperature 1, no penalty, nothing cut off.
	LogProb float32
	// Top are the most probable tokens at this place, as many as Row.Top asked for.
	Top []Alternative
}

// liveRow is a Row in work.
type liveRow struct {
	row
	ask Row
}

// NewLive returns an empty batch for these stacks of adapters on m.
func NewLive(m *transformer.Model, stacks [][]*transformer.Adapter, o LiveOptions) (*Live, error) {
	if o.MaxRows < 0 || o.PrefillTokens < 0 || o.Context < 0 || o.Pages < 0 || o.Keep < -1 {
		return nil, fmt.Errorf("sample: %+v: these must not be negative", o)
	}
	if len(stacks) == 0 {
		return nil, errors.New("sample: no stack of adapters given; an empty one is the model itself")
	}
	if o.MaxRows == 0 {
		o.MaxRows = 16
	}
	if o.PrefillTokens == 0 {
		o.PrefillTokens = 256
	}
	if o.Context == 0 {
		o.Context = m.Context
	}
	if o.Context > m.Context || o.Context < 2 {
		return nil, fmt.Errorf("sample: a context of %d tokens; the model has %d, and 2 are the least", o.Context, m.Context)
	}
	if o.Keep == 0 {
		o.Keep = 2 * o.MaxRows
	}
	one := PagesFor(o.Context)
	if o.Pages == 0 {
		o.Pages = o.MaxRows * one
	}
	if o.Pages < one {
		return nil, fmt.Errorf("sample: %d pages are less than the %d that one row of %d tokens takes", o.Pages, one, o.Context)
	}
	l := &Live{model: m, stacks: stacks, o: o, ws: transformer.NewWorkspace(), logits: tensor.New(o.MaxRows, m.Vocab)}
	for i, s := range stacks {
		if err := m.CheckStack(s); err != nil {
			return nil, fmt.Errorf("sample: stack %d: %w", i, err)
		}
		if i == 0 {
			l.caches = append(l.caches, m.NewCache())
		} else {
			l.caches = append(l.caches, l.caches[0].Beside())
		}
	}
	l.caches[0].Limit(o.Pages)
	return l, nil
}

// PagesFor is how many pages a row of n tokens takes, the copy of a shared page included.
func PagesFor(n int) int { return (n+tensor.PageSize-1)/tensor.PageSize + 1 }

// Add lets a row wait for its turn. A row that makes no sense, or whose prompt leaves no room
// in the context, is an error, and nothing of it is called.
func (l *Live) Add(r Row) error {
	if err := check(l.model, &r.Request, Options{}); err != nil {
		return fmt.Errorf("sample: %w", err)
	}
	switch {
	case len(r.Prompt) >= l.o.Context:
		return fmt.Errorf("sample: the prompt has %d tokens and the context is %d", len(r.Prompt), l.o.Context)
	case r.Stack < 0 || r.Stack >= len(l.stacks):
		return fmt.Errorf("sample: stack %d of %d", r.Stack, len(l.stacks))
	case r.Top < 0 || r.Top > l.model.Vocab:
		return fmt.Errorf("sample: %d alternatives of %d tokens", r.Top, l.model.Vocab)
	case r.Token == nil || r.End == nil:
		return errors.New("sample: a row needs Token and End")
	}
	if r.Context == nil {
		r.Context = context.Background()
	}
	a := &liveRow{ask: r}
	a.req, a.top = &a.ask.Request, r.Top
	a.begin()
	l.waiting = append(l.waiting, a)
	return nil
}

// Busy says whether there is anything to do for Step.
func (l *Live) Busy() bool { return len(l.waiting)+len(l.active) > 0 }

// Waiting and Active count the rows that have not started and those in work.
func (l *Live) Waiting() int { return len(l.waiting) }
func (l *Live) Active() int  { return len(l.active) }

// Pages counts the pages in use; it never passes LiveOptions.Pages.
func (l *Live) Pages() int { return l.caches[0].InUse() }

// Step draws up to one token for every row in work. After an error, ctx's own included, the
// batch cannot go on: Abort then ends its rows.
func (l *Live) Step(ctx context.Context) error {
	l.ws.Interrupt = ctx.Err
	l.waiting = slices.DeleteFunc(l.waiting, l.gone)
	l.active = slices.DeleteFunc(l.active, l.gone)
	n := min(l.o.MaxRows-len(l.active), len(l.waiting))
	l.active = append(l.active, l.waiting[:n]...)
	l.waiting = slices.Delete(l.waiting, 0, n)
	budget, first := l.o.PrefillTokens, 0
	if len(l.active) > 0 {
		first = l.active[0].ask.Stack // so that nobody takes the budget from the oldest row
	}
	for i := range l.stacks {
		if err := l.step((first+i)%len(l.stacks), &budget); err != nil {
			return err
		}
	}
	l.active = slices.DeleteFunc(l.active, func(r *liveRow) bool { return r.out.Finish != "" })
	return nil
}

// gone ends a row whose context is done.
func (l *Live) gone(r *liveRow) bool {
	err := r.ask.Context.Err()
	if err != nil {
		l.end(r, "canceled", err)
	}
	return err != nil
}

// Abort ends all rows with an error and gives their memory back.
func (l *Live) Abort(err error) {
	for _, r := range slices.Concat(l.active, l.waiting) {
		l.end(r, "aborted", err)
	}
	l.active, l.waiting = nil, nil
	for len(l.kept) > 0 {
		l.forget()
	}
}

// step draws the next tokens of one stack's rows.
func (l *Live) step(stack int, budget *int) error {
	l.plan(stack, budget)
	if len(l.chunks) == 0 {
		return nil
	}
	scores := l.logits.View(0, len(l.chunks))
	if err := l.model.Extend(l.ws, l.caches[stack], l.chunks, l.stacks[stack], scores); err != nil {
		return fmt.Errorf("sample: %w", err)
	}
	l.draws(l.rows, scores)
	for k, r := range l.live {
		if !r.ready() {
			continue
		}
		if d := l.drawn[k]; d.err != nil {
			l.end(r, "failed", d.err)
		} else if finish := l.next(r, d); finish != "" {
			l.end(r, finish, nil)
		}
	}
	return nil
}

// next takes a row's next token and returns how the answer has ended; "": it goes on.
func (l *Live) next(r *liveRow, d draw) string {
	p := &r.req.Params
	if slices.Contains(p.StopTokens, d.id) {
		return FinishStop
	}
	r.out.Tokens = append(r.out.Tokens, d.id)
	r.see(d.id)
	switch {
	case !r.ask.Token(Token{d.id, d.logProb, d.top}):
		return FinishStop
	case len(r.out.Tokens) == p.MaxTokens:
		return FinishLength
	case r.length() >= l.o.Context:
		return FinishContext
	}
	return ""
}

// end hands a row's end out and gives its memory back, or keeps it for prompts to come.
func (l *Live) end(r *liveRow, finish string, err error) {
	r.out.Finish = finish
	if r.seq != nil {
		if err == nil {
			l.keep(r)
		} else {
			l.caches[r.ask.Stack].Free(r.seq)
		}
		r.seq = nil
	}
	if err != nil {
		finish = ""
	}
	r.ask.End(finish, err)
}
