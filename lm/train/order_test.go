package train_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/safetensors"
	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

func TestOrder(t *testing.T) {
	const n, epochs = 50, 4
	order := train.Order(n, epochs, 7)
	if !slices.Equal(order, train.Order(n, epochs, 7)) {
		t.Fatal("not a pure function")
	}
	if slices.Equal(order, train.Order(n, epochs, 8)) {
		t.Error("the seed changes nothing")
	}
	if !slices.Equal(order[:2*n], train.Order(n, 2, 7)) {
		t.Error("the number of epochs changes the first ones")
	}
	for e := range epochs {
		part := slices.Sorted(slices.Values(order[e*n : (e+1)*n]))
		for i, v := range part {
			if v != i {
				t.Fatalf("epoch %d is not a permutation", e)
			}
		}
		if e > 0 && slices.Equal(order[:n], order[e*n:(e+1)*n]) {
			t.Errorf("epoch %d repeats the first", e)
		}
	}
	// Each value is equally likely at each place: over 2,000 shuffles of 5 rows a count
	// has mean 400 and standard deviation 18.
	var counts [5][5]int
	for i, v := range train.Order(5, 2000, 1) {
		counts[i%5][v]++
	}
	for _, row := range counts {
		for _, c := range row {
			if c < 310 || c > 490 {
				t.Errorf("counts %v are far from 400", counts)
			}
		}
	}
	if len(train.Order(0, 3, 1)) != 0 {
		t.Error("no rows, but an order")
	}
}

func TestBatch(t *testing.T) {
	for _, c := range []struct{ n, batch, epochs, steps int }{
		{65, 4, 2, 34}, {8, 8, 1, 1}, {9, 8, 3, 6}, {1, 4, 1, 1}, {0, 4, 2, 0},
	} {
		o := train.Options{BatchSize: c.batch, Epochs: c.epochs, Seed: 3}
		if got := o.Steps(c.n); got != c.steps {
			t.Errorf("%d rows, batch %d, %d epochs: %d steps, want %d", c.n, c.batch, c.epochs, got, c.steps)
		}
		var all []int
		for k := range o.Steps(c.n) {
			all = append(all, o.Batch(c.n, k)...)
		}
		if !slices.Equal(all, train.Order(c.n, c.epochs, 3)) {
			t.Errorf("%d rows, batch %d: the batches are not the order", c.n, c.batch)
		}
		if o.Batch(c.n, c.steps) != nil || o.Batch(c.n, -1) != nil {
			t.Errorf("%d rows: a batch outside the run", c.n)
		}
	}
}

// The schedule by hand: with 2 warm-up steps the rate is 1/3, 2/3 and then 1 of
// the peak; the cosine over the next 4 steps is 1, (1+cos(pi/4))/2, 1/2, ...
func TestSchedule(t *testing.T) {
	m := newTiny(t)
	rows := makeRows(1)
	quarter := (1 + math.Sqrt2/2) / 2
	for name, c := range map[string]struct {
		o    train.Options
		want []float64
	}{
		"constant": {train.Options{}, []float64{1, 1, 1}},
		"warm-up":  {train.Options{WarmupSteps: 2}, []float64{1. / 3, 2. / 3, 1, 1}},
		"cosine": {
			train.Options{Schedule: "cosine", WarmupSteps: 2, TotalSteps: 6, MinLRRatio: 0.1},
			[]float64{1. / 3, 2. / 3, 1, 0.1 + 0.9*quarter, 0.55, 0.1 + 0.9*(1-quarter), 0.1, 0.1},
		},
	} {
		c.o.Loss, c.o.LR = "sft", 1e-3
		tr := newTrainer(t, m, nil, transformer.NewAdapter(tiny, 2, 2, 1), c.o)
		for k, want := range c.want {
			got, err := tr.StepSFT(rows)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(got.LR-want*1e-3) > 1e-15 {
				t.Errorf("%s: rate of step %d is %v, want %v", name, k+1, got.LR, want*1e-3)
			}
		}
	}
}

// Clipping scales the gradients to the given norm: AdamW's first moment after one
// step is (1-beta1) times the clipped gradient, so two trainers that differ only in a
// clip below the norm have first moments in the ratio of clip to norm.
func TestClip(t *testing.T) {
	m := newTiny(t)
	rows := makeRows(3)
	run := func(clip float64) (train.Metrics, map[string][]byte) {
		tr := newTrainer(t, m, nil, trainedAdapter(2, 2, 1), train.Options{Loss: "sft", LR: 1e-3, ClipNorm: clip})
		got, err := tr.StepSFT(rows)
		if err != nil {
			t.Fatal(err)
		}
		return got, save(t, tr)
	}
	free, unclipped := run(0)
	loose, same := run(1e6)
	tight, clipped := run(free.GradNorm / 10)
	sameFiles(t, "a clip above the norm", map[string][]byte{"m": same["moments.safetensors"]}, map[string][]byte{"m": unclipped["moments.safetensors"]})
	if loose.GradNorm != free.GradNorm || tight.GradNorm != free.GradNorm {
		t.Errorf("the reported norm depends on clipping: %v, %v, %v", free.GradNorm, loose.GradNorm, tight.GradNorm)
	}
	var squares, before float64
	for name, v := range moments(t, unclipped) {
		if strings.HasSuffix(name, ".exp_avg") {
			for i := range v {
				before += float64(v[i]) * float64(v[i])
			}
		}
	}
	for name, v := range moments(t, clipped) {
		if strings.HasSuffix(name, ".exp_avg") {
			for i := range v {
				squares += float64(v[i]) * float64(v[i])
			}
		}
	}
	if got, want := math.Sqrt(squares)/0.1, free.GradNorm/10; math.Abs(got-want) > 1e-5*want {
		t.Errorf("clipped gradient has norm %v, want %v", got, want)
	}
	if got := math.Sqrt(before) / 0.1; math.Abs(got-free.GradNorm) > 1e-5*free.GradNorm {
		t.Errorf("gradient has norm %v, reported %v", got, free.GradNorm)
	}
}

func moments(t *testing.T, files map[string][]byte) map[string][]float32 {
	t.Helper()
	f, err := safetensors.Parse(files["moments.safetensors"])
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]float32{}
	for name := range f.Tensors {
		if out[name], err = f.Floats(name); err != nil {
			t.Fatal(err)
		}
	}
	return out
}
