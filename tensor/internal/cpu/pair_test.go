package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// pairModes returns every way to compute mode bf16 here; generic is the last.
func pairModes() (all []*Kernels) {
	for _, k := range Variants() {
		for _, p := range k.bf16 {
			all = append(all, k.with(p))
		}
	}
	return all
}

// wild returns float32s of all kinds: subnormal, huge, infinite, NaN, and any bits.
func wild(rng *rand.Rand, n int) []float32 {
	special := []uint32{0, 0x80000000, 1, 0x807fffff, 0x007fffff, 0x00800000, 0x00ffffff, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7f800001, 0xffffffff, 0x3f808000, 0x3f818000, 0x3f808001}
	x := Floats(n)
	for i := range x {
		if i < len(special) {
			x[i] = math.Float32frombits(special[i])
		} else {
			x[i] = math.Float32frombits(rng.Uint32())
		}
	}
	return x
}

// TestRounding: all variants round to the same words, and to what big arithmetic
// says: the nearest bfloat16, ties to even.
func TestRounding(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	modes := pairModes()
	for _, n := range []int{1, 2, 15, 31, 32, 33, 100, 5000} {
		src, odd := wild(rng, n), wild(rng, n)
		want := make([]float32, (n+1)/2)
		modes[len(modes)-1].pairs.row(want, src)
		for i, v := range src {
			got := math.Float32frombits(math.Float32bits(want[i/2]) >> (16 * (i % 2)) << 16)
			if v != v {
				if got == got {
					t.Fatalf("NaN %08x became %v", math.Float32bits(v), got)
				}
				continue
			}
			f := math.Abs(float64(v))
			if f < 0x1p-126 {
				if got != 0 || math.Signbit(float64(got)) != math.Signbit(float64(v)) {
					t.Fatalf("subnormal %v became %v", v, got)
				}
				continue
			}
			if math.IsInf(float64(got), 0) && f >= 0x1.ffp127 { // half a step beyond the greatest
				continue
			}
			_, e := math.Frexp(f)
			if unit := math.Ldexp(1, e-8); !(math.Abs(float64(got)-float64(v)) <= unit/2) {
				t.Fatalf("%v became %v, more than half of %v away", v, got, unit)
			} else if math.Abs(float64(got)-float64(v)) == unit/2 && math.Float32bits(got)>>16&1 != 0 {
				t.Fatalf("%v, a tie, became odd %v", v, got)
			}
		}
		both, _, buf := modes[len(modes)-1].pairs.columns(append(append([]float32(nil), src...), odd...), 2, n, n)
		for _, k := range modes {
			got := make([]float32, len(want))
			k.pairs.row(got, src)
			sameBits(t, fmt.Sprintf("%s: row of %d", k.Name(), n), got, want)
			d, _, b := k.pairs.columns(append(append([]float32(nil), src...), odd...), 2, n, n)
			sameBits(t, fmt.Sprintf("%s: columns of %d", k.Name(), n), d[:n], both[:n])
			b.free()
		}
		buf.free()
	}
}

// TestPairVariantsAgree: products of mode bf16 have the same bits on every variant,
// also where numbers are subnormal, overflow or cancel. NaNs may differ in payload.
func TestPairVariantsAgree(t *testing.T) {
	modes := pairModes()
	if len(modes) < 2 {
		t.Skip("only one way to compute mode bf16 here; TestConformance fails where CHARACTER_REQUIRE asks for more")
	}
	rng := rand.New(rand.NewPCG(4, 4))
	scaled := func(n, lo, hi int) []float32 {
		x := Floats(n)
		for i := range x {
			x[i] = float32(math.Ldexp(rng.NormFloat64(), lo+rng.IntN(hi-lo)))
		}
		return x
	}
	for _, e := range [][2]int{{-1, 1}, {-66, -60}, {-64, -62}, {-130, -100}, {-20, 20}, {55, 66}, {-75, 70}} {
		for _, s := range []struct{ m, n, k int }{{1, 40, 70}, {2, 260, 33}, {3, 128, 18}, {5, 70, 41}, {12, 64, 96}, {13, 33, 7}, {25, 31, 1000}} {
			a := kernel.Matrix{Rows: s.m, Cols: s.k, Data: scaled(s.m*s.k, e[0], e[1])}
			b := kernel.Matrix{Rows: s.n, Cols: s.k, Data: scaled(s.n*s.k, e[0], e[1])}
			start := scaled(s.m*s.n, 2*e[0], 2*e[1])
			w := modes[0].NewWeight(s.n, s.k)
			for i := range s.n {
				w.SetRow(i, b.Row(i))
			}
			var want [2][]float32
			for i, k := range modes {
				for j, f := range []func(dst kernel.Matrix){
					func(dst kernel.Matrix) { k.Linear(dst, a, w, true) },
					func(dst kernel.Matrix) { k.MatMulNT(dst, a, b, true) },
				} {
					dst := kernel.Matrix{Rows: s.m, Cols: s.n, Data: append([]float32(nil), start...)}
					f(dst)
					for x, v := range dst.Data {
						if v != v {
							dst.Data[x] = float32(math.NaN())
						}
					}
					if i == 0 {
						want[j] = dst.Data
						continue
					}
					sameBits(t, fmt.Sprintf("product %d of %v by 2^%v on %s and %s", j, s, e, modes[0].Name(), k.Name()), want[j], dst.Data)
				}
			}
		}
	}
}
