package train_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// With a fresh adapter and stored reference scores the first loss is ln 2 to the last
// bit, every margin is 0 and every pair a tie, however the pairs are packed.
func TestFirstStepIsLn2(t *testing.T) { eachMode(t, firstStepIsLn2) }

func firstStepIsLn2(t *testing.T, c tensor.Compute) {
	m := newTiny(t)
	m.SetCompute(c)
	frozen := []*transformer.Adapter{trainedAdapter(3, 6, 1)}
	for _, n := range []int{1, 3, 27} { // adding ln 2 up 27 times and dividing would miss it
		pairs := makePairs(t, m, frozen, n)
		for _, micro := range []int{1, 64, 100000} {
			tr := newTrainer(t, m, frozen, transformer.NewAdapter(tiny, 4, 4, 9), train.Options{Loss: "dpo", LR: 1e-3, MicroTokens: micro})
			got, err := tr.StepDPO(pairs)
			if err != nil {
				t.Fatal(err)
			}
			if got.Loss != math.Ln2 || got.Margin != 0 || got.ChosenReward != 0 || got.RejectedReward != 0 || got.Accuracy != 0.5 {
				t.Errorf("%d pairs, %d micro tokens: loss %v (ln 2 is %v), margin %v, rewards %v and %v, accuracy %v",
					n, micro, got.Loss, math.Ln2, got.Margin, got.ChosenReward, got.RejectedReward, got.Accuracy)
			}
			if got.GradNorm == 0 {
				t.Error("the first gradient is zero")
			}
		}
	}
}

