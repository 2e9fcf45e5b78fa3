package sample_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/sample"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// said is what a live row was handed.
type said struct {
	tokens []sample.Token
	finish string
	err    error
	ends   int
}

func (s *said) row(r sample.Request, stack int) sample.Row {
	return sample.Row{Request: r, Stack: stack, Top: 3,
		Token: func(t sample.Token) bool { s.tokens = append(s.tokens, t); return true },
		End:   func(finish string, err error) { s.finish, s.err = finish, err; s.ends++ }}
}

func (s *said) result() sample.Result {
	var r sample.Result
	for _, t := range s.tokens {
		r.Tokens, r.LogProbs = append(r.Tokens, t.ID), append(r.LogProbs, t.LogProb)
	}
	r.Finish, r.Text = s.finish, decode(r.Tokens)
	return r
}

// TestLiveRowLaw: answers do not depend on when they were asked for, on who else asks, of which
// stack, on how little memory there is, or on what was asked before.
func TestLiveRowLaw(t *testing.T) { eachMode(t, liveRowLaw) }

func liveRowLaw(t *testing.T, m *transformer.Model, stack []*transformer.Adapter) {
	reqs := slices.DeleteFunc(requests(28, 37), func(r sample.Request) bool { return len(r.Params.StopTexts) > 0 })
	stacks := [][]*transformer.Adapter{nil, stack}
	want := make([]sample.Result, len(reqs))
	for i := range reqs {
		want[i] = generate(t, m, stacks[i%2], reqs[i:i+1], sample.Options{})[0]
		want[i].EndLogProb = 0 // not handed out
	}
	random := rand.New(rand.NewPCG(6, 7))
	for n, o := range []sample.LiveOptions{{}, {MaxRows: 1}, {MaxRows: 5, PrefillTokens: 9}, {MaxRows: 12, Keep: -1}, {MaxRows: 12, Pages: 6}, {MaxRows: 12, Pages: 9, Keep: 3, PrefillTokens: 40}, {MaxRows: 40, Pages: 20, PrefillTokens: 1000}} {
		name := fmt.Sprintf("%+v", o)
		l, err := sample.NewLive(m, stacks, o)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]said, len(reqs))
		next, most := 0, 0
		order := random.Perm(len(reqs))
		for l.Busy() || next < len(order) {
			for next < len(order) && (!l.Busy() || random.IntN(3) == 0) {
				i := order[next]
				next++
				if err := l.Add(got[i].row(reqs[i], i%2)); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
			most = max(most, l.Pages())
			if o.Pages > 0 && l.Pages() > o.Pages {
				t.Fatalf("%s: %d pages in use", name, l.Pages())
			}
		}
		for i := range reqs {
			if got[i].ends != 1 || got[i].err != nil || !sameResult(got[i].result(), want[i]) {
				t.Errorf("%s: request %d ended %d times, %v\n got %+v\nwant %+v", name, i, got[i].ends, got[i].err, got[i].result(), want[i])
			}
		}
		if o.Keep < 0 && l.Pages() != 0 {
			t.Errorf("%s: %d pages are held by nobody", name, l.Pages())
		}
		l.Abort(errors.New("over"))
		if l.Pages() != 0 {
			t.Errorf("%s: %d pages are held after the end", name, l.Pages())
		}
		t.Logf("options %d: at most %d pages", n, most)
	}
}

