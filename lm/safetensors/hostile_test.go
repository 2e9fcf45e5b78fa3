package safetensors_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/safetensors"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

// file puts the length before a header and n zero bytes of data after it.
func file(header string, n int) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(out, header...), make([]byte, n)...)
}

const good = `{"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}`

func TestParseRefuses(t *testing.T) {
	one := func(entry string) []byte { return file(`{"a":`+entry+`}`, 8) }
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "at least 8"},
		{"length", binary.LittleEndian.AppendUint64(nil, 1<<63), "not a safetensors file"},
		{"truncated header", file(good, 0)[:40], "truncated"},
		{"not JSON", file("GGUF", 0), "does not start with '{'"},
		{"no header", file("", 0), "does not start with '{'"},
		{"UTF-8", file("{\"\xff\":1}", 0), "not valid UTF-8"},
		{"unfinished", file(`{"a":`, 0), "ends too early"},
		{"unclosed", file(`{`, 0), "ends too early"},
		{"trailing", file(good+"x", 11), "after the closing brace"},
		{"trailing comma", file(good[:len(good)-1]+",}", 11), "invalid character"},
		{"name twice", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), `"a": stands twice`},
		{"metadata twice", file(`{"__metadata__":{},"__metadata__":{}}`, 0), "stands twice"},
		{"metadata's key twice", file(`{"__metadata__":{"k":"a","k":"b"}}`, 0), `"k": stands twice`},
		{"metadata's type", file(`{"__metadata__":{"k":1}}`, 0), "1 stands where a text is expected"},
		{"field twice", one(`{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}`), `"dtype": stands twice`},
		{"unknown field", one(`{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}`), `"x": unknown field`},
		{"case of a field", one(`{"DType":"F32","shape":[2],"data_offsets":[0,8]}`), "unknown field"},
		{"missing field", one(`{"dtype":"F32","data_offsets":[0,8]}`), `"shape" is missing`},
		{"dtype", one(`{"dtype":"F31","shape":[2],"data_offsets":[0,8]}`), `dtype "F31" is not supported`},
		{"negative", one(`{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}`), "-2 is not a size"},
		{"fraction", one(`{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}`), "2.0 is not a size"},
		{"text", one(`{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}`), "where a number is expected"},
		{"dimensions", one(`{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}`), "more than 16 numbers"},
		{"overflow", one(`{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}`), "impossibly large"},
		{"size", one(`{"dtype":"F32","shape":[3],"data_offsets":[0,8]}`), "needs 12 bytes, data_offsets hold 8"},
		{"backwards", one(`{"dtype":"F32","shape":[2],"data_offsets":[8,0]}`), "not a start and an end"},
		{"one offset", one(`{"dtype":"F32","shape":[2],"data_offsets":[8]}`), "not a start and an end"},
		{"nested", file(strings.Repeat(`{"a":`, 100_000), 0), ""},
		{"truncated data", file(good, 10), `"b": ends at byte 11`},
		{"more data", file(good, 12), "belong to nothing"},
		{"hole", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), "a hole of 1 bytes"},
		{"overlap", file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3), "overlaps"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := safetensors.Parse(c.data)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestEveryTruncation(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "tiny.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range data {
		if _, err := safetensors.Parse(data[:n]); err == nil {
			t.Fatalf("%d of %d bytes are accepted", n, len(data))
		}
	}
}

func TestReadRowRefuses(t *testing.T) {
	f, err := safetensors.Parse(file(good, 11))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		row, n int
		want   string
	}{
		{"c", 0, 1, `no tensor "c"`}, {"a", 2, 1, "row 2 of 2"}, {"a", -1, 1, "row -1"},
		{"a", 0, 2, "rows have 1 elements, the caller wants 2"}, {"b", 0, 3, "has type U8"},
	} {
		if err := f.ReadRow(c.name, c.row, make([]float32, c.n)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ReadRow(%q, %d): %v, want %q", c.name, c.row, err, c.want)
		}
	}
}

// FuzzParse: any bytes give an error or a file whose tensors can be read and written again.
func FuzzParse(f *testing.F) {
	f.Add(file(good, 11))
	f.Add(file(`{"__metadata__":{"k":"v"},"s":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}`, 2))
	f.Add(file(`{"h":{"dtype":"F16","shape":[0,3],"data_offsets":[0,0]}}  `, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		var file *safetensors.File
		var err error
		hostile.Bounds{PerByte: 200}.Hold(t, len(data), func() { file, err = safetensors.Parse(data) })
		if err != nil {
			return
		}
		var entries []safetensors.Entry
		for name, info := range file.Tensors {
			raw, err := file.Raw(name)
			if err != nil {
				t.Fatal(err)
			}
			switch info.DType {
			case "F32", "F16", "BF16":
				if _, err := file.Floats(name); err != nil {
					t.Fatal(err)
				}
			}
			entries = append(entries, safetensors.Entry{Name: name, DType: info.DType, Shape: info.Shape, Data: raw})
		}
		var out bytes.Buffer
		if err := safetensors.Write(&out, entries, file.Metadata); err != nil {
			t.Fatal(err)
		}
		again, err := safetensors.Parse(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again.Tensors, file.Tensors) || len(again.Metadata)+len(file.Metadata) > 0 && !maps.Equal(again.Metadata, file.Metadata) {
			t.Fatalf("%v %v was written as %v %v", file.Tensors, file.Metadata, again.Tensors, again.Metadata)
		}
		for _, e := range entries {
			if raw, err := again.Raw(e.Name); err != nil || !bytes.Equal(raw, e.Data) {
				t.Fatalf("tensor %q changed: %v", e.Name, err)
			}
		}
	})
}
