package tensor_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/tensor"
)

func fill(t *tensor.Tensor, f func(i int) float32) *tensor.Tensor {
	for i := range t.Data() {
		t.Data()[i] = f(i)
	}
	return t
}

func weight(rows ...[]float32) *tensor.Weight {
	w := tensor.NewWeight(len(rows), len(rows[0]))
	for i, r := range rows {
		w.SetRow(i, r)
	}
	return w
}

// The hand-computed products say which way each operand is read.
func TestProducts(t *testing.T) {
	a := tensor.FromSlice(2, 3, []float32{1, 2, 3, 4, 5, 6})
	b := tensor.FromSlice(2, 3, []float32{1, 0, 2, 0, 1, 1})
	w := weight(b.Row(0), b.Row(1))
	for _, c := range []struct {
		name       string
		rows, cols int
		run        func(dst *tensor.Tensor)
		want       []float32
	}{
		{"Linear", 2, 2, func(d *tensor.Tensor) { tensor.Linear(d, a, w, false) }, []float32{7, 5, 16, 11}},
		{"MatMulNT", 2, 2, func(d *tensor.Tensor) { tensor.MatMulNT(d, a, b, false) }, []float32{7, 5, 16, 11}},
		{"MatMulNN", 2, 2, func(d *tensor.Tensor) { tensor.MatMulNN(d, a, b.Reshape(3, 2), false) }, []float32{8, 3, 20, 6}},
		{"MatMulTN", 3, 3, func(d *tensor.Tensor) { tensor.MatMulTN(d, a, b, false) }, []float32{1, 4, 6, 2, 5, 9, 3, 6, 12}},
		{"MatMulTN twice", 3, 3, func(d *tensor.Tensor) {
			tensor.MatMulTN(d, a, b, false)
			tensor.MatMulTN(d, a, b, true)
		}, []float32{2, 8, 12, 4, 10, 18, 6, 12, 24}},
		{"LinearBackward", 2, 3, func(d *tensor.Tensor) { tensor.LinearBackward(d, a.Reshape(3, 2).View(0, 2), w, false) }, []float32{1, 2, 4, 3, 4, 10}},
		{"Embed", 3, 3, func(d *tensor.Tensor) { tensor.Embed(d, w, []int32{1, 0, 1}) }, []float32{0, 1, 1, 1, 0, 2, 0, 1, 1}},
	} {
		dst := tensor.New(c.rows, c.cols)
		c.run(dst)
		if !slices.Equal(dst.Data(), c.want) {
			t.Errorf("%s = %v, want %v", c.name, dst.Data(), c.want)
		}
	}
}

func TestViewsShareStorage(t *testing.T) {
	x := tensor.New(4, 3)
	x.View(1, 3).Row(1)[2] = 5
	x.Reshape(3, 4).Row(0)[0] = 7
	if x.Row(2)[2] != 5 || x.Row(0)[0] != 7 {
		t.Fatalf("views do not share storage: %v", x.Data())
	}
	x.View(2, 3).Zero()
	if x.Row(2)[2] != 0 || x.Row(0)[0] != 7 {
		t.Fatalf("Zero of a view: %v", x.Data())
	}
}

// RoPE at position p of pair i turns by p*base^(-2i/headDim); the halves of a
// head are its pairs.
func TestRoPE(t *testing.T) {
	const headDim, base = 8, 100.0
	r := tensor.NewRoPE(headDim, base, 2)
	x := tensor.New(1, 2*headDim)
	for h := range 2 {
		for i := range headDim / 2 {
			x.Row(0)[h*headDim+i] = 1 // first half 1, second half 0
		}
	}
	r.Apply(x, 2, []int32{37}) // beyond the tables made at first
	for c, v := range x.Row(0) {
		angle := 37 * math.Pow(base, -2*float64(c%4)/headDim)
		want := math.Cos(angle)
		if c%headDim >= headDim/2 {
			want = math.Sin(angle)
		}
		if math.Abs(float64(v)-want) > 1e-6 {
			t.Fatalf("column %d = %v, want %v", c, v, want)
		}
	}
	r.ApplyBackward(x, 2, []int32{37})
	if math.Abs(float64(x.Row(0)[1])-1) > 1e-6 || math.Abs(float64(x.Row(0)[5])) > 1e-6 {
		t.Fatalf("ApplyBackward does not turn back: %v", x.Data())
	}
}

// Divisors slow the pairs down: position 6 turns pair 1, divided by 3, as position 2 does
// without, and leaves pair 0, divided by 1, as it was.
func TestScaledRoPE(t *testing.T) {
	turn := func(r *tensor.RoPE, pos int32) []float32 {
		x := tensor.FromSlice(1, 4, []float32{1, 1, 0, 0})
		r.Apply(x, 1, []int32{pos})
		return x.Data()
	}
	scaled, plain := tensor.NewScaledRoPE(4, 100, []float64{1, 3}, 10), tensor.NewRoPE(4, 100, 10)
	got, fast, slow := turn(scaled, 6), turn(plain, 6), turn(plain, 2)
	for i, want := range []float32{fast[0], slow[1], fast[2], slow[3]} {
		if math.Abs(float64(got[i]-want)) > 1e-7 {
			t.Errorf("value %d is %v, want %v", i, got[i], want)
		}
	}
}

