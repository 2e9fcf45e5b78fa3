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
	"github.com/opencharacter/opencharacter/tensor"
)

func tiny(t testing.TB, context int) (*transformer.Model, []*transformer.Adapter) {
	t.Helper()
	m, err := transformer.NewRandom(transformer.Config{
		Architecture: "llama", Layers: 2, Width: 24, Heads: 6, KVHeads: 2, HeadDim: 4, FFN: 37, Vocab: 67,
		Context: context, RopeBase: 10000, NormEps: 1e-5, Tied: true,
	}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return m, stackFor(m)
}

// tinyQuantized is tiny with rows of whole blocks and quantised matrices.
func tinyQuantized(t testing.TB, context int) (*transformer.Model, []*transformer.Adapter) {
	t.Helper()
	m, err := transformer.NewRandomQuantized(transformer.Config{
		Architecture: "llama", Layers: 2, Width: 32, Heads: 4, KVHeads: 2, HeadDim: 8, FFN: 64, Vocab: 67,
		Context: context, RopeBase: 10000, NormEps: 1e-5, Tied: true,
	}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return m, stackFor(m)
}

// stackFor is an adapter whose B is not zero.
func stackFor(m *transformer.Model) []*transformer.Adapter {
	a := transformer.NewAdapter(m.Config, 3, 6, 5)
	r := rand.New(rand.NewPCG(3, 4))
	for i, x := range a.Matrices() {
		if i%2 == 1 {
			for j := range x.T.Data() {
				x.T.Data()[j] = float32(r.NormFloat64() * .3)
			}
		}
	}
	return []*transformer.Adapter{a}
}

// decode writes token n as the letter of n, so that texts can be seen.
func decode(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteRune('A' + rune(id))
	}
	return b.String()
}

// requests with a common beginning, of different lengths and parameters. Every second one shares more, of these every
// second one more again, and every fifth is the prompt of the one five before.
func requests(n, shared int) []sample.Request {
	r := rand.New(rand.NewPCG(8, 9))
	prefix := make([]int32, shared)
	for i := range prefix {
		prefix[i] = int32(r.IntN(67))
	}
	all := []sample.Params{
		{Temperature: 1, MaxTokens: 12}, {Temperature: .7, TopP: .9, MaxTokens: 20}, {MaxTokens: 9}, {Temperature: 1.5, TopK: 5, MaxTokens: 15, RepetitionPenalty: 1.3},
		{Temperature: 1, MaxTokens: 25, StopTokens: []int32{3, 4, 5, 6, 7, 8, 9}}, {Temperature: 1, MaxTokens: 30, StopTexts: []string{"B", "C", "DD"}}, {Temperature: 1, MaxTokens: 1},
	}
	reqs := make([]sample.Request, n)
	for i := range reqs {
		p := slices.Clone(prefix)
		for level, step := range []int{2, 4} {
			for k := range 11 {
				if i%step == 1 {
					p = append(p, int32((7*k+level)%67))
				}
			}
		}
		for range 1 + r.IntN(60) {
			p = append(p, int32(r.IntN(67)))
		}
		if i%5 == 4 && i > 5 {
			p = reqs[i-5].Prompt
		}
		reqs[i] = sample.Request{Key: uint64(1000 + i), Prompt: p, Params: all[i%len(all)]}
		reqs[i].Params.Seed = 42
	}
	return reqs
}

func generate(t testing.TB, m *transformer.Model, stack []*transformer.Adapter, reqs []sample.Request, o sample.Options) []sample.Result {
	t.Helper()
	out := make([]sample.Result, len(reqs))
	seen := make([]bool, len(reqs))
	o.Decode = decode
	err := sample.Generate(context.Background(), m, stack, reqs, o, func(i int, r sample.Result) error {
		if seen[i] {
			t.Errorf("request %d was emitted twice", i)
		}
		seen[i], out[i] = true, r
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(seen, false) {
		t.Fatalf("not all requests were emitted: %v", seen)
	}
	return out
}

func sameResult(a, b sample.Result) bool {
	bits := func(x []float32) (o []uint32) {
		for _, v := range x {
			o = append(o, math.Float32bits(v))
		}
		return o
	}
	return slices.Equal(a.Tokens, b.Tokens) && slices.Equal(bits(a.LogProbs), bits(b.LogProbs)) && a.Finish == b.Finish && a.Text == b.Text &&
		math.Float32bits(a.EndLogProb) == math.Float32bits(b.EndLogProb)
}

// eachMode runs a test on the tiny model in both compute modes and on the quantised one.
func eachMode(t *testing.T, f func(t *testing.T, m *transformer.Model, stack []*transformer.Adapter)) {
	for _, c := range []tensor.Compute{tensor.Exact, tensor.BF16} {
		t.Run(c.String(), func(t *testing.T) {
			m, stack := tiny(t, 160)
			if err := m.SetCompute(c); err != nil {
				t.Fatal(err)
			}
			f(t, m, stack)
		})
	}
	t.Run("quantized", func(t *testing.T) {
		m, stack := tinyQuantized(t, 160)
		f(t, m, stack)
	})
}

// TestRowLaw: answers do not depend on order, neighbours, MaxRows, pieces of
// prompts, or on what the prompts share.
func TestRowLaw(t *testing.T) { eachMode(t, rowLaw) }

func rowLaw(t *testing.T, m *transformer.Model, stack []*transformer.Adapter) {
	reqs := requests(15, 37)
	want := make([]sample.Result, len(reqs))
	for i := range reqs { // each alone
		want[i] = generate(t, m, stack, reqs[i:i+1], sample.Options{})[0]
	}
	finish := map[string]int{}
	for _, r := range want {
		finish[r.Finish]++
	}
	if finish[sample.FinishStop] < 2 || finish[sample.FinishLength] < 2 {
		t.Errorf("the test asks for answers of both kinds, got %v", finish)
	}
	perm := rand.New(rand.NewPCG(5, 5)).Perm(len(reqs))
	for _, o := range []sample.Options{{}, {MaxRows: 1}, {MaxRows: 3, PrefillTokens: 7}, {MaxRows: 64, PrefillTokens: 1}, {PrefillTokens: 1000}} {
		name := fmt.Sprintf("rows %d, prefill %d", o.MaxRows, o.PrefillTokens)
		for i, r := range generate(t, m, stack, reqs, o) {
			if !sameResult(r, want[i]) {
				t.Errorf("%s: request %d\n got %+v\nwant %+v", name, i, r, want[i])
			}
		}
		shuffled := make([]sample.Request, len(reqs))
		for k, i := range perm {
			shuffled[k] = reqs[i]
		}
		for k, r := range generate(t, m, stack, shuffled, o) {
			if !sameResult(r, want[perm[k]]) {
				t.Errorf("%s, shuffled: request %d differs", name, perm[k])
			}
		}
	}
	defer tensor.SetThreads(0)
	tensor.SetThreads(1)
	for i, r := range generate(t, m, stack, reqs, sample.Options{}) {
		if !sameResult(r, want[i]) {
			t.Errorf("one thread: request %d differs", i)
		}
	}
	// Another seed or key gives another answer.
	for _, bend := range []func(r *sample.Request){func(r *sample.Request) { r.Key++ }, func(r *sample.Request) { r.Params.Seed++ }} {
		other := reqs[1]
		bend(&other)
		if sameResult(generate(t, m, stack, []sample.Request{other}, sample.Options{})[0], want[1]) {
			t.Error("seed and key do not matter")
		}
	}
}

// TestLogProbs: the log-probs of an answer are those of the training path.
func TestLogProbs(t *testing.T) { eachMode(t, logProbs) }

func logProbs(t *testing.T, m *transformer.Model, stack []*transformer.Adapter) {
	reqs := requests(14, 20)
	for i, r := range generate(t, m, stack, reqs, sample.Options{}) {
		prompt := reqs[i].Prompt
		row := slices.Concat(prompt, r.Tokens)
		if r.EndLogProb != 0 {
			// The end token is one of several; its log-prob must be that of one of them.
			found := false
			for _, end := range reqs[i].Params.StopTokens {
				lp := score(t, m, stack, append(slices.Clone(row), end), len(row)-1)
				found = found || math.Float32bits(lp[0]) == math.Float32bits(r.EndLogProb)
			}
			if !found {
				t.Errorf("request %d: EndLogProb %v is of none of the end tokens", i, r.EndLogProb)
			}
		}
		if len(r.Tokens) == 0 {
			continue
		}
		for k, lp := range score(t, m, stack, row, len(prompt)-1) {
			if math.Float32bits(lp) != math.Float32bits(r.LogProbs[k]) {
				t.Errorf("request %d, token %d: sampled with log-prob %v, trained with %v", i, k, r.LogProbs[k], lp)
			}
		}
	}
}

// score returns the log-probs of the tokens after position from.
func score(t testing.TB, m *transformer.Model, stack []*transformer.Adapter, row []int32, from int) []float32 {
	t.Helper()
	var positions []int32
	for p := from; p < len(row)-1; p++ {
		positions = append(positions, int32(p))
	}
	lp, err := m.LogProbs(transformer.NewWorkspace(), transformer.Rows{Tokens: row, Offsets: []int32{0, int32(len(row))}}, positions, stack)
	if err != nil {
		t.Fatal(err)
	}
	return lp
}

// TestGreedy: each token is the most probable one by the training path.
func TestGreedy(t *testing.T) {
	m, stack := tiny(t, 160)
	req := sample.Request{Prompt: []int32{5, 9, 30, 2}, Params: sample.Params{MaxTokens: 6}}
	r := generate(t, m, stack, []sample.Request{req}, sample.Options{})[0]
	row := slices.Clone(req.Prompt)
	for k, got := range r.Tokens {
		best, bestLP := int32(-1), float32(math.Inf(-1))
		for id := range int32(m.Vocab) {
			if lp := score(t, m, stack, append(slices.Clone(row), id), len(row)-1)[0]; lp > bestLP {
				best, bestLP = id, lp
			}
		}
		if got != best {
			t.Errorf("token %d is %d, want %d", k, got, best)
		}
		row = append(row, got)
	}
}

func TestStops(t *testing.T) {
	m, stack := tiny(t, 64)
	free := sample.Request{Key: 3, Prompt: []int32{1, 2, 3}, Params: sample.Params{Temperature: 1, Seed: 6, MaxTokens: 20}}
	base := generate(t, m, stack, []sample.Request{free}, sample.Options{})[0]
	if base.Finish != sample.FinishLength || len(base.Tokens) != 20 || base.Text != decode(base.Tokens) || base.EndLogProb != 0 {
		t.Fatalf("base %+v", base)
	}
	run := func(bend func(r *sample.Request)) sample.Result {
		r := free
		bend(&r)
		return generate(t, m, stack, []sample.Request{r}, sample.Options{})[0]
	}
	end := base.Tokens[7]
	at := slices.Index(base.Tokens, end)
	r := run(func(r *sample.Request) { r.Params.StopTokens = []int32{66, end} })
	if r.Finish != sample.FinishStop || !slices.Equal(r.Tokens, base.Tokens[:at]) || r.EndLogProb != base.LogProbs[at] || r.Text != decode(r.Tokens) {
		t.Errorf("stop token: %+v", r)
	}
	stop := base.Text[5:8] // three tokens, each one character
	at = strings.Index(base.Text, stop)
	r = run(func(r *sample.Request) { r.Params.StopTexts = []string{"nope", stop} })
	if r.Finish != sample.FinishStop || !slices.Equal(r.Tokens, base.Tokens[:at+3]) || r.Text != base.Text[:at] || r.EndLogProb != 0 {
		t.Errorf("stop text: %+v", r)
	}
	r = run(func(r *sample.Request) { r.Params.MaxTokens = 0 })
	if r.Finish != sample.FinishContext || len(r.Tokens) != 61 || !slices.Equal(r.Tokens[:20], base.Tokens) {
		t.Errorf("no limit: %d tokens, %s", len(r.Tokens), r.Finish)
	}
	r = run(func(r *sample.Request) { r.Prompt = make([]int32, 63) })
	if r.Finish != sample.FinishContext || len(r.Tokens) != 1 {
		t.Errorf("room for one: %+v", r)
	}
	long := []sample.Request{free, {Prompt: make([]int32, 64)}, {Prompt: make([]int32, 1000)}}
	all := generate(t, m, stack, long, sample.Options{})
	if !sameResult(all[0], base) || all[1].Finish != sample.FinishContext || all[2].Finish != sample.FinishContext || len(all[1].Tokens)+len(all[2].Tokens) != 0 {
		t.Errorf("prompts without room: %+v", all)
	}
}

func TestErrors(t *testing.T) {
	m, stack := tiny(t, 64)
	ok := []int32{1, 2}
	for _, c := range []struct {
		req  sample.Request
		want string
	}{
		{sample.Request{}, "request 1: the prompt is empty"},
		{sample.Request{Prompt: []int32{1, 67}}, "token 67 at position 1"},
		{sample.Request{Prompt: []int32{-1}}, "token -1"},
		{sample.Request{Prompt: ok, Params: sample.Params{Temperature: -1}}, "temperature"},
		{sample.Request{Prompt: ok, Params: sample.Params{Temperature: math.NaN()}}, "temperature"},
		{sample.Request{Prompt: ok, Params: sample.Params{Temperature: math.Inf(1)}}, "temperature"},
		{sample.Request{Prompt: ok, Params: sample.Params{TopP: 1.1}}, "top-p"},
		{sample.Request{Prompt: ok, Params: sample.Params{TopP: math.NaN()}}, "top-p"},
		{sample.Request{Prompt: ok, Params: sample.Params{TopK: -1}}, "top-k"},
		{sample.Request{Prompt: ok, Params: sample.Params{RepetitionPenalty: -1}}, "penalty"},
		{sample.Request{Prompt: ok, Params: sample.Params{MaxTokens: -1}}, "max tokens"},
		{sample.Request{Prompt: ok, Params: sample.Params{StopTexts: []string{"x"}}}, "Decode"},
	} {
		calls := 0
		err := sample.Generate(context.Background(), m, stack, []sample.Request{{Prompt: ok, Params: sample.Params{MaxTokens: 1}}, c.req}, sample.Options{},
			func(int, sample.Result) error { calls++; return nil })
		if err == nil || !strings.Contains(err.Error(), c.want) || calls > 0 {
			t.Errorf("%+v: error %v after %d results, want one with %q before any", c.req, err, calls, c.want)
		}
	}
	if err := sample.Generate(context.Background(), m, stack, nil, sample.Options{MaxRows: -1}, func(int, sample.Result) error { return nil }); err == nil {
		t.Error("negative MaxRows gave no error")
	}
	if err := sample.Generate(context.Background(), m, stack, nil, sample.Options{}, nil); err == nil {
		t.Error("no emit gave no error")
	}
	if err := sample.Generate(context.Background(), m, stack, nil, sample.Options{}, func(int, sample.Result) error { return nil }); err != nil {
		t.Errorf("no requests: %v", err)
	}
}

func TestCancelAndCallbacks(t *testing.T) {
	m, stack := tiny(t, 160)
	reqs := requests(9, 5)
	var tokens [9][]int32
	drawn, done := 0, 0
	o := sample.Options{MaxRows: 4, OnToken: func(i int, id int32) { tokens[i] = append(tokens[i], id) },
		Progress: func(d, n int) {
			if d < done || n < 1 || n > 4 {
				t.Errorf("progress %d after %d, %d tokens", d, done, n)
			}
			done, drawn = d, drawn+n
		}}
	total := 0
	for i, r := range generate(t, m, stack, reqs, o) {
		if !slices.Equal(r.Tokens, tokens[i]) {
			t.Errorf("request %d: OnToken saw %v of %v", i, tokens[i], r.Tokens)
		}
		total += len(r.Tokens)
		if r.EndLogProb != 0 {
			total++
		}
	}
	if done != 9 || drawn != total {
		t.Errorf("progress ended at %d rows and %d tokens, want 9 and %d", done, drawn, total)
	}
	ctx, cancel := context.WithCancel(context.Background())
	steps := 0
	o = sample.Options{Decode: decode, Progress: func(int, int) {
		if steps++; steps == 3 {
			cancel()
		}
	}}
	err := sample.Generate(ctx, m, stack, reqs, o, func(int, sample.Result) error { return nil })
	if !errors.Is(err, context.Canceled) || steps != 3 {
		t.Errorf("cancel: %v after %d steps", err, steps)
	}
	// A long pass, of a prompt in one piece, is left before its next layer.
	ctx, cancel = context.WithCancel(context.Background())
	alive := 0
	o = sample.Options{Decode: decode, PrefillTokens: 1000, Alive: func() {
		if alive++; alive == 2 { // the second layer of the first pass
			cancel()
		}
	}, Progress: func(int, int) { t.Error("a pass went on to its end") }}
	if err := sample.Generate(ctx, m, stack, reqs, o, func(int, sample.Result) error { return nil }); !errors.Is(err, context.Canceled) || alive != 2 {
		t.Errorf("cancel within a pass: %v after %d layers", err, alive)
	}
	full := errors.New("disk full")
	err = sample.Generate(context.Background(), m, stack, reqs, sample.Options{Decode: decode}, func(int, sample.Result) error { return full })
	if !errors.Is(err, full) {
		t.Errorf("emit: %v", err)
	}
}
