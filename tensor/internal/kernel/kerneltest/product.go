package kerneltest

import (
	"fmt"
	"math"
	"testing"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// newWeight stores w and returns it with the values it kept.
func newWeight(k kernel.Kernels, w kernel.Matrix) (kernel.Weight, kernel.Matrix) {
	p, kept := k.NewWeight(w.Rows, w.Cols), zeros(w.Rows, w.Cols)
	for i := range w.Rows {
		p.SetRow(i, w.Row(i))
	}
	for i := range w.Rows {
		p.Row(i, kept.Row(i))
	}
	return p, kept
}

// factors returns m as the products of k use it.
func factors(k kernel.Kernels, m kernel.Matrix) kernel.Matrix {
	if k.Compute() == kernel.Exact {
		return m
	}
	w := k.NewWeight(m.Rows, m.Cols)
	r := zeros(m.Rows, m.Cols)
	for i := range m.Rows {
		w.SetRow(i, m.Row(i))
		w.Row(i, r.Row(i))
	}
	return r
}

// flushError is what a chain over n indices may lose where subnormal numbers count
// as 0: less than 2^-126 a sum.
func flushError(k kernel.Kernels, n int) float64 {
	if k.Compute() == kernel.Exact {
		return 0
	}
	return float64(n+2) * 0x1p-126
}

// product is one of the five products as dst (+)= a . b^T, in terms of a
// [m,k] and b [n,k].
type product struct {
	name string
	run  func(k kernel.Kernels, dst, a, b kernel.Matrix, accumulate bool) (kept kernel.Matrix)
}

var allProducts = []product{
	{"Linear", func(k kernel.Kernels, dst, a, b kernel.Matrix, acc bool) kernel.Matrix {
		w, kept := newWeight(k, b)
		k.Linear(dst, a, w, acc)
		return kept
	}},
	{"Linear of float32s", func(k kernel.Kernels, dst, a, b kernel.Matrix, acc bool) kernel.Matrix {
		if k.Compute() != kernel.Exact { // has no such weights
			k.MatMulNT(dst, a, b, acc)
			return b
		}
		w, kept := k.NewFloat32(b.Rows, b.Cols), zeros(b.Rows, b.Cols)
		for i := range b.Rows {
			w.SetRow(i, b.Row(i))
		}
		for i := range b.Rows {
			w.Row(i, kept.Row(i))
		}
		k.Linear(dst, a, w, acc)
		return kept
	}},
	{"LinearBackward", func(k kernel.Kernels, dst, a, b kernel.Matrix, acc bool) kernel.Matrix {
		w, kept := newWeight(k, transpose(b))
		k.LinearBackward(dst, a, w, acc)
		return transpose(kept)
	}},
	{"NT", func(k kernel.Kernels, dst, a, b kernel.Matrix, acc bool) kernel.Matrix {
		k.MatMulNT(dst, a, b, acc)
		return b
	}},
	{"NN", func(k kernel.Kernels, dst, a, b kernel.Matrix, acc bool) kernel.Matrix {
		k.MatMulNN(dst, a, transpose(b), acc)
		return b
	}},
	{"TN", func(k kernel.Kernels, dst, a, b kernel.Matrix, acc bool) kernel.Matrix {
		k.MatMulTN(dst, transpose(a), transpose(b), acc)
		return b
	}},
}

func products(t *testing.T, k kernel.Kernels) {
	shapes := []struct{ m, n, k int }{
		{0, 5, 5}, {5, 0, 5}, {1, 1, 1}, {1, 33, 17}, {2, 31, 16}, {3, 64, 5}, {4, 96, 31}, {5, 130, 64}, {6, 7, 100},
		{7, 32, 33}, {8, 65, 15}, {11, 128, 48}, {12, 160, 32}, {13, 63, 1}, {1, 200, 800}, {25, 40, 1601}, {100, 70, 40},
	}
	for m := 1; m <= 24; m++ {
		shapes = append(shapes, struct{ m, n, k int }{m, 160 + m, 18 + m})
	}
	for _, p := range allProducts {
		rng := newRand(1)
		for _, s := range shapes {
			for _, acc := range []bool{false, true} {
				a, b, dst := random(rng, s.m, s.k), random(rng, s.n, s.k), random(rng, s.m, s.n)
				before := clone(dst)
				b = p.run(k, dst, a, b, acc)
				a, b = factors(k, a), factors(k, b)
				name := fmt.Sprintf("%s %dx%dx%d accumulate=%v", p.name, s.m, s.n, s.k, acc)
				for i := range dst.Data {
					var want, size float64
					if acc {
						want = float64(before.Data[i])
						size = math.Abs(want)
					}
					x, y := a.Row(i/s.n), b.Row(i%s.n)
					for c := range x {
						v := float64(x[c]) * float64(y[c])
						want += v
						size += math.Abs(v)
					}
					near(t, name, i, dst.Data[i], want, gamma(s.k+2)*size+flushError(k, s.k))
				}
			}
		}
	}
}

// productRowLaw: rows alone, in parts, a reduction in two accumulating parts,
// and columns in parts all give the bits of the whole.
func productRowLaw(t *testing.T, k kernel.Kernels) {
	rng := newRand(2)
	for _, s := range []struct{ m, n, k int }{{29, 100, 96}, {40, 33, 50}, {14, 260, 800}} {
		a, b := random(rng, s.m, s.k), random(rng, s.n, s.k)
		for _, p := range allProducts {
			name := fmt.Sprintf("%s %dx%dx%d", p.name, s.m, s.n, s.k)
			whole := zeros(s.m, s.n)
			p.run(k, whole, a, b, false)
			for _, step := range []int{1, 2, 3, 5, 7, 13} {
				parts := zeros(s.m, s.n)
				for r := 0; r < s.m; r += step {
					e := min(r+step, s.m)
					p.run(k, view(parts, r, e), view(a, r, e), b, false)
				}
				equal(t, fmt.Sprint(name, " rows by ", step), parts.Data, whole.Data)
			}
			cuts := []int{2, 16, 30, s.k - 7}
			if k.Compute() == kernel.BF16 {
				cuts[3]-- // pairs stay whole
			}
			for _, cut := range cuts {
				twice := zeros(s.m, s.n)
				p.run(k, twice, columns(a, 0, cut), columns(b, 0, cut), false)
				p.run(k, twice, columns(a, cut, s.k), columns(b, cut, s.k), true)
				equal(t, fmt.Sprint(name, " reduction cut at ", cut), twice.Data, whole.Data)
			}
			left := zeros(s.m, 31)
			p.run(k, left, a, view(b, 1, 32), false)
			equal(t, name+" columns 1 to 32", left.Data, columns(whole, 1, 32).Data)
		}
		// The products share one order, so on the same values they agree too.
		var first kernel.Matrix
		_, kept := newWeight(k, b)
		for _, p := range allProducts {
			dst := zeros(s.m, s.n)
			p.run(k, dst, a, kept, false)
			if first.Data == nil {
				first = dst
			}
			equal(t, p.name+" against "+allProducts[0].name, dst.Data, first.Data)
		}
	}
}

// productTerms: terms added by a product with a weight are those of products of their own.
func productTerms(t *testing.T, k kernel.Kernels) {
	rng := newRand(4)
	for _, s := range []struct{ m, out, in int }{{0, 3, 4}, {1, 40, 18}, {13, 96, 50}, {300, 200, 96}, {170, 1100, 70}} {
		w, _ := newWeight(k, random(rng, s.out, s.in))
		for _, ranks := range [][]int{{}, {1}, {32}, {6, 33}, {1024, 2}} {
			for _, back := range []bool{false, true} {
				from, to := s.in, s.out
				if back {
					from, to = to, from
				}
				x, start := random(rng, s.m, from), random(rng, s.m, to)
				one, each := clone(start), clone(start)
				var terms []kernel.Term
				for _, r := range ranks {
					b := random(rng, to, r)
					if back {
						b = transpose(b)
					}
					terms = append(terms, kernel.Term{A: random(rng, s.m, r), B: b})
				}
				if back {
					k.LinearBackward(one, x, w, true, terms...)
					k.LinearBackward(each, x, w, true)
				} else {
					k.Linear(one, x, w, true, terms...)
					k.Linear(each, x, w, true)
				}
				for _, m := range terms {
					if back {
						k.MatMulNN(each, m.A, m.B, true)
					} else {
						k.MatMulNT(each, m.A, m.B, true)
					}
				}
				equal(t, fmt.Sprintf("%dx%dx%d, back %v, ranks %v", s.m, to, from, back, ranks), one.Data, each.Data)
			}
		}
	}
}

func columns(m kernel.Matrix, c0, c1 int) kernel.Matrix {
	r := zeros(m.Rows, c1-c0)
	for i := range m.Rows {
		copy(r.Row(i), m.Row(i)[c0:c1])
	}
	return r
}

// weights: rounding is to the nearest bfloat16, ties to even, and exact
// values, infinities and NaNs survive.
func weights(t *testing.T, k kernel.Kernels) {
	rng := newRand(3)
	for _, s := range []struct{ out, in int }{{1, 1}, {3, 5}, {32, 64}, {33, 31}, {70, 18}} {
		m := random(rng, s.out, s.in)
		_, kept := newWeight(k, m)
		for i, v := range m.Data {
			f := float64(v)
			near(t, "weight", i, kept.Data[i], f, math.Abs(f)/256)
			if math.Float32bits(kept.Data[i])&0xffff != 0 {
				t.Fatalf("weight %v kept as %v, not a bfloat16", v, kept.Data[i])
			}
		}
		_, again := newWeight(k, kept)
		equal(t, "weight stored twice", again.Data, kept.Data)
	}
	bits := func(u uint32) float32 { return math.Float32frombits(u) }
	w, want := k.NewWeight(1, 6), []uint32{0x3f800000, 0x3f820000, 0x3f810000, 0x7f800000, 0xff800000, 0x80000000}
	w.SetRow(0, []float32{bits(0x3f808000), bits(0x3f818000), bits(0x3f808001), bits(0x7f7fffff), bits(0xff800000), bits(0x80000000)})
	got := make([]float32, 6)
	w.Row(0, got)
	for i := range want {
		if math.Float32bits(got[i]) != want[i] {
			t.Fatalf("bfloat16 case %d: %08x, want %08x", i, math.Float32bits(got[i]), want[i])
		}
	}
	w.SetRow(0, []float32{bits(0x7f800001), bits(0xffffffff), 0, 0, 0, 0})
	w.Row(0, got)
	if got[0] == got[0] || got[1] == got[1] {
		t.Fatal("a NaN was rounded away")
	}
}
