package gguf_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opencharacter/opencharacter/lm/gguf"
)

// copyOf writes what it reads, with every tensor of type typ.
func copyOf(t *testing.T, f *gguf.File, typ string) []byte {
	t.Helper()
	var list []gguf.Tensor
	for _, name := range f.Order {
		list = append(list, gguf.Tensor{Name: name, Type: typ, Shape: f.Tensors[name].Shape,
			Row: func(r int, dst []float32) error { return f.ReadRow(name, r, dst) }})
	}
	var b bytes.Buffer
	if err := gguf.Write(&b, f.Pairs(), list); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestWriteKeepsMetadata copies a file that has a key of every type: what is read back is what stood there, and a copy
// of the copy has the same bytes.
func TestWriteKeepsMetadata(t *testing.T) {
	f, err := gguf.Open(filepath.Join("testdata", "blocks.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	first := copyOf(t, f, "F32")
	g, err := gguf.Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f.Meta, g.Meta); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(f.Order, g.Order); diff != "" {
		t.Error(diff)
	}
	if !bytes.Equal(first, copyOf(t, g, "F32")) {
		t.Error("a copy of the copy has other bytes")
	}
	// The metadata of the file were written by the Python package gguf: the same bytes, types and all, up to the tensor table.
	original, err := os.ReadFile(filepath.Join("testdata", "blocks.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	end := bytes.Index(original, []byte(f.Order[0])) - 8
	if end < 24 || !bytes.Equal(original[:end], first[:end]) {
		t.Error("the metadata have other bytes than those of the Python package")
	}
}

// TestWriteRounds reads back what was written in each type.
func TestWriteRounds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const rows, cols = 7, 96
	values := make([]float32, rows*cols)
	for i := range values {
		values[i] = float32(r.NormFloat64() * math.Exp(4*r.NormFloat64()))
	}
	for i := range 32 {
		values[cols+i] = 0            // a block of zeros
		values[2*cols+i] = 1e-9       // a scale below the least float16
		values[4*cols+i] = 1e-42      // the same, and its inverse is infinite
		values[3*cols+i] = float32(i) // exact halves
	}
	tensor := func(typ string) gguf.Tensor {
		return gguf.Tensor{Name: typ, Type: typ, Shape: []int{rows, cols}, Row: func(r int, dst []float32) error {
			copy(dst, values[r*cols:])
			return nil
		}}
	}
	var b bytes.Buffer
	if err := gguf.Write(&b, nil, []gguf.Tensor{tensor("F32"), tensor("BF16"), tensor("Q8_0")}); err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Parse(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got := make([]float32, cols)
	for _, typ := range []string{"F32", "BF16", "Q8_0"} {
		for row := range rows {
			if err := f.ReadRow(typ, row, got); err != nil {
				t.Fatal(err)
			}
			for i, v := range got {
				want, allowed := values[row*cols+i], 0.0
				switch typ {
				case "BF16": // half a unit in the last of 8 places, or of the subnormal ones
					allowed = max(math.Abs(float64(want))*0x1p-8, 0x1p-134)
				case "Q8_0": // half a step, and what rounding the step to fp16 does to 127 of them
					most := 0.0
					for _, x := range values[row*cols+i/32*32:][:32] {
						most = max(most, math.Abs(float64(x)))
					}
					d := most / 127
					allowed = d/2*(1+0x1p-10) + 127*max(d*0x1p-11, 0x1p-25)
				}
				if math.Abs(float64(v)-float64(want)) > allowed {
					t.Fatalf("%s[%d,%d] = %g, want %g within %g", typ, row, i, v, want, allowed)
				}
			}
		}
	}
}

// TestWriteLikeGGML compares the stored bytes with those of the Python package gguf, of which the sums are:
//
//	i = numpy.arange(32 * 400, dtype="u8")
//	u = (i * 2654435761 % 2**32) / 2.0**32 - 0.5
//	x = (u * numpy.exp2(i // 32 % 40 - 20.0)).astype("f4").reshape(4, -1)
//	sha256(gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q8_0).tobytes())
func TestWriteLikeGGML(t *testing.T) {
	const rows, cols = 4, 3200
	row := func(r int, dst []float32) error {
		for c := range dst {
			i := uint64(r*cols + c)
			dst[c] = float32((float64(i*2654435761%(1<<32))/(1<<32) - .5) * math.Exp2(float64(i/32%40)-20))
		}
		return nil
	}
	for typ, c := range map[string]struct {
		bytes int
		want  string
	}{"Q8_0": {rows * cols / 32 * 34, "bd9f0ea4be7500af43b773a5dd756bde4bbc6b8648e8f5c1da250aa5b27d1b01"},
		"BF16": {rows * cols * 2, "849e2e2a4c9ba9d9fdb398c62d9a22d94bd5c3e0dba689beb3bb2fb05c4858db"}} {
		var b bytes.Buffer
		if err := gguf.Write(&b, nil, []gguf.Tensor{{Name: "x", Type: typ, Shape: []int{rows, cols}, Row: row}}); err != nil {
			t.Fatal(err)
		}
		data := b.Bytes()[b.Len()-(c.bytes+31)/32*32:][:c.bytes]
		if got := fmt.Sprintf("%x", sha256.Sum256(data)); got != c.want {
			t.Errorf("%s: sha256 %s, ggml has %s", typ, got, c.want)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	one := func(name, typ string, v float32, shape ...int) gguf.Tensor {
		return gguf.Tensor{Name: name, Type: typ, Shape: shape, Row: func(_ int, dst []float32) error {
			for i := range dst {
				dst[i] = v
			}
			return nil
		}}
	}
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		name    string
		pairs   []gguf.Pair
		tensors []gguf.Tensor
		want    string
	}{
		{"key twice", []gguf.Pair{gguf.Text("a", ""), gguf.Uint32("a", 1)}, nil, `key "a" stands twice`},
		{"no key", []gguf.Pair{gguf.Text("", "")}, nil, "a key has 1 to"},
		{"alignment", []gguf.Pair{gguf.Uint32("general.alignment", 64)}, nil, "only 32 is written"},
		{"too great", []gguf.Pair{gguf.Int32s("a", []int64{1 << 40})}, nil, "does not fit into 4 bytes"},
		{"no type", []gguf.Pair{{Key: "a", Value: 3.5}}, nil, "no value of type number 0"},
		{"tensor twice", nil, []gguf.Tensor{one("a", "F32", 1, 2), one("a", "F32", 1, 2)}, `tensor "a" stands twice`},
		{"long name", nil, []gguf.Tensor{one(strings.Repeat("n", 64), "F32", 1, 2)}, "1 to 63 bytes"},
		{"type", nil, []gguf.Tensor{one("a", "Q4_0", 1, 32)}, `type "Q4_0" is not written`},
		{"block", nil, []gguf.Tensor{one("a", "Q8_0", 1, 2, 33)}, "no multiple of the 32 weights"},
		{"shape", nil, []gguf.Tensor{one("a", "F32", 1, 0)}, "impossible"},
		{"dimensions", nil, []gguf.Tensor{one("a", "F32", 1)}, "0 dimensions"},
		{"infinite F32", nil, []gguf.Tensor{one("a", "F32", inf, 2)}, "not finite"},
		{"infinite BF16", nil, []gguf.Tensor{one("a", "BF16", math.MaxFloat32, 2)}, "not finite"},
		{"infinite Q8_0", nil, []gguf.Tensor{one("a", "Q8_0", 1e9, 32)}, "no float16"},
	} {
		var b bytes.Buffer
		if err := gguf.Write(&b, c.pairs, c.tensors); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

type fullDisk struct{ left int }

var errFull = errors.New("no space left on device")

func (d *fullDisk) Write(p []byte) (int, error) {
	if len(p) > d.left {
		return 0, errFull
	}
	d.left -= len(p)
	return len(p), nil
}

func TestWriteReportsAFullDisk(t *testing.T) {
	row := func(_ int, dst []float32) error { return nil }
	err := gguf.Write(&fullDisk{left: 1 << 20}, nil, []gguf.Tensor{{Name: "a", Type: "F32", Shape: []int{4096, 256}, Row: row}})
	if !errors.Is(err, errFull) {
		t.Errorf("error %v", err)
	}
	stop := errors.New("the source ends")
	err = gguf.Write(&bytes.Buffer{}, nil, []gguf.Tensor{{Name: "a", Type: "F32", Shape: []int{3, 2}, Row: func(r int, _ []float32) error {
		if r == 2 {
			return stop
		}
		return nil
	}}})
	if !errors.Is(err, stop) || !strings.Contains(fmt.Sprint(err), `tensor "a": row 2`) {
		t.Errorf("error %v", err)
	}
}