// The loss of a step agrees with the formula worked out from SumLogProbs, and the
// gradient, seen through one tiny SGD-like step of the whole adapter, lowers it.
func TestDPOLoss(t *testing.T) {
	m := newTiny(t)
	pairs := makePairs(t, m, nil, 5)
	a := trainedAdapter(4, 4, 9)
	var ex []train.Example
	for _, p := range pairs {
		ex = append(ex, p.Chosen, p.Rejected)
	}
	sums, counts, err := train.SumLogProbs(m, transformer.NewWorkspace(), ex, []*transformer.Adapter{a})
	if err != nil {
		t.Fatal(err)
	}
	const beta, nll = 0.3, 0.2
	var loss, margin, wins float64
	for i, p := range pairs {
		u := beta * ((sums[2*i] - p.RefChosen) - (sums[2*i+1] - p.RefRejected))
		loss += -math.Log(1/(1+math.Exp(-u))) - nll*sums[2*i]/float64(counts[2*i])
		margin += u
		if u > 0 {
			wins++
		}
	}
	tr := newTrainer(t, m, nil, a, train.Options{Loss: "dpo", Beta: beta, NLL: nll, LR: 1e-3})
	first, err := tr.StepDPO(pairs)
	if err != nil {
		t.Fatal(err)
	}
	near := func(what string, got, want float64) {
		if math.Abs(got-want) > 1e-12*(1+math.Abs(want)) {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	near("loss", first.Loss, loss/5)
	near("margin", first.Margin, margin/5)
	near("accuracy", first.Accuracy, wins/5)
	near("margin of rewards", first.ChosenReward-first.RejectedReward, margin/5)
	last := first
	for range 20 {
		if last, err = tr.StepDPO(pairs); err != nil {
			t.Fatal(err)
		}
	}
	if last.Loss > 0.9*first.Loss || last.Margin <= first.Margin {
		t.Errorf("after 20 steps the loss is %v (was %v) and the margin %v (was %v)", last.Loss, first.Loss, last.Margin, first.Margin)
	}
}

// How a step is cut into micro-batches changes no bit of the adapter or the moments,
// even when a long pair is above the bound and passes one answer at a time.
func TestMicroBatchesChangeNothing(t *testing.T) { eachMode(t, microBatchesChangeNothing) }

func microBatchesChangeNothing(t *testing.T, c tensor.Compute) {
	cfg := tiny
	cfg.Context = 400
	m, err := transformer.NewRandom(cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	m.SetCompute(c)
	pairs, rows := makePairs(t, m, nil, 6), makeRows(9)
	r := rand.New(rand.NewPCG(9, 9))
	long := train.Pair{ID: "long", Chosen: example(r, 20, 290), Rejected: example(r, 20, 230), RefChosen: -1200, RefRejected: -1000}
	copy(long.Rejected.Tokens[:20], long.Chosen.Tokens)
	pairs = append(pairs, long)
	for i, p := range pairs {
		each, err := train.TokenLogProbs(m, transformer.NewWorkspace(), []train.Example{p.Chosen, p.Rejected}, nil)
		if err != nil {
			t.Fatal(err)
		}
		pairs[i].RefTokens = [2][]float32(each)
	}
	run := func(kind string, micro int) map[string][]byte {
		loss, drift, _ := strings.Cut(kind, "+")
		o := train.Options{Loss: loss, LR: 1e-2, MicroTokens: micro, ClipNorm: 0.5, WeightDecay: 0.1}
		if drift != "" {
			o.KL = 0.5
		}
		tr := newTrainer(t, m, nil, trainedAdapter(4, 8, 9), o)
		for range 3 {
			var err error
			if loss == "dpo" {
				_, err = tr.StepDPO(pairs)
			} else {
				_, err = tr.StepSFT(rows)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return save(t, tr)
	}
	for _, loss := range []string{"dpo", "dpo+kl", "sft"} {
		want := run(loss, 100000)
		for _, micro := range []int{1, 30, 64, 150, 600} {
			sameFiles(t, loss, run(loss, micro), want)
		}
	}
}

func TestSFTLoss(t *testing.T) {
	m := newTiny(t)
	rows := makeRows(7)
	a := trainedAdapter(4, 4, 9)
	var ex []train.Example
	tokens := 0
	for _, r := range rows {
		ex = append(ex, r.Example)
		tokens += len(r.Example.Tokens)
	}
	sums, counts, err := train.SumLogProbs(m, transformer.NewWorkspace(), ex, []*transformer.Adapter{a})
	if err != nil {
		t.Fatal(err)
	}
	var want, nll, n float64
	for i := range sums {
		want -= sums[i] / float64(counts[i]) / 7
		nll, n = nll-sums[i], n+float64(counts[i])
	}
	tr := newTrainer(t, m, nil, a, train.Options{Loss: "sft", LR: 1e-3})
	got, err := tr.StepSFT(rows)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(got.Loss-want) > 1e-12*want || math.Abs(got.Perplexity-math.Exp(nll/n)) > 1e-9*got.Perplexity {
		t.Errorf("loss %v, perplexity %v; want %v, %v", got.Loss, got.Perplexity, want, math.Exp(nll/n))
	}
	if got.Tokens != tokens || got.Step != 1 || len(got.Rows) != 7 || got.Rows[3] != "row-3" {
		t.Errorf("metrics %+v", got)
	}
	last := got
	for range 20 {
		if last, err = tr.StepSFT(rows); err != nil {
			t.Fatal(err)
		}
	}
	if last.Loss > 0.95*got.Loss {
		t.Errorf("after 20 steps the loss is %v, it began at %v", last.Loss, got.Loss)
	}
}

// Scores do not depend on what is scored beside them.
func TestSumLogProbsRowLaw(t *testing.T) { eachMode(t, sumLogProbsRowLaw) }

func sumLogProbsRowLaw(t *testing.T, c tensor.Compute) {
	m := newTiny(t)
	m.SetCompute(c)
	rows := makeRows(40)
	var ex []train.Example
	for _, r := range rows {
		ex = append(ex, r.Example)
	}
	for _, r := range ex[:12] { // the same rows after one long beginning, which a pass computes once
		var e train.Example
		for i := range 3 * len(ex[0].Tokens) {
			e.Tokens = append(e.Tokens, int32(i%7))
		}
		e.Mask = append(make([]bool, len(e.Tokens)), r.Mask...)
		e.Tokens = append(e.Tokens, r.Tokens...)
		ex = append(ex, e)
	}
	ws := transformer.NewWorkspace()
	all, _, err := train.SumLogProbs(m, ws, ex, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range ex {
		one, counts, err := train.SumLogProbs(m, ws, ex[i:i+1], nil)
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, on := range ex[i].Mask {
			if on {
				want++
			}
		}
		if one[0] != all[i] || counts[0] != want {
			t.Errorf("row %d: %v alone, %v among others; %d tokens, want %d", i, one[0], all[i], counts[0], want)
		}
	}
}
