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
	list := make([]Tensor, len(entries))
	for i, e := range entries {
		list[i] = Tensor{Name: e.Name, DType: e.DType, Shape: e.Shape, Data: func(w io.Writer) error {
			_, err := w.Write(e.Data)
			return err
		}}
		need, err := list[i].bytes()
		if err == nil && need != int64(len(e.Data)) {
			err = fmt.Errorf("shape %v of %s needs %d bytes, %d are given", e.Shape, e.DType, need, len(e.Data))
		}
		if err != nil {
			return fmt.Errorf("safetensors: write: tensor %q: %w", e.Name, err)
		}
	}
	return WriteTensors(w, list, metadata)
}

// Tensor is one tensor to write whose data need not be in memory.
type Tensor struct {
	Name, DType string
	Shape       []int
	Data        func(w io.Writer) error // writes the bytes, little-endian, as many as dtype and shape say
}

// WriteTensors writes the file that Write does; Data is called once for each tensor, in the order of the file.
func WriteTensors(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	tensors = slices.Clone(tensors)
	slices.SortFunc(tensors, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(sizes[b.DType], sizes[a.DType]), cmp.Compare(a.Name, b.Name))
	})
	header, err := encodeHeader(tensors, metadata)
	if err != nil {
		return fmt.Errorf("safetensors: write: %w", err)
	}
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("safetensors: write: %w", err)
	}
	for _, t := range tensors {
		need, err := t.bytes()
		c := counter{w: w}
		if err == nil {
			err = t.Data(&c)
		}
		if err == nil && c.n != need {
			err = fmt.Errorf("shape %v of %s needs %d bytes, %d were written", t.Shape, t.DType, need, c.n)
		}
		if err != nil {
			return fmt.Errorf("safetensors: write: tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

// counter counts the bytes that pass.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// encodeHeader returns everything before the data.
func encodeHeader(tensors []Tensor, metadata map[string]string) ([]byte, error) {
	type field struct {
		DType   string   `json:"dtype"`
		Shape   []int    `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	fields := make(map[string]any, len(tensors)+1)
	if len(metadata) > 0 {
		for k, v := range metadata {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return nil, fmt.Errorf("metadata %q: %q is not valid UTF-8", k, v)
			}
		}
		fields[metaKey] = metadata
	}
	at := int64(0)
	for _, t := range tensors {
		n, err := t.bytes()
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		if _, dup := fields[t.Name]; dup {
			return nil, fmt.Errorf("the name %q stands twice", t.Name)
		}
		fields[t.Name] = field{t.DType, append([]int{}, t.Shape...), [2]int64{at, at + n}}
		at += n
	}
	var header bytes.Buffer
	header.Write(make([]byte, 8))
	enc := json.NewEncoder(&header)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(fields); err != nil { // sorts the keys
		return nil, err
	}
	header.Truncate(header.Len() - 1) // Encode ends with a newline
	for header.Len()%8 != 0 {
		header.WriteByte(' ')
	}
	if header.Len()-8 > maxHeader {
		return nil, fmt.Errorf("a header of %d bytes, allowed are %d; write fewer tensors", header.Len()-8, maxHeader)
	}
	binary.LittleEndian.PutUint64(header.Bytes(), uint64(header.Len()-8))
	return header.Bytes(), nil
}

// bytes is the size of the data; an error says what a reader would refuse.
func (t Tensor) bytes() (int64, error) {
	width, ok := sizes[t.DType]
	if !ok {
		return 0, fmt.Errorf("dtype %q is unknown", t.DType)
	}
	if !utf8.ValidString(t.Name) || t.Name == metaKey {
		return 0, fmt.Errorf("the name is not allowed")
	}
	if len(t.Shape) > maxDims {
		return 0, fmt.Errorf("%d dimensions, allowed are %d", len(t.Shape), maxDims)
	}
	need := int64(width)
	for _, d := range t.Shape {
		if d < 0 || d > 0 && need > math.MaxInt64/int64(d) {
			return 0, fmt.Errorf("shape %v is impossible", t.Shape)
		}
		need *= int64(d)
	}
	return need, nil
}

// F32Bytes gives the little-endian bytes of x, the Data of an F32 entry.
func F32Bytes(x []float32) []byte {
	out := make([]byte, 4*len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint32(out[4*i:], math.Float32bits(v))
	}
	return out
}
