package tensor_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/tensor"
)

func TestParseCompute(t *testing.T) {
	for s, want := range map[string]tensor.Compute{"": tensor.Exact, "exact": tensor.Exact, "bf16": tensor.BF16} {
		if c, err := tensor.ParseCompute(s); err != nil || c != want {
			t.Errorf("ParseCompute(%q) = %v, %v", s, c, err)
		} else if back, err := tensor.ParseCompute(c.String()); err != nil || back != c {
			t.Errorf("ParseCompute does not read %v back: %v, %v", c, back, err)
		}
	}
	if _, err := tensor.ParseCompute("fp8"); err == nil || !strings.Contains(err.Error(), `"fp8"`) || !strings.Contains(err.Error(), "exact or bf16") {
		t.Errorf("ParseCompute(fp8): %v", err)
	}
}

func TestVariantOf(t *testing.T) {
	if v := tensor.VariantOf(tensor.Exact); v != tensor.Variant() {
		t.Errorf("mode exact is %q, Variant %q", v, tensor.Variant())
	}
	if v := tensor.VariantOf(tensor.BF16); !strings.HasPrefix(v, tensor.Variant()+"+bf16") {
		t.Errorf("mode bf16 is %q", v)
	}
	for _, c := range []tensor.Compute{tensor.Exact, tensor.BF16} {
		if p := tensor.PeakOf(c, time.Millisecond); !(p > 0) {
			t.Errorf("peak of %v: %v", c, p)
		}
	}
}

// The hand-computed products of TestProducts, with factors that bfloat16 does not
// hold: 1+2^-8 is half way between 1 and 1+2^-7 and goes to the even 1; 1+3*2^-8 goes
// to 1+2^-6.
func TestBF16Rounds(t *testing.T) {
	const low, high = 1 + 1.0/256, 1 + 3.0/256
	a := tensor.FromSlice(2, 3, []float32{low, 2, 3, 4, high, 6})
	b := tensor.FromSlice(2, 3, []float32{1, 0, 2, 0, 1, low})
	w := weight(b.Row(0), b.Row(1)) // holds 1 for low
	wb := weight(b.Row(0), b.Row(1))
	wb.SetCompute(tensor.BF16)
	if w.Compute() != tensor.Exact || wb.Compute() != tensor.BF16 {
		t.Fatalf("modes %v and %v", w.Compute(), wb.Compute())
	}
	const up = 1 + 1.0/64
	for _, c := range []struct {
		name       string
		rows, cols int
		run        func(dst *tensor.Tensor)
		want       []float32
	}{
		{"Linear exact", 2, 2, func(d *tensor.Tensor) { tensor.Linear(d, a, w, false) }, []float32{low + 6, 5, 16, high + 6}},
		{"Linear", 2, 2, func(d *tensor.Tensor) { tensor.Linear(d, a, wb, false) }, []float32{7, 5, 16, up + 6}},
		{"LinearBackward", 2, 3, func(d *tensor.Tensor) {
			tensor.LinearBackward(d, tensor.FromSlice(2, 2, []float32{low, 2, 3, high}), wb, false)
		}, []float32{1, 2, 4, 3, up, 6 + up}},
		{"MatMulNT", 2, 2, func(d *tensor.Tensor) { tensor.BF16.MatMulNT(d, a, b, false) }, []float32{7, 5, 16, up + 6}},
		{"MatMulNN", 2, 2, func(d *tensor.Tensor) { tensor.BF16.MatMulNN(d, a, b.Reshape(3, 2), false) }, []float32{8, 3, 10 + 2*up, 6}},
		{"MatMulTN", 3, 3, func(d *tensor.Tensor) { tensor.BF16.MatMulTN(d, a, b, false) }, []float32{1, 4, 6, 2, up, 4 + up, 3, 6, 12}},
	} {
		dst := tensor.New(c.rows, c.cols)
		c.run(dst)
		if !slices.Equal(dst.Data(), c.want) {
			t.Errorf("%s = %v, want %v", c.name, dst.Data(), c.want)
		}
	}
}
