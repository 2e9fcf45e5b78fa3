package gguf_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

// model builds GGUF bytes by hand, so that every field can be wrong.
type model struct {
	magic   string
	version uint32
	tensors []entry
	nTensor uint64 // 0 means len(tensors)
	nKeys   uint64 // 0 means the number of pairs
	pairs   [][]byte
	align   int
	data    int // bytes of tensor data
}

type entry struct {
	name   string
	dims   []uint64 // innermost first, as stored
	kind   uint32
	offset uint64
}

func valid() *model {
	return &model{
		magic: "GGUF", version: 3, align: 32, data: 64,
		pairs:   [][]byte{pair("general.architecture", 8, str("llama"))},
		tensors: []entry{{"a", []uint64{4, 2}, 0, 0}, {"b", []uint64{8}, 0, 32}},
	}
}

func u32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
func str(s string) []byte { return append(u64(uint64(len(s))), s...) }
func pair(key string, kind uint32, value []byte) []byte {
	return append(append(str(key), u32(kind)...), value...)
}

func array(kind uint32, n uint64, values []byte) []byte {
	return append(append(u32(kind), u64(n)...), values...)
}

func (m *model) bytes() []byte {
	n, k := m.nTensor, m.nKeys
	if n == 0 {
		n = uint64(len(m.tensors))
	}
	if k == 0 {
		k = uint64(len(m.pairs))
	}
	out := append([]byte(m.magic), u32(m.version)...)
	out = append(append(out, u64(n)...), u64(k)...)
	for _, p := range m.pairs {
		out = append(out, p...)
	}
	for _, e := range m.tensors {
		out = append(append(out, str(e.name)...), u32(uint32(len(e.dims)))...)
		for _, d := range e.dims {
			out = append(out, u64(d)...)
		}
		out = append(append(out, u32(e.kind)...), u64(e.offset)...)
	}
	for len(out)%m.align != 0 {
		out = append(out, 0)
	}
	return append(out, make([]byte, m.data)...)
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*model)
		want string
	}{
		{"magic", func(m *model) { m.magic = "PK\x03\x04" }, "not a GGUF file"},
		{"version 1", func(m *model) { m.version = 1 }, "version 1 is not supported"},
		{"big endian", func(m *model) { m.version = 3 << 24 }, "big-endian"},
		{"tensor count", func(m *model) { m.nTensor = 1 << 40 }, "number of tensors"},
		{"tensor count overflow", func(m *model) { m.nTensor = 1<<64 - 1 }, "impossible"},
		{"key count", func(m *model) { m.nKeys = 1 << 60 }, "number of metadata keys"},
		{"key length", func(m *model) { m.pairs[0] = append(u64(1<<50), "key"...) }, "a text of"},
		{"value length", func(m *model) { m.pairs[0] = pair("k", 8, u64(1<<27)) }, "only"},
		{"key twice", func(m *model) { m.pairs = append(m.pairs, m.pairs[0]) }, `"general.architecture" stands twice`},
		{"value type", func(m *model) { m.pairs[0] = pair("k", 13, nil) }, "value type 13 is unknown"},
		{"element type", func(m *model) { m.pairs[0] = pair("k", 9, array(77, 1, nil)) }, "element type 77"},
		{"array of arrays", func(m *model) { m.pairs[0] = pair("k", 9, array(9, 1, array(9, 1, nil))) }, "array of arrays"},
		{"array length", func(m *model) { m.pairs[0] = pair("k", 9, array(0, 1<<62, nil)) }, "only"},
		{"array length overflow", func(m *model) { m.pairs[0] = pair("k", 9, array(10, 1<<63, nil)) }, "impossible"},
		{"too big for int64", func(m *model) { m.pairs[0] = pair("k", 9, array(10, 1, u64(1<<63))) }, "63 bits"},
		{"bool", func(m *model) { m.pairs[0] = pair("k", 7, []byte{2}) }, "truth value is 2"},
		{"zero byte", func(m *model) { m.tensors[0].name = "a\x00b" }, "zero byte"},
		{"long name", func(m *model) { m.tensors[0].name = strings.Repeat("a", 2000) }, "allowed are 1024"},
		{"tensor twice", func(m *model) { m.tensors[1].name = "a" }, `"a" stands twice`},
		{"no dimension", func(m *model) { m.tensors[1].dims = nil }, "0 dimensions"},
		{"dimensions", func(m *model) { m.tensors[1].dims = make([]uint64, 5) }, "5 dimensions"},
		{"dimension 0", func(m *model) { m.tensors[1].dims = []uint64{0} }, "dimension 0 is 0"},
		{"product overflows", func(m *model) { m.tensors[1].dims = []uint64{1 << 31, 1 << 31, 1 << 31} }, "does not fit"},
		{"huge dimension", func(m *model) { m.tensors[1].dims = []uint64{1<<64 - 1} }, "does not fit"},
		{"unknown type", func(m *model) { m.tensors[1].kind = 999 }, "type number 999 is unknown; use a file quantised with F32"},
		{"unread type", func(m *model) { m.tensors[1].kind = 10 }, "type Q2_K is not supported"},
		{"part of a block", func(m *model) { m.tensors[1].kind = 8 }, "no multiple of the 32 weights of a Q8_0 block"},
		{"offset", func(m *model) { m.tensors[1].offset = 1 << 63 }, "starts at byte"},
		{"misaligned", func(m *model) { m.tensors[1].offset = 36 }, "not aligned to 32"},
		{"overlap", func(m *model) { m.tensors[1].offset = 0 }, `"a" and "b" overlap`},
		{"behind the end", func(m *model) { m.tensors[1].offset = 64 }, "truncated"},
		{"truncated data", func(m *model) { m.data = 63 }, `tensor "b": ends at byte`},
		{"alignment", func(m *model) { m.pairs[0] = pair("general.alignment", 4, u32(24)) }, "power of two"},
		{"alignment 0", func(m *model) { m.pairs[0] = pair("general.alignment", 4, u32(0)) }, "power of two"},
		{"alignment's type", func(m *model) { m.pairs[0] = pair("general.alignment", 8, str("x")) }, "is a string"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := valid()
			c.edit(m)
			_, err := gguf.Parse(m.bytes())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// TestEveryTruncation cuts a real little file at every length: always an error, never a panic.
func TestEveryTruncation(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "blocks.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range data {
		if n > 2500 && n%97 != 0 && n < len(data)-64 {
			continue
		}
		if f, err := gguf.Parse(data[:n]); err == nil && readAll(f) == nil {
			// The writer pads the end of the file to the alignment; nothing but padding may be missing.
			if len(data)-n >= 32 {
				t.Fatalf("%d of %d bytes are accepted", n, len(data))
			}
		}
	}
}

func TestOpenNamesThePath(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "missing.gguf")} {
		if _, err := gguf.Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("Open(%s): %v", path, err)
		}
	}
}

