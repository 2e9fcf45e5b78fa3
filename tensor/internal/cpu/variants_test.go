package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// both returns the two assembly variants, or skips.
func both(t *testing.T) (a, b *Kernels) {
	t.Helper()
	v := Variants()
	if len(v) < 3 {
		t.Skip("needs AVX-512 and AVX2; TestConformance fails where CHARACTER_REQUIRE asks for them")
	}
	return v[0], v[1]
}

func normal(rng *rand.Rand, n int) []float32 {
	x := Floats(n)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return x
}

func sameBits(t *testing.T, what string, a, b []float32) {
	t.Helper()
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			t.Fatalf("%s: element %d is %v and %v", what, i, a[i], b[i])
		}
	}
}

// TestAssemblyVariantsAgree: AVX2 and AVX-512 give the same bits.
func TestAssemblyVariantsAgree(t *testing.T) {
	x, y := both(t)
	rng := rand.New(rand.NewPCG(1, 1))
	src := normal(rng, 1<<14)
	for i := range src {
		src[i] *= 30
	}
	copy(src, []float32{0, float32(math.Inf(-1)), 88, 89, 500, -87.33, -87.34, -88, -104, -1e30, 1e-40})
	for _, k := range []*Kernels{y} {
		a, b := make([]float32, len(src)), make([]float32, len(src))
		sa, sb := x.micro.expOf(a, src, 0.7, -3), k.micro.expOf(b, src, 0.7, -3)
		sameBits(t, "exp", append(a, sa), append(b, sb))
		if x.micro.maxOf(src) != k.micro.maxOf(src) || x.micro.dotOf(src[100:], src[50:]) != k.micro.dotOf(src[100:], src[50:]) {
			t.Fatal("max or dot differ")
		}
	}
	for _, m := range []int{1, 2, 5, 13, 40} {
		const in, out = 100, 290
		l, r := kernel.Matrix{Rows: m, Cols: in, Data: normal(rng, m*in)}, kernel.Matrix{Rows: out, Cols: in, Data: normal(rng, in*out)}
		w := x.NewWeight(out, in)
		for i := range out {
			w.SetRow(i, r.Row(i))
		}
		var d [2][2]kernel.Matrix
		for i, k := range []*Kernels{x, y} {
			for j := range d[i] {
				d[i][j] = kernel.Matrix{Rows: m, Cols: out, Data: make([]float32, m*out)}
			}
			k.Linear(d[i][0], l, w, false)
			k.MatMulNT(d[i][1], l, r, false)
		}
		sameBits(t, fmt.Sprint("Linear of ", m), d[0][0].Data, d[1][0].Data)
		sameBits(t, fmt.Sprint("MatMulNT of ", m), d[0][1].Data, d[1][1].Data)
	}
	for _, f := range []kernel.Format{kernel.Q4, kernel.Q8} {
		for _, m := range []int{1, 2, 3, 4, 7, 13, 40} {
			const in, out = 416, 290
			l, w := kernel.Matrix{Rows: m, Cols: in, Data: normal(rng, m*in)}, x.NewQuantized(out, in, f)
			raw := w.(*weight).data
			for i := range raw { // any bits are integers, scales and minimums, if these are finite
				raw[i] = uint16(rng.Uint32())
			}
			limitScales(w.(*weight))
			d, e := kernel.Matrix{Rows: m, Cols: out, Data: make([]float32, m*out)}, kernel.Matrix{Rows: m, Cols: out, Data: make([]float32, m*out)}
			x.Linear(d, l, w, false)
			y.Linear(e, l, w, false)
			sameBits(t, fmt.Sprintf("Linear of %d, format %d", m, f), d.Data, e.Data)
		}
	}
	s := kernel.AttentionShape{Heads: 6, KVHeads: 2, HeadDim: 40, Scale: 0.15}
	const n = 90
	q := kernel.Matrix{Rows: n, Cols: 240, Data: normal(rng, n*240)}
	kk, v := kernel.Matrix{Rows: n, Cols: 80, Data: normal(rng, n*80)}, kernel.Matrix{Rows: n, Cols: 80, Data: normal(rng, n*80)}
	var d [2]kernel.Matrix
	for i, k := range []*Kernels{x, y} {
		d[i] = kernel.Matrix{Rows: n, Cols: 240, Data: make([]float32, n*240)}
		k.Attention(d[i], q, kk, v, []int32{0, n}, s, kernel.Matrix{})
	}
	sameBits(t, "Attention", d[0].Data, d[1].Data)
	var g, e [2][]float32
	for i, k := range []*Kernels{x, y} {
		g[i], e[i] = make([]float32, n*80), make([]float32, n*80)
		k.SwiGLU(g[i], kk.Data, v.Data)
		k.SwiGLUBackward(g[i], e[i], q.Data[:n*80], kk.Data, v.Data)
		gelu, geluUp := make([]float32, 2*n*80), make([]float32, n*80)
		k.GeGLU(gelu[n*80:], kk.Data, v.Data)
		k.GeGLUBackward(gelu, geluUp, q.Data[:n*80], kk.Data, v.Data)
		g[i], e[i] = append(g[i], gelu...), append(e[i], geluUp...)
		p, m1, m2 := slices.Clone(q.Data), slices.Clone(q.Data), make([]float32, len(q.Data))
		for j := range m2 {
			m2[j] = q.Data[j] * q.Data[j]
		}
		k.AdamW(kernel.AdamW{LR: 0.1, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, WeightDecay: 0.1, Step: 3}, p, d[0].Data, m1, m2)
		g[i] = append(append(append(g[i], p...), m1...), m2...)
	}
	sameBits(t, "SwiGLU, GeGLU and AdamW", g[0], g[1])
	sameBits(t, "SwiGLU and GeGLU dup", e[0], e[1])
}

