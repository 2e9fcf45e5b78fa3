package safetensors_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opencharacter/opencharacter/lm/safetensors"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

// shard writes a file with one F32 tensor for each name, all values v.
func shard(t *testing.T, path string, v float32, names ...string) {
	t.Helper()
	var entries []safetensors.Entry
	for _, n := range names {
		entries = append(entries, safetensors.Entry{Name: n, DType: "F32", Shape: []int{2}, Data: safetensors.F32Bytes([]float32{v, v})})
	}
	var b bytes.Buffer
	if err := safetensors.Write(&b, entries, nil); err != nil {
		t.Fatal(err)
	}
	write(t, path, b.String())
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpenIndexSharded(t *testing.T) {
	dir := t.TempDir()
	shard(t, filepath.Join(dir, "1.safetensors"), 1, "a", "b")
	shard(t, filepath.Join(dir, "2.safetensors"), 2, "c")
	write(t, filepath.Join(dir, "model.safetensors.index.json"),
		`{"metadata":{"total_size":24},"weight_map":{"a":"1.safetensors","c":"2.safetensors","b":"1.safetensors"}}`)
	s, err := safetensors.OpenIndex(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float32{"a": 1, "b": 1, "c": 2} {
		got, err := s.Floats(name)
		if err != nil || !cmp.Equal(got, []float32{want, want}) {
			t.Errorf("%s: %v %v", name, got, err)
		}
		if err := s.ReadRow(name, 0, got); err != nil || got[1] != want {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	if len(s.Tensors) != 3 || len(s.Shards) != 2 {
		t.Errorf("%d tensors in %v", len(s.Tensors), s.Shards)
	}
	if _, err := s.Floats("d"); err == nil {
		t.Error("a tensor that is not there was read")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Floats("a"); err == nil {
		t.Error("reading after Close works")
	}
}

func TestOpenIndexSingle(t *testing.T) {
	dir := t.TempDir()
	shard(t, filepath.Join(dir, "model.safetensors"), 3, "a")
	s, err := safetensors.OpenIndex(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := s.Floats("a"); err != nil || got[0] != 3 {
		t.Errorf("%v %v", got, err)
	}
}

func TestOpenIndexRefuses(t *testing.T) {
	for _, c := range []struct{ name, index, want string }{
		{"nothing", "", "has neither model.safetensors nor"},
		{"traversal", `{"weight_map":{"a":"../1.safetensors"}}`, "not the name of a .safetensors file in this folder"},
		{"absolute", `{"weight_map":{"a":"/etc/1.safetensors"}}`, "not the name"},
		{"backslash", `{"weight_map":{"a":"..\\1.safetensors"}}`, "not the name"},
		{"drive", `{"weight_map":{"a":"C:1.safetensors"}}`, "not the name"},
		{"other file", `{"weight_map":{"a":"passwd"}}`, "not the name"},
		{"missing file", `{"weight_map":{"a":"9.safetensors"}}`, "9.safetensors"},
		{"missing tensor", `{"weight_map":{"z":"1.safetensors"}}`, `"z" is not in 1.safetensors`},
		{"twice", `{"weight_map":{"a":"1.safetensors","a":"1.safetensors"}}`, "stands twice"},
		{"map twice", `{"weight_map":{"a":"1.safetensors"},"weight_map":{}}`, "stands twice"},
		{"empty", `{"weight_map":{}}`, "names no tensor"},
		{"list", `[]`, "is expected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			shard(t, filepath.Join(dir, "1.safetensors"), 1, "a")
			if c.index != "" {
				write(t, filepath.Join(dir, "model.safetensors.index.json"), c.index)
			}
			_, err := safetensors.OpenIndex(dir)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// FuzzIndex: no index makes OpenIndex panic or name a file outside the folder.
func FuzzIndex(f *testing.F) {
	f.Add(`{"metadata":{"total_size":24},"weight_map":{"a":"1.safetensors"}}`)
	f.Add(`{"weight_map":{"a":"../1.safetensors"}}`)
	f.Fuzz(func(t *testing.T, index string) {
		dir := t.TempDir()
		shard(t, filepath.Join(dir, "1.safetensors"), 1, "a")
		write(t, filepath.Join(dir, "model.safetensors.index.json"), index)
		var s *safetensors.Set
		var err error
		hostile.Bounds{PerByte: 200}.Hold(t, len(index), func() { s, err = safetensors.OpenIndex(dir) })
		if err != nil {
			return
		}
		for _, path := range s.Shards {
			if filepath.Dir(path) != dir {
				t.Errorf("opened %s", path)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