func TestSoftmaxAndHead(t *testing.T) {
	p := make([]float32, 2)
	tensor.Softmax(p, []float32{0, float32(math.Log(3))}, 1)
	if math.Abs(float64(p[0])-0.25) > 1e-6 {
		t.Fatalf("Softmax = %v, want 1/4 and 3/4", p)
	}
	tensor.Softmax(p, []float32{0, 1000}, 0.5)
	if p[0] != 0 || p[1] != 1 {
		t.Fatalf("Softmax of far logits = %v", p)
	}
	// Uniform logits over 4 entries: log-probability -ln 4, gradient W_t - mean W.
	w := weight([]float32{1, 0}, []float32{1, 0}, []float32{1, 0}, []float32{1, 0})
	x := tensor.FromSlice(1, 2, []float32{0.5, 3})
	lp, lse := make([]float32, 1), make([]float32, 1)
	tensor.HeadLogProb(lp, lse, x, w, []int32{2})
	if math.Abs(float64(lp[0])+math.Log(4)) > 1e-6 {
		t.Fatalf("HeadLogProb = %v, want -ln 4", lp)
	}
	dx := fill(tensor.New(1, 2), func(int) float32 { return 9 })
	tensor.HeadLogProbGrad(lp, dx, x, w, []int32{2})
	for _, v := range dx.Data() {
		if math.Abs(float64(v)) > 1e-6 {
			t.Fatalf("HeadLogProbGrad = %v, want 0", dx.Data())
		}
	}
}

// A sequence attends to itself: with equal keys the output is the mean of the
// values so far.
func TestAttentionMean(t *testing.T) {
	s := tensor.AttentionShape{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: 0.5}
	q := fill(tensor.New(3, 8), func(i int) float32 { return float32(i) })
	k := fill(tensor.New(3, 4), func(int) float32 { return 1 })
	v := fill(tensor.New(3, 4), func(i int) float32 { return float32(i / 4 * 6) }) // 0, 6, 12
	dst := tensor.New(3, 8)
	tensor.Attention(dst, q, k, v, []int32{0, 3}, s, nil)
	for i, want := range []float32{0, 3, 6} {
		for _, got := range dst.Row(i) {
			if math.Abs(float64(got-want)) > 1e-5 {
				t.Fatalf("position %d = %v, want %v", i, dst.Row(i), want)
			}
		}
	}
}

// Wrong shapes are errors of the program: they panic and say what was wrong.
func TestShapePanics(t *testing.T) {
	x, y, w := tensor.New(2, 3), tensor.New(3, 2), tensor.NewWeight(4, 5)
	s := tensor.AttentionShape{Heads: 1, KVHeads: 1, HeadDim: 3, Scale: 1}
	kv := tensor.NewKV(1, 2, s)
	for name, f := range map[string]func(){
		"New":         func() { tensor.New(-1, 2) },
		"FromSlice":   func() { tensor.FromSlice(2, 2, make([]float32, 3)) },
		"View":        func() { x.View(1, 3) },
		"Row":         func() { x.Row(2) },
		"Reshape":     func() { x.Reshape(2, 2) },
		"Linear":      func() { tensor.Linear(x, y, w, false) },
		"MatMulNT":    func() { tensor.MatMulNT(x, x, y, false) },
		"Add":         func() { tensor.Add(x, y) },
		"Embed":       func() { tensor.Embed(x, w, []int32{0}) },
		"Weight.Row":  func() { w.Row(4, make([]float32, 5)) },
		"RMSNorm":     func() { tensor.RMSNorm(x, x, make([]float32, 2), 0, nil) },
		"Apply":       func() { tensor.NewRoPE(4, 10, 1).Apply(x, 1, []int32{0, 0}) },
		"Attention":   func() { tensor.Attention(x, x, x, x, []int32{0, 1}, s, nil) },
		"AttentionKV": func() { tensor.AttentionKV(x, x, kv, 0, [][]int32{{0}, {0}}, []int32{1, 40}, 0) },
		"ScaledRoPE":  func() { tensor.NewScaledRoPE(4, 10, []float64{1}, 1) },
		"Window": func() {
			tensor.NewKV(1, 1, tensor.AttentionShape{Heads: 1, KVHeads: 1, HeadDim: 1, Scale: 1, Window: -1})
		},
		"KV.Write": func() { kv.Write(0, x, x, []int32{0, 5}, []int32{0, 0}) },
		"HeadLogProb": func() {
			tensor.HeadLogProb(make([]float32, 2), make([]float32, 2), x, tensor.NewWeight(4, 3), []int32{0, 4})
		},
		"Softmax": func() { tensor.Softmax(nil, nil, 0) },
		"AdamW":   func() { tensor.AdamW{}.Apply(nil, nil, nil, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if r, ok := recover().(string); !ok || !strings.Contains(r, "tensor.") {
					t.Fatalf("panic %v, want one that names the operation", r)
				}
			}()
			f()
		})
	}
}