// limitScales makes all scales and minimums of a weight of blocks finite.
func limitScales(w *weight) {
	l := blocksOf(w.format)
	for at := 0; at < len(w.data); at += l.words {
		for i := l.scale; i < l.words; i++ {
			w.data[at+i] &^= 0x4000
		}
	}
}

// TestExp checks the exponential over its whole range and at its edges.
func TestExp(t *testing.T) {
	for _, k := range Variants() {
		var src []float32
		for x := float32(-87.3); x < 88.3; x += 0.00371 {
			src = append(src, x)
		}
		dst := make([]float32, len(src))
		k.micro.expOf(dst, src, 1, 0)
		for i, x := range src {
			want := math.Exp(float64(x))
			if e := math.Abs(float64(dst[i])/want - 1); !(e < 2.4e-7) {
				t.Fatalf("%s: exp(%v) = %v, want %v (relative error %.2g)", k.Name(), x, dst[i], want, e)
			}
		}
		src = []float32{negInf, -1e30, -200, float32(math.NaN()), 0, 300, float32(math.Inf(1))}
		k.micro.expOf(dst, src, 1, 0)
		if dst[0] != 0 || dst[1] != 0 || dst[2] != 0 || dst[3] == dst[3] || dst[4] != 1 || !(dst[5] > 2e38) || !(dst[6] > 2e38) {
			t.Fatalf("%s: exp of %v = %v", k.Name(), src, dst[:len(src)])
		}
	}
}

// TestParallel: every index runs exactly once, from many callers at a time,
// while the number of threads changes.
func TestParallel(t *testing.T) {
	defer SetThreads(0)
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			for r := range 300 {
				SetThreads(1 + (r+c)%5)
				n := (r*7 + c) % 40
				hits := make([]int32, n)
				parallel(n, func(i int) { hits[i]++ })
				for i, h := range hits {
					if h != 1 {
						t.Errorf("caller %d round %d: index %d ran %d times", c, r, i, h)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}