// TestLiveAlternatives: they are the most probable tokens, in order, with the log-probs of the training path.
func TestLiveAlternatives(t *testing.T) {
	m, stack := tiny(t, 64)
	l, err := sample.NewLive(m, [][]*transformer.Adapter{stack}, sample.LiveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	req := sample.Request{Prompt: []int32{5, 9, 30, 2}, Params: sample.Params{Temperature: 1, Seed: 3, MaxTokens: 4}}
	var s said
	if err := l.Add(s.row(req, 0)); err != nil {
		t.Fatal(err)
	}
	for l.Busy() {
		if err := l.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	row := slices.Clone(req.Prompt)
	for _, tok := range s.tokens {
		var all []sample.Alternative
		for id := range int32(m.Vocab) {
			all = append(all, sample.Alternative{ID: id, LogProb: score(t, m, stack, append(slices.Clone(row), id), len(row)-1)[0]})
		}
		slices.SortStableFunc(all, func(a, b sample.Alternative) int {
			return map[bool]int{true: -1, false: 1}[a.LogProb > b.LogProb]
		})
		if !slices.Equal(tok.Top, all[:3]) {
			t.Errorf("alternatives %v, want %v", tok.Top, all[:3])
		}
		row = append(row, tok.ID)
	}
	if len(s.tokens) != 4 {
		t.Errorf("%d tokens", len(s.tokens))
	}
}

// TestLiveEnds: rows that are given up, stopped by their reader or broken end alone.
func TestLiveEnds(t *testing.T) {
	m, stack := tiny(t, 160)
	l, err := sample.NewLive(m, [][]*transformer.Adapter{stack}, sample.LiveOptions{MaxRows: 3, Keep: -1})
	if err != nil {
		t.Fatal(err)
	}
	free := sample.Request{Key: 3, Prompt: []int32{1, 2, 3}, Params: sample.Params{Temperature: 1, Seed: 6, MaxTokens: 20}}
	want := generate(t, m, stack, []sample.Request{free}, sample.Options{})[0]
	var whole, cut, gone, waits said
	ctx, cancel := context.WithCancel(t.Context())
	never, cancelNever := context.WithCancel(t.Context())
	rows := []sample.Row{whole.row(free, 0), cut.row(free, 0), gone.row(free, 0), waits.row(free, 0)}
	rows[1].Token = func(x sample.Token) bool { cut.tokens = append(cut.tokens, x); return len(cut.tokens) < 5 }
	rows[2].Token = func(x sample.Token) bool {
		if gone.tokens = append(gone.tokens, x); len(gone.tokens) == 7 {
			cancel()
		}
		return true
	}
	rows[2].Context, rows[3].Context = ctx, never
	for _, r := range rows {
		if err := l.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	cancelNever()
	for l.Busy() {
		if err := l.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !sameResult(whole.result(), want) || cut.finish != sample.FinishStop || !slices.Equal(cut.result().Tokens, want.Tokens[:5]) {
		t.Errorf("whole %+v, cut %+v", whole, cut)
	}
	if !errors.Is(gone.err, context.Canceled) || len(gone.tokens) != 7 || gone.finish != "" || !errors.Is(waits.err, context.Canceled) || len(waits.tokens) != 0 {
		t.Errorf("gone %+v, waits %+v", gone, waits)
	}
	if l.Pages() != 0 {
		t.Errorf("%d pages are held", l.Pages())
	}
	// A pass that is given up ends the batch; all rows learn of it, once.
	var a, b said
	if err := errors.Join(l.Add(a.row(free, 0)), l.Add(b.row(free, 0))); err != nil {
		t.Fatal(err)
	}
	over := errors.New("over")
	if err := l.Step(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	l.Abort(over)
	if a.ends != 1 || b.ends != 1 || a.err != over || b.err != over || l.Busy() || l.Pages() != 0 {
		t.Errorf("%+v, %+v", a, b)
	}
}

// TestLiveDamage: scores that are not finite end the rows of that stack only.
func TestLiveDamage(t *testing.T) {
	m, stack := tiny(t, 64)
	broken := transformer.NewAdapter(m.Config, 3, 6, 5)
	for _, x := range broken.Matrices() {
		for j := range x.T.Data() {
			x.T.Data()[j] = float32(math.NaN())
		}
	}
	l, err := sample.NewLive(m, [][]*transformer.Adapter{stack, {broken}}, sample.LiveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	free := sample.Request{Prompt: []int32{1, 2, 3}, Params: sample.Params{MaxTokens: 5}}
	var good, bad said
	if err := errors.Join(l.Add(bad.row(free, 1)), l.Add(good.row(free, 0))); err != nil {
		t.Fatal(err)
	}
	for l.Busy() {
		if err := l.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var score *sample.ScoreError
	if !errors.As(bad.err, &score) || len(bad.tokens) != 0 || good.err != nil || len(good.tokens) != 5 {
		t.Errorf("good %+v, bad %+v", good, bad)
	}
}

func TestLiveRefuses(t *testing.T) {
	m, stack := tiny(t, 64)
	stacks := [][]*transformer.Adapter{stack}
	for _, o := range []sample.LiveOptions{{MaxRows: -1}, {Context: 65}, {Context: 1}, {Pages: 2}, {Keep: -2}} {
		if _, err := sample.NewLive(m, stacks, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	if _, err := sample.NewLive(m, nil, sample.LiveOptions{}); err == nil {
		t.Error("no stack was taken")
	}
	l, err := sample.NewLive(m, stacks, sample.LiveOptions{Context: 20})
	if err != nil {
		t.Fatal(err)
	}
	var s said
	ok := sample.Request{Prompt: []int32{1, 2, 3}}
	for want, r := range map[string]sample.Row{
		"empty":        s.row(sample.Request{}, 0),
		"context is":   s.row(sample.Request{Prompt: make([]int32, 20)}, 0),
		"stack":        s.row(ok, 1),
		"Decode":       s.row(sample.Request{Prompt: []int32{1}, Params: sample.Params{StopTexts: []string{"x"}}}, 0),
		"needs Token":  {Request: ok},
		"temperature":  s.row(sample.Request{Prompt: []int32{1}, Params: sample.Params{Temperature: -1}}, 0),
		"alternatives": {Request: ok, Top: -1},
	} {
		if err := l.Add(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if l.Busy() || s.ends > 0 {
		t.Error("a refused row is in work")
	}
}

// TestLiveShares: rows that begin alike hold their beginning once, and so do those that come later.
func TestLiveShares(t *testing.T) {
	m, stack := tiny(t, 160)
	l, err := sample.NewLive(m, [][]*transformer.Adapter{stack}, sample.LiveOptions{MaxRows: 10, PrefillTokens: 1000})
	if err != nil {
		t.Fatal(err)
	}
	// Three whole pages in common; with the rest of the prompt and two tokens of answer each row fills a part of a fourth.
	rows := make([]said, 20)
	for i := range rows {
		prompt := slices.Repeat([]int32{7}, 98)
		prompt = append(prompt, int32(i), 1, 2)
		if err := l.Add(rows[i].row(sample.Request{Prompt: prompt, Params: sample.Params{MaxTokens: 2}}, 0)); err != nil {
			t.Fatal(err)
		}
	}
	most := 0
	for l.Busy() {
		if err := l.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		most = max(most, l.Pages())
	}
	if want := 3 + len(rows); most > want {
		t.Errorf("%d pages in use, at most %d hold what differs", most, want)
	}
	for i := range rows {
		if rows[i].ends != 1 || rows[i].err != nil {
			t.Errorf("row %d: %+v", i, rows[i])
		}
	}
}
