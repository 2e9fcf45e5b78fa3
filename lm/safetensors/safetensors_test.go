package safetensors_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opencharacter/opencharacter/lm/safetensors"
)

// recorded is testdata/tiny.json: what the reference implementation reads from tiny.safetensors.
type recorded struct {
	Metadata map[string]string
	Tensors  map[string]struct {
		DType string
		Shape []int
		Bits  []uint32
		Raw   []int
	}
}

var torchType = map[string]string{"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "bool": "BOOL"}

func load(t *testing.T) (want recorded) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "tiny.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	return want
}

func TestReadsTheReferencesFile(t *testing.T) {
	f, err := safetensors.Open(filepath.Join("testdata", "tiny.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	compare(t, f, load(t))
}

func compare(t *testing.T, f *safetensors.File, want recorded) {
	t.Helper()
	if diff := cmp.Diff(want.Metadata, f.Metadata); diff != "" {
		t.Error(diff)
	}
	if len(f.Tensors) != len(want.Tensors) || len(want.Tensors) != 8 {
		t.Errorf("%d tensors, recorded %d", len(f.Tensors), len(want.Tensors))
	}
	for name, w := range want.Tensors {
		info := f.Tensors[name]
		if info.DType != torchType[w.DType] || !cmp.Equal(append([]int{}, info.Shape...), w.Shape) {
			t.Errorf("%s: %+v, recorded %s %v", name, info, w.DType, w.Shape)
		}
		if w.Raw != nil {
			raw, err := f.Raw(name)
			if err != nil {
				t.Fatal(err)
			}
			if got := ints(raw); !cmp.Equal(got, w.Raw) {
				t.Errorf("%s: bytes %v, recorded %v", name, got, w.Raw)
			}
			if _, err := f.Floats(name); err == nil || !strings.Contains(err.Error(), "must be F32, F16 or BF16") {
				t.Errorf("%s: Floats: %v", name, err)
			}
			continue
		}
		all, err := f.Floats(name)
		if err != nil {
			t.Fatal(err)
		}
		if !sameBits(all, w.Bits) {
			t.Errorf("%s: %v, recorded bits %x", name, all, w.Bits)
		}
		row := make([]float32, info.Cols())
		for r := range info.Rows() {
			if err := f.ReadRow(name, r, row); err != nil {
				t.Fatal(err)
			}
			if !sameBits(row, w.Bits[r*len(row):][:len(row)]) {
				t.Errorf("%s: row %d: %v", name, r, row)
			}
		}
	}
}

func sameBits(x []float32, bits []uint32) bool {
	if len(x) != len(bits) {
		return false
	}
	for i, v := range x {
		if math.Float32bits(v) != bits[i] {
			return false
		}
	}
	return true
}

func ints(b []byte) []int {
	out := make([]int, len(b))
	for i, v := range b {
		out[i] = int(v)
	}
	return out
}

// TestWriteMatchesTheReference writes the tensors of the recorded file again: same content, same data
// layout, and (but for the order of the header's keys) the same bytes.
func TestWriteMatchesTheReference(t *testing.T) {
	path := filepath.Join("testdata", "tiny.safetensors")
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var entries []safetensors.Entry
	for name, info := range f.Tensors { // a random order on purpose
		raw, err := f.Raw(name)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, safetensors.Entry{Name: name, DType: info.DType, Shape: info.Shape, Data: raw})
	}
	var a, b bytes.Buffer
	if err := safetensors.Write(&a, entries, f.Metadata); err != nil {
		t.Fatal(err)
	}
	for i, j := 0, len(entries)-1; i < j; i, j = i+1, j-1 {
		entries[i], entries[j] = entries[j], entries[i]
	}
	if err := safetensors.Write(&b, entries, f.Metadata); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the order of the entries changes the bytes")
	}
	if n := int(a.Bytes()[0]) | int(a.Bytes()[1])<<8; n%8 != 0 {
		t.Errorf("header of %d bytes is not 8-aligned", n)
	}
	again, err := safetensors.Parse(a.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	compare(t, again, load(t))
	reference, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const data = 163 // bytes behind the header
	if a.Len() != len(reference) || !bytes.Equal(a.Bytes()[a.Len()-data:], reference[len(reference)-data:]) {
		t.Errorf("the data differ from the reference's: %d bytes, reference %d", a.Len(), len(reference))
	}
	// The reference reads these bytes back unchanged (testdata/record.py FILE prints tiny.json again).
	if sum := fmt.Sprintf("%x", sha256.Sum256(a.Bytes())); sum != "2d27fa063d56a53ab045abddbdae5f2ea6aab80974d9da1dd1ae5b717ead226c" {
		t.Errorf("the written bytes have the sha256 %s", sum)
	}
}

func TestWriteRefuses(t *testing.T) {
	ok := safetensors.Entry{Name: "a", DType: "F32", Shape: []int{1}, Data: safetensors.F32Bytes([]float32{1})}
	edit := func(change func(*safetensors.Entry)) []safetensors.Entry {
		e := ok
		change(&e)
		return []safetensors.Entry{e}
	}
	for _, c := range []struct {
		name    string
		entries []safetensors.Entry
		meta    map[string]string
		want    string
	}{
		{"twice", []safetensors.Entry{ok, ok}, nil, `"a" stands twice`},
		{"dtype", edit(func(e *safetensors.Entry) { e.DType = "F31" }), nil, `dtype "F31" is unknown`},
		{"size", edit(func(e *safetensors.Entry) { e.Shape = []int{2} }), nil, "needs 8 bytes, 4 are given"},
		{"negative", edit(func(e *safetensors.Entry) { e.Shape = []int{-1} }), nil, "impossible"},
		{"overflow", edit(func(e *safetensors.Entry) { e.Shape = []int{1 << 40, 1 << 40} }), nil, "impossible"},
		{"reserved", edit(func(e *safetensors.Entry) { e.Name = "__metadata__" }), nil, "not allowed"},
		{"name", edit(func(e *safetensors.Entry) { e.Name = "\xff" }), nil, "not allowed"},
		{"metadata", []safetensors.Entry{ok}, map[string]string{"k": "\xff"}, "not valid UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := safetensors.Write(&bytes.Buffer{}, c.entries, c.meta)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
