package transformer_test

import (
	"fmt"
	"testing"

	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// A row's log-probs do not depend on its neighbours, their order, the workspace's
// history or the number of threads.
func TestRowLawForward(t *testing.T) {
	eachForward(t, func(t *testing.T, m *transformer.Model) {
		stack := []*transformer.Adapter{randomAdapter(m.Config, 3, 6, 1), randomAdapter(m.Config, 5, 5, 2)}
		rows := randomRows(m.Vocab, 1, 2, 33, 7, 70, 128, 1+1, 19)
		var alone [][]float32
		for _, r := range rows {
			alone = append(alone, logProbs(t, m, stack, r))
		}
		ws := transformer.NewWorkspace()
		defer tensor.SetThreads(0)
		for _, order := range [][]int{{0, 1, 2, 3, 4, 5, 6}, {6, 5, 4, 3, 2, 1, 0}, {3, 0}, {4}, {2, 4, 1}} {
			for _, threads := range []int{1, 2, 5} {
				tensor.SetThreads(threads)
				var batch [][]int32
				for _, i := range order {
					batch = append(batch, rows[i])
				}
				p, positions, starts := pack(batch...)
				got, err := m.LogProbs(ws, p, positions, stack)
				if err != nil {
					t.Fatal(err)
				}
				for k, i := range order {
					sameBits(t, fmt.Sprintf("order %v, %d threads, row %d", order, threads, i), got[starts[k]:starts[k+1]], alone[i])
				}
			}
		}
	})
}

// Scoring fewer positions of a row does not change the others.
func TestRowLawPositions(t *testing.T) {
	eachForward(t, func(t *testing.T, m *transformer.Model) {
		rows := randomRows(m.Vocab, 2, 40)
		all := logProbs(t, m, nil, rows...)
		p, positions, _ := pack(rows...)
		some, err := m.LogProbs(transformer.NewWorkspace(), p, positions[17:18], nil)
		if err != nil {
			t.Fatal(err)
		}
		sameBits(t, "one position", some, all[17:18])
	})
}

// gradients runs Grad over the batches in turn with derivative i%5-2+0.25 at the i-th
// scored position of all.
func gradients(t testing.TB, m *transformer.Model, ws *transformer.Workspace, stack []*transformer.Adapter, batches ...[][]int32) *transformer.Gradients {
	t.Helper()
	g := transformer.NewGradients(stack[len(stack)-1])
	at := 0
	for _, b := range batches {
		p, positions, _ := pack(b...)
		err := m.Grad(ws, p, positions, stack, g, func(lp []float32) []float32 {
			d := make([]float32, len(lp))
			for i := range d {
				d[i] = float32(at%5) - 1.75
				at++
			}
			return d
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// The gradients' bits do not depend on how the rows are cut into calls, or on threads.
func TestRowLawGradients(t *testing.T) {
	eachTiny(t, func(t *testing.T, m *transformer.Model) {
		stack := []*transformer.Adapter{randomAdapter(m.Config, 3, 6, 1), randomAdapter(m.Config, 5, 5, 2)}
		r := randomRows(m.Vocab, 3, 9, 33, 2, 64, 17)
		ws := transformer.NewWorkspace()
		want := gradients(t, m, ws, stack, r).Matrices()
		defer tensor.SetThreads(0)
		for _, threads := range []int{1, 3} {
			tensor.SetThreads(threads)
			for _, cut := range [][][][]int32{{r}, {r[:1], r[1:]}, {r[:2], r[2:4], r[4:]}, {r[:1], r[1:2], r[2:3], r[3:4], r[4:]}} {
				got := gradients(t, m, ws, stack, cut...).Matrices()
				for i := range want {
					sameBits(t, fmt.Sprintf("%d calls, %d threads, %s", len(cut), threads, want[i].Name), got[i].T.Data(), want[i].T.Data())
				}
			}
		}
	})
}

// A fresh adapter has B = 0 and changes no bit.
func TestFreshAdapterChangesNothing(t *testing.T) {
	eachForward(t, func(t *testing.T, m *transformer.Model) {
		rows := randomRows(m.Vocab, 4, 50, 21)
		frozen := randomAdapter(m.Config, 3, 6, 1)
		without := logProbs(t, m, []*transformer.Adapter{frozen}, rows...)
		with := logProbs(t, m, []*transformer.Adapter{frozen, transformer.NewAdapter(m.Config, 4, 8, 5)}, rows...)
		sameBits(t, "fresh adapter", with, without)
	})
}
