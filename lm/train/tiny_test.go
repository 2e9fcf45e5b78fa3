package train_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

var tiny = transformer.Config{
	Architecture: "llama", Layers: 2, Width: 24, Heads: 6, KVHeads: 2, HeadDim: 4, FFN: 37, Vocab: 67,
	Context: 160, RopeBase: 10000, NormEps: 1e-5, Tied: true,
}

func newTiny(t testing.TB) *transformer.Model {
	t.Helper()
	m, err := transformer.NewRandom(tiny, 1)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// eachMode runs a test in both compute modes.
func eachMode(t *testing.T, f func(t *testing.T, c tensor.Compute)) {
	for _, c := range []tensor.Compute{tensor.Exact, tensor.BF16} {
		t.Run(c.String(), func(t *testing.T) { f(t, c) })
	}
}

// trainedAdapter is an adapter whose B is not zero.
func trainedAdapter(rank int, alpha float64, seed uint64) *transformer.Adapter {
	a := transformer.NewAdapter(tiny, rank, alpha, seed)
	r := rand.New(rand.NewPCG(seed, 7))
	for i, m := range a.Matrices() {
		if i%2 == 1 {
			for j := range m.T.Data() {
				m.T.Data()[j] = float32(r.NormFloat64() * 0.2)
			}
		}
	}
	return a
}

// example is a random row whose last answer tokens are to be learned.
func example(r *rand.Rand, prompt, answer int) train.Example {
	e := train.Example{Mask: make([]bool, prompt+answer)}
	for i := range prompt + answer {
		e.Tokens = append(e.Tokens, int32(r.IntN(tiny.Vocab)))
		e.Mask[i] = i >= prompt
	}
	return e
}

// makePairs builds random pairs with reference log-probs under a stack.
func makePairs(t testing.TB, m *transformer.Model, reference []*transformer.Adapter, n int) []train.Pair {
	t.Helper()
	r := rand.New(rand.NewPCG(5, 5))
	pairs := make([]train.Pair, n)
	var ex []train.Example
	for i := range pairs {
		prompt := 2 + r.IntN(9)
		pairs[i] = train.Pair{ID: fmt.Sprintf("pair-%d", i), Chosen: example(r, prompt, 1+r.IntN(30)), Rejected: example(r, prompt, 1+r.IntN(30))}
		copy(pairs[i].Rejected.Tokens[:prompt], pairs[i].Chosen.Tokens)
		ex = append(ex, pairs[i].Chosen, pairs[i].Rejected)
	}
	sums, _, err := train.SumLogProbs(m, transformer.NewWorkspace(), ex, reference)
	if err != nil {
		t.Fatal(err)
	}
	for i := range pairs {
		pairs[i].RefChosen, pairs[i].RefRejected = sums[2*i], sums[2*i+1]
	}
	return pairs
}

func makeRows(n int) []train.Row {
	r := rand.New(rand.NewPCG(6, 6))
	rows := make([]train.Row, n)
	for i := range rows {
		rows[i] = train.Row{ID: fmt.Sprintf("row-%d", i), Example: example(r, 1+r.IntN(9), 1+r.IntN(30))}
	}
	return rows
}

func newTrainer(t testing.TB, m *transformer.Model, frozen []*transformer.Adapter, a *transformer.Adapter, o train.Options) *train.Trainer {
	t.Helper()
	tr, err := train.New(m, frozen, a, o)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func save(t testing.TB, tr *train.Trainer) map[string][]byte {
	t.Helper()
	files, err := tr.Save()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// sameFiles fails at the first file that differs.
func sameFiles(t testing.TB, what string, got, want map[string][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d files, want %d", what, len(got), len(want))
	}
	for name := range want {
		if !bytes.Equal(got[name], want[name]) {
			t.Errorf("%s: %s differs", what, name)
		}
	}
}
