package transformer_test

import (
	"math"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// sharedRows are three rows where the second shares 40 tokens with the first and the
// third 50 with the second, then one of its own and one that shares all but a token.
func sharedRows(vocab int) ([][]int32, []int32) {
	part := randomRows(vocab, 12, 40, 30, 25, 20, 33, 1)
	join := func(parts ...[]int32) (row []int32) {
		for _, p := range parts {
			row = append(row, p...)
		}
		return row
	}
	return [][]int32{
		join(part[0], part[1]), join(part[0], part[2]), join(part[0], part[2][:10], part[3]), part[4], join(part[4][:32], part[5]),
	}, []int32{0, 40, 50, 0, 32}
}

// Computing shared beginnings once changes no bit of a log-prob, of all positions or some.
func TestSharedBeginningsForward(t *testing.T) {
	eachForward(t, func(t *testing.T, m *transformer.Model) {
		stack := []*transformer.Adapter{randomAdapter(m.Config, 3, 6, 1)}
		rows, shared := sharedRows(m.Vocab)
		p, positions, _ := pack(rows...)
		var some []int32 // the last tokens of the beginnings, read twice, among them
		for i, x := range positions {
			if i%3 == 0 || x == 39 || x == p.Offsets[1]+39 {
				some = append(some, x)
			}
		}
		ws := transformer.NewWorkspace()
		for _, pos := range [][]int32{positions, some} {
			p.Shared = nil
			want, err := m.LogProbs(ws, p, pos, stack)
			if err != nil {
				t.Fatal(err)
			}
			p.Shared = shared
			got, err := m.LogProbs(ws, p, pos, stack)
			if err != nil {
				t.Fatal(err)
			}
			sameBits(t, "shared", got, want)
		}
	})
}

// The gradient differs by rounding only: the sums have the same terms in another order,
// at most some 300 tokens times 2^-24 of the greatest, and 10 times that through the layers.
// In mode bf16 that can tip the rounding of a factor, by 2^-8 of it.
func TestSharedBeginningsGradient(t *testing.T) {
	eachTiny(t, func(t *testing.T, m *transformer.Model) {
		stack := []*transformer.Adapter{randomAdapter(m.Config, 3, 6, 1), randomAdapter(m.Config, 5, 5, 2)}
		rows, shared := sharedRows(m.Vocab)
		p, positions, _ := pack(rows...)
		grad := func(shared []int32) []transformer.NamedTensor {
			g := transformer.NewGradients(stack[1])
			p.Shared = shared
			err := m.Grad(transformer.NewWorkspace(), p, positions, stack, g, func(lp []float32) []float32 {
				d := make([]float32, len(lp))
				for i := range d {
					d[i] = float32(i%5) - 1.75
				}
				return d
			})
			if err != nil {
				t.Fatal(err)
			}
			return g.Matrices()
		}
		want, got := grad(nil), grad(shared)
		bound := 3000 * math.Exp2(-24)
		if m.Compute() == tensor.BF16 {
			bound += 10 * math.Exp2(-8)
		}
		for i := range want {
			var worst, size float64
			for j, v := range want[i].T.Data() {
				worst = max(worst, math.Abs(float64(v)-float64(got[i].T.Data()[j])))
				size = max(size, math.Abs(float64(v)))
			}
			if worst > size*bound {
				t.Errorf("%s differs by %v of %v", want[i].Name, worst, size)
			}
		}
	})
}

func TestSharedErrors(t *testing.T) {
	m := newTiny(t, tinyConfigs["llama"])
	rows := transformer.Rows{Tokens: []int32{1, 2, 3, 1, 2, 4}, Offsets: []int32{0, 3, 6}}
	for _, c := range []struct {
		shared []int32
		want   string
	}{
		{[]int32{0}, "1 shared beginnings for 2 rows"},
		{[]int32{1, 0}, "row 0 of 3 tokens cannot share"},
		{[]int32{0, 3}, "row 1 of 3 tokens cannot share"},
		{[]int32{0, -1}, "row 1 of 3 tokens cannot share"},
		{[]int32{0, 9}, "row 1 of 3 tokens cannot share"},
	} {
		rows.Shared = c.shared
		if _, err := m.LogProbs(transformer.NewWorkspace(), rows, []int32{0, 4}, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: error %v, want one with %q", c.shared, err, c.want)
		}
	}
	rows.Shared, rows.Tokens[4] = []int32{0, 2}, 7
	if _, err := m.LogProbs(transformer.NewWorkspace(), rows, []int32{0, 4}, nil); err == nil || !strings.Contains(err.Error(), "token 1 differs") {
		t.Errorf("false beginning: error %v", err)
	}
}
