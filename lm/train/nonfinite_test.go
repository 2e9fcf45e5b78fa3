package train_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// A step whose loss and gradient are finite may still write numbers that are not. It is refused before it writes.
func TestNonFiniteWeightsStop(t *testing.T) {
	// This eps is 0 in float32, and at first the gradient of A is 0 because B is: 0 / 0.
	tr := newTrainer(t, newTiny(t), nil, transformer.NewAdapter(tiny, 4, 8, 9), train.Options{Loss: "sft", LR: 1e-3, Eps: 1e-60})
	before := save(t, tr)
	_, err := tr.StepSFT(makeRows(2))
	if !errors.Is(err, train.ErrNonFinite) || !strings.Contains(err.Error(), "step 1: the new weights of base_model.model.model.layers.0.") || !strings.Contains(err.Error(), "row-0, row-1") {
		t.Errorf("error %v", err)
	}
	sameFiles(t, "after the refused step", save(t, tr), before)
}

// A gradient whose square leaves float32 would leave an infinite moment behind, and a checkpoint that no restore takes.
func TestNonFiniteMomentStops(t *testing.T) {
	m := newTiny(t)
	// B is scaled by alpha: a huge alpha with tiny weights makes huge gradients of a finite loss.
	a := transformer.NewAdapter(tiny, 2, 1e25, 9) // B is zero: the forward pass does not see alpha
	tr := newTrainer(t, m, nil, a, train.Options{Loss: "sft", LR: 1e-3, ClipNorm: 0})
	before := save(t, tr)
	_, err := tr.StepSFT(makeRows(2))
	if !errors.Is(err, train.ErrNonFinite) || !strings.Contains(err.Error(), "second moment of ") || !strings.Contains(err.Error(), "row-0, row-1") {
		t.Errorf("error %v", err)
	}
	sameFiles(t, "after the refused step", save(t, tr), before)
	// Large numbers that are finite are no reason to stop.
	big := transformer.NewAdapter(tiny, 2, 1e-30, 9)
	for _, x := range big.Matrices() {
		for i := range x.T.Data() {
			x.T.Data()[i] = 1e30
		}
	}
	tr = newTrainer(t, m, nil, big, train.Options{Loss: "sft", LR: 1e-3})
	if _, err := tr.StepSFT(makeRows(2)); err != nil && strings.Contains(err.Error(), "new weights") {
		t.Errorf("large weights: %v", err)
	}
	// Weights at the edge of float32 are tried first, also right after a restore.
	edge := transformer.NewAdapter(tiny, 2, 2, 9)
	edge.Matrices()[0].T.Data()[0] = math.MaxFloat32 // of A: with B zero the forward pass does not see it
	for _, restored := range []bool{false, true} {
		tr = newTrainer(t, m, nil, edge, train.Options{Loss: "sft", LR: 0.5, WeightDecay: 1, Seed: 1})
		if restored {
			other := newTrainer(t, m, nil, transformer.NewAdapter(tiny, 2, 2, 9), train.Options{Loss: "sft", LR: 0.5, WeightDecay: 1, Seed: 1})
			if err := other.Restore(save(t, tr)); err != nil {
				t.Fatal(err)
			}
			tr = other
		}
		if _, err := tr.StepSFT(makeRows(2)); err != nil && !errors.Is(err, train.ErrNonFinite) {
			t.Errorf("at the edge: %v", err)
		}
		save(t, tr) // whatever came, what is there is whole
	}
}

// Scores that are not finite name their row: they would be stored and make every later step fail.
func TestNonFiniteScore(t *testing.T) {
	m := newTiny(t)
	broken := trainedAdapter(4, 8, 9)
	broken.Matrices()[1].T.Data()[0] = math.MaxFloat32
	var ex []train.Example
	for _, r := range makeRows(3) {
		ex = append(ex, r.Example)
	}
	_, err := train.TokenLogProbs(m, transformer.NewWorkspace(), ex, []*transformer.Adapter{broken})
	var score *train.ScoreError
	if !errors.As(err, &score) || !errors.Is(err, train.ErrNonFinite) || score.Row != 0 {
		t.Errorf("error %v", err)
	}
}

// A step asks whether to go on before every layer of every pass, and when it shall not it stops there, with nothing changed.
func TestInterrupt(t *testing.T) {
	m := newTiny(t)
	ws := transformer.NewWorkspace()
	o := train.Options{Loss: "dpo", LR: 1e-3, MicroTokens: 1, Workspace: ws}
	tr := newTrainer(t, m, nil, trainedAdapter(4, 8, 9), o)
	pairs := makePairs(t, m, nil, 3)
	asked := 0
	ws.Interrupt = func() error { asked++; return nil }
	if _, err := tr.StepDPO(pairs); err != nil {
		t.Fatal(err)
	}
	if passes := 2 * len(pairs); asked < passes*tiny.Layers { // forward and backward, a pair at a time
		t.Errorf("asked %d times in %d passes of %d layers", asked, passes, tiny.Layers)
	}
	before, stop := save(t, tr), errors.New("stop")
	for at := range asked {
		n := 0
		ws.Interrupt = func() error {
			if n++; n > at {
				return stop
			}
			return nil
		}
		if _, err := tr.StepDPO(pairs); !errors.Is(err, stop) {
			t.Fatalf("interrupted at %d: %v", at, err)
		}
		if n != at+1 {
			t.Fatalf("went on after the %d. question, which said to stop: %d were asked", at+1, n)
		}
	}
	sameFiles(t, "after interrupted steps", save(t, tr), before)
	ws.Interrupt = nil
	whole := newTrainer(t, m, nil, trainedAdapter(4, 8, 9), train.Options{Loss: "dpo", LR: 1e-3, MicroTokens: 1})
	for range 2 {
		if _, err := whole.StepDPO(pairs); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tr.StepDPO(pairs); err != nil {
		t.Fatal(err)
	}
	sameFiles(t, "the step after interrupted ones", save(t, tr), save(t, whole))
}
