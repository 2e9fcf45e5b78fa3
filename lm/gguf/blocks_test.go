package gguf_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/gguf"
)

// float16 is the value of a float16 by its definition.
func float16(h uint16) float64 {
	sign, e, f := 1-2*float64(h>>15), int(h>>10&31), float64(h&0x3ff)
	switch e {
	case 0:
		return sign * math.Ldexp(f, -24)
	case 31:
		return sign * math.Inf(1)
	}
	return sign * math.Ldexp(1024+f, e-25)
}

// blockKinds are the numbers of the types in a file and the bytes of their blocks.
var blockKinds = map[uint32]int{2: 18, 3: 20, 8: 34}

// blockFile is a file with one row "w" of type kind.
func blockFile(t testing.TB, kind uint32, row []byte) *gguf.File {
	t.Helper()
	m := valid()
	m.tensors = []entry{{"w", []uint64{uint64(len(row) / blockKinds[kind] * gguf.BlockSize)}, kind, 0}}
	m.data = 0
	data := append(m.bytes(), row...)
	f, err := gguf.Parse(append(data, make([]byte, -len(row)&31)...))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// sameWeights compares ReadBlocks with ReadRow on every row of a tensor; the error is
// that of ReadBlocks.
func sameWeights(t testing.TB, f *gguf.File, name string) error {
	t.Helper()
	info := f.Tensors[name]
	n, blocks := info.Cols(), info.Cols()/gguf.BlockSize
	q, scale, minimum, want := make([]byte, n), make([]uint16, blocks), make([]uint16, blocks), make([]float32, n)
	if info.BlockBits() == 8 {
		minimum = nil
	}
	for row := range info.Rows() {
		if err := f.ReadBlocks(name, row, q, scale, minimum); err != nil {
			return err
		}
		if err := f.ReadRow(name, row, want); err != nil {
			t.Fatal(err)
		}
		for i, v := range q {
			got := float32(float16(scale[i/gguf.BlockSize]) * float64(int8(v)))
			if minimum != nil { // in float64 the sum is exact
				got = float32(float16(scale[i/gguf.BlockSize])*float64(v) + float16(minimum[i/gguf.BlockSize]))
			}
			if got != want[i] || info.Type != "Q4_0" && math.Float32bits(got) != math.Float32bits(want[i]) {
				t.Fatalf("%s[%d,%d]: the blocks say %v, the row %v", name, row, i, got, want[i])
			}
		}
	}
	return nil
}

// TestReadBlocks: for every finite scale there is, and random minimums and integers, the
// blocks of a row say what the row says.
func TestReadBlocks(t *testing.T) {
	for kind, size := range blockKinds {
		rng := rand.New(rand.NewPCG(5, uint64(kind)))
		var row []byte
		for h := range uint16(0x7c00) {
			if kind == 2 && h >= 0x7000 { // 8192 times 8 is too much
				break
			}
			b := make([]byte, size)
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			binary.LittleEndian.PutUint16(b, h|uint16(rng.IntN(2))<<15)
			if kind == 3 {
				binary.LittleEndian.PutUint16(b[2:], uint16(rng.IntN(0x7c00))|uint16(rng.IntN(2))<<15)
			}
			row = append(row, b...)
		}
		if err := sameWeights(t, blockFile(t, kind, row), "w"); err != nil {
			t.Errorf("type %d: %v", kind, err)
		}
	}
	f, err := gguf.Open(filepath.Join("testdata", "blocks.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, name := range []string{"Q4_1.weight", "Q8_0.weight"} {
		if err := sameWeights(t, f, name); err != nil {
			t.Error(err)
		}
	}
}

func TestReadBlocksRefuses(t *testing.T) {
	for _, c := range []struct {
		kind uint32
		at   int
		bits uint16
		want string
	}{
		{2, 0, 0x7c00, "block 0: the scale is +Inf"}, {2, 18, 0x7e01, "block 1: the scale is NaN"}, {2, 0, 0x7000, "scale 8192 times 8"}, {2, 0, 0xf000, "scale -8192 times 8"},
		{3, 0, 0xfc00, "scale is -Inf"}, {3, 22, 0x7c00, "block 1: the minimum is +Inf"}, {8, 34, 0x7c00, "block 1: the scale is +Inf"},
	} {
		row := make([]byte, 2*blockKinds[c.kind])
		binary.LittleEndian.PutUint16(row[c.at:], c.bits)
		if err := sameWeights(t, blockFile(t, c.kind, row), "w"); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "download") {
			t.Errorf("type %d with %04x at %d: %v, want %q", c.kind, c.bits, c.at, err, c.want)
		}
	}
	f, err := gguf.Open(filepath.Join("testdata", "blocks.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct {
		name               string
		row, q, scale, min int
		want               string
	}{
		{"none", 0, 512, 16, 16, "no tensor"}, {"Q4_1.weight", 3, 512, 16, 16, "row 3 of 3"}, {"Q4_1.weight", -1, 512, 16, 16, "row -1"},
		{"Q4_1.weight", 0, 511, 16, 16, "511"}, {"Q4_1.weight", 0, 512, 15, 16, "16 scales and 16 minimums"}, {"Q8_0.weight", 0, 512, 16, 16, "16 scales and 0 minimums"},
		{"Q6_K.weight", 0, 512, 16, 16, "type Q6_K"}, {"BF16.weight", 0, 512, 16, 16, "type BF16"},
	} {
		err := f.ReadBlocks(c.name, c.row, make([]byte, c.q), make([]uint16, c.scale), make([]uint16, c.min))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for name, info := range f.Tensors {
		if want := map[string]int{"Q4_0": 4, "Q4_1": 4, "Q8_0": 8}[info.Type]; info.BlockBits() != want {
			t.Errorf("%s: %d bits, want %d", name, info.BlockBits(), want)
		}
	}
}
