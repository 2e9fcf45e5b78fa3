package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"unicode/utf8"
)

// Entry is one tensor to write.
type Entry struct {
	Name, DType string
	Shape       []int
	Data        []byte // little-endian, as long as dtype and shape say
}

// Write writes a safetensors file. The bytes depend on the entries and the metadata only, not on the
// order of the entries: header keys are sorted by name, the header is padded with spaces to a multiple
// of 8 bytes, and the data are sorted by size of the data type (widest first, so that every tensor is
// aligned) and then by name.
func Write(w io.Writer, entries []Entry, metadata map[string]string) error {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(sizes[b.DType], sizes[a.DType]), cmp.Compare(a.Name, b.Name))
	})
	type field struct {
		DType   string   `json:"dtype"`
		Shape   []int    `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	fields := make(map[string]any, len(entries)+1)
	if len(metadata) > 0 {
		for k, v := range metadata {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return fmt.Errorf("safetensors: write: metadata %q: %q is not valid UTF-8", k, v)
			}
		}
		fields[metaKey] = metadata
	}
	at := int64(0)
	for _, e := range entries {
		if err := e.check(); err != nil {
			return fmt.Errorf("safetensors: write: tensor %q: %w", e.Name, err)
		}
		if _, dup := fields[e.Name]; dup {
			return fmt.Errorf("safetensors: write: the name %q stands twice", e.Name)
		}
		end := at + int64(len(e.Data))
		fields[e.Name] = field{e.DType, append([]int{}, e.Shape...), [2]int64{at, end}}
		at = end
	}
	var header bytes.Buffer
	header.Write(make([]byte, 8))
	enc := json.NewEncoder(&header)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(fields); err != nil { // sorts the keys
		return fmt.Errorf("safetensors: write: %w", err)
	}
	header.Truncate(header.Len() - 1) // Encode ends with a newline
	for header.Len()%8 != 0 {
		header.WriteByte(' ')
	}
	if header.Len()-8 > maxHeader {
		return fmt.Errorf("safetensors: write: a header of %d bytes, allowed are %d; write fewer tensors", header.Len()-8, maxHeader)
	}
	binary.LittleEndian.PutUint64(header.Bytes(), uint64(header.Len()-8))
	if _, err := w.Write(header.Bytes()); err != nil {
		return fmt.Errorf("safetensors: write: %w", err)
	}
	for _, e := range entries {
		if _, err := w.Write(e.Data); err != nil {
			return fmt.Errorf("safetensors: write: tensor %q: %w", e.Name, err)
		}
	}
	return nil
}

func (e Entry) check() error {
	width, ok := sizes[e.DType]
	if !ok {
		return fmt.Errorf("dtype %q is unknown", e.DType)
	}
	if !utf8.ValidString(e.Name) || e.Name == metaKey {
		return fmt.Errorf("the name is not allowed")
	}
	if len(e.Shape) > maxDims {
		return fmt.Errorf("%d dimensions, allowed are %d", len(e.Shape), maxDims)
	}
	need := int64(width)
	for _, d := range e.Shape {
		if d < 0 || d > 0 && need > math.MaxInt64/int64(d) {
			return fmt.Errorf("shape %v is impossible", e.Shape)
		}
		need *= int64(d)
	}
	if need != int64(len(e.Data)) {
		return fmt.Errorf("shape %v of %s needs %d bytes, %d are given", e.Shape, e.DType, need, len(e.Data))
	}
	return nil
}

// F32Bytes gives the little-endian bytes of x, the Data of an F32 entry.
func F32Bytes(x []float32) []byte {
	out := make([]byte, 4*len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint32(out[4*i:], math.Float32bits(v))
	}
	return out
}
