package safetensors_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/safetensors"
)

func piece(name string, v ...float32) safetensors.Tensor {
	return safetensors.Tensor{Name: name, DType: "F32", Shape: []int{len(v)}, Data: func(w io.Writer) error {
		_, err := w.Write(safetensors.F32Bytes(v))
		return err
	}}
}

// TestWriteFolder: files of at most 16 bytes of data, a tensor of more than that alone in its own.
func TestWriteFolder(t *testing.T) {
	list := []safetensors.Tensor{piece("c", 1, 2), piece("a", 3, 4), piece("b", 5, 6, 7, 8, 9), piece("d", 10)}
	for _, c := range []struct {
		shard int64
		files int
	}{{0, 1}, {16, 3}, {4, 4}} {
		dir := t.TempDir()
		if err := safetensors.WriteFolder(dir, list, map[string]string{"format": "pt"}, c.shard); err != nil {
			t.Fatal(err)
		}
		s, err := safetensors.OpenIndex(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Shards) != c.files || len(s.Tensors) != 4 {
			t.Errorf("shard %d: %d files, want %d, with %d tensors", c.shard, len(s.Shards), c.files, len(s.Tensors))
		}
		for name, want := range map[string]float32{"a": 3, "b": 5, "c": 1, "d": 10} {
			if got, err := s.Floats(name); err != nil || got[0] != want {
				t.Errorf("shard %d: %s: %v %v", c.shard, name, got, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestWriteTensorsIsWrite: the same tensors give the same bytes either way.
func TestWriteTensorsIsWrite(t *testing.T) {
	dir := t.TempDir()
	if err := safetensors.WriteFolder(dir, []safetensors.Tensor{piece("b", 1), piece("a", 2, 3)}, nil, 0); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	err = safetensors.Write(&want, []safetensors.Entry{
		{Name: "a", DType: "F32", Shape: []int{2}, Data: safetensors.F32Bytes([]float32{2, 3})},
		{Name: "b", DType: "F32", Shape: []int{1}, Data: safetensors.F32Bytes([]float32{1})},
	}, nil)
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%v; the bytes are equal: %v", err, bytes.Equal(got, want.Bytes()))
	}
}

func TestWriteFolderRefuses(t *testing.T) {
	short := piece("a", 1)
	short.Shape = []int{2}
	broken := errors.New("the source ends")
	stops := piece("a", 1)
	stops.Data = func(io.Writer) error { return broken }
	unknown := piece("a", 1)
	unknown.DType = "Q4"
	for _, c := range []struct {
		name string
		list []safetensors.Tensor
		want string
	}{
		{"none", nil, "there is no tensor"},
		{"short", []safetensors.Tensor{short}, "needs 8 bytes, 4 were written"},
		{"source", []safetensors.Tensor{stops}, "the source ends"},
		{"type", []safetensors.Tensor{unknown}, `dtype "Q4" is unknown`},
		{"twice", []safetensors.Tensor{piece("a", 1), piece("a", 1)}, `"a" stands twice`},
		{"twice in two files", []safetensors.Tensor{piece("a", 1, 2, 3, 4), piece("a", 1)}, `"a" stands twice`},
	} {
		err := safetensors.WriteFolder(t.TempDir(), c.list, nil, 16)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