func readAll(f *gguf.File) error {
	for _, name := range f.Order {
		info := f.Tensors[name]
		dst := make([]float32, info.Cols())
		for row := range info.Rows() {
			if err := f.ReadRow(name, row, dst); err != nil {
				return err
			}
		}
	}
	return nil
}

// FuzzOpen: whatever the bytes are, Parse returns an error or a file that can be read completely, and sets no more memory
// aside than the bytes call for.
func FuzzOpen(f *testing.F) {
	f.Add(valid().bytes())
	m := valid()
	for i, kind := range []uint32{0, 1, 30, 8, 2, 3, 6, 7, 12, 13, 14} {
		m.tensors = append(m.tensors, entry{string(rune('c' + i)), []uint64{256}, kind, uint64(64 + 1024*i)})
	}
	m.data = 64 + 11*1024
	f.Add(m.bytes())
	m = valid()
	m.pairs = append(m.pairs, pair("general.alignment", 4, u32(64)), pair("x", 9, array(8, 2, append(str("a"), str("b")...))))
	m.align, m.data, m.tensors[1].offset = 64, 128, 64
	f.Add(m.bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		var file *gguf.File
		var err error
		hostile.Bounds{}.Hold(t, len(data), func() { file, err = gguf.Parse(data) })
		if err != nil {
			return
		}
		if err := readAll(file); err != nil {
			t.Fatal(err)
		}
		for name, info := range file.Tensors {
			if info.BlockBits() > 0 {
				_ = sameWeights(t, file, name) // scales that are not finite are refused
			}
		}
	})
}
