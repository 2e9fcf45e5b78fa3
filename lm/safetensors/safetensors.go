// Package safetensors reads and writes safetensors files, and reads models that are split over several
// such files by an index.
//
// It knows the container, the data types and how to widen F32, F16 and BF16 to float32. It does not
// know what a tensor means; names and shapes belong to its callers.
//
// Start at [Open] for one file, [OpenIndex] for a model folder, [Write] for output. A file is never
// trusted: the header's size, every shape and every offset is checked before anything is allocated.
package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// File is an open safetensors file. Its fields are for reading only.
type File struct {
	Tensors  map[string]Info
	Metadata map[string]string // of the key __metadata__; nil if there is none

	src    io.ReaderAt
	closer io.Closer
	spans  map[string]span
}

// Info describes one tensor.
type Info struct {
	DType string // "F32", "BF16", "F16", "F64", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64" or an 8-bit float
	Shape []int  // row-major; empty for a single number
}

// Elements is the number of elements: the product of the shape, 1 for a single number.
func (i Info) Elements() int {
	n := 1
	for _, d := range i.Shape {
		n *= d
	}
	return n
}

// Rows and Cols see the tensor as a matrix: Cols is the innermost dimension, Rows the product of the others.
func (i Info) Rows() int {
	n := 1
	for _, d := range i.Shape[:max(len(i.Shape)-1, 0)] {
		n *= d
	}
	return n
}

// Cols is the length of a row: the innermost dimension, 1 for a single number.
func (i Info) Cols() int {
	if len(i.Shape) == 0 {
		return 1
	}
	return i.Shape[len(i.Shape)-1]
}

// span is where a tensor's bytes lie in the file.
type span struct{ start, end int64 }

// sizes of the data types in bytes.
var sizes = map[string]int{
	"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
	"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
}

// Open reads the header of the file at path and keeps the file open until Close.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("safetensors: %s: %w; give the path of a .safetensors file", path, err), f.Close())
	}
	s, err := parse(f, st.Size())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("safetensors: %s: %w", path, err), f.Close())
	}
	s.closer = f
	return s, nil
}

// Parse reads a safetensors file that lies in memory. The returned File keeps data.
func Parse(data []byte) (*File, error) {
	s, err := parse(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	return s, nil
}

// Close closes the underlying file. Reads fail after it.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Raw reads the bytes of a tensor as they are stored, little-endian.
func (f *File) Raw(name string) ([]byte, error) {
	s, ok := f.spans[name]
	if !ok {
		return nil, missing(name)
	}
	return f.read(name, s.start, s.end-s.start)
}

// Floats reads a whole tensor of type F32, F16 or BF16, widened to float32 (exact).
func (f *File) Floats(name string) ([]float32, error) {
	s, ok := f.spans[name]
	if !ok {
		return nil, missing(name)
	}
	out := make([]float32, f.Tensors[name].Elements())
	return out, f.floats(name, s.start, out)
}

// ReadRow reads row number row of a tensor, widened to float32, into dst, whose length must be the
// innermost dimension. A vector is row 0; more than two dimensions count their rows in storage order.
// Calls may run concurrently.
func (f *File) ReadRow(name string, row int, dst []float32) error {
	s, ok := f.spans[name]
	if !ok {
		return missing(name)
	}
	info := f.Tensors[name]
	if row < 0 || row >= info.Rows() {
		return fmt.Errorf("safetensors: tensor %q: row %d of %d", name, row, info.Rows())
	}
	if len(dst) != info.Cols() {
		return fmt.Errorf("safetensors: tensor %q: rows have %d elements, the caller wants %d", name, info.Cols(), len(dst))
	}
	return f.floats(name, s.start+int64(row)*int64(info.Cols())*int64(sizes[info.DType]), dst)
}

// floats widens len(dst) elements that start at position start of the file.
func (f *File) floats(name string, start int64, dst []float32) error {
	dtype := f.Tensors[name].DType
	widen := widenF32
	switch dtype {
	case "F32":
	case "F16":
		widen = widenF16
	case "BF16":
		widen = widenBF16
	default:
		return fmt.Errorf("safetensors: tensor %q: has type %s, floating-point weights must be F32, F16 or BF16", name, dtype)
	}
	raw, err := f.read(name, start, int64(len(dst))*int64(sizes[dtype]))
	if err != nil {
		return err
	}
	widen(dst, raw)
	return nil
}

func (f *File) read(name string, start, n int64) ([]byte, error) {
	raw := make([]byte, n)
	if n == 0 {
		return raw, nil
	}
	if _, err := f.src.ReadAt(raw, start); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file became shorter while it was open; copy or download it again")
		}
		return nil, fmt.Errorf("safetensors: tensor %q: %w", name, err)
	}
	return raw, nil
}

func missing(name string) error {
	return fmt.Errorf("safetensors: there is no tensor %q; is this the right model?", name)
}

func widenF32(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

func widenBF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
	}
}

// widenF16 widens IEEE fp16; exact. The scaling by 2^112 moves the exponent's bias from 15 to 127 and
// normalises subnormal numbers.
func widenF16(dst []float32, src []byte) {
	for i := range dst {
		h := binary.LittleEndian.Uint16(src[2*i:])
		sign := uint32(h&0x8000) << 16
		bits := 0x7f800000 | uint32(h&0x3ff)<<13 // infinity or NaN: keep the payload
		if h&0x7c00 != 0x7c00 {
			bits = math.Float32bits(math.Float32frombits(uint32(h&0x7fff)<<13) * 0x1p112)
		}
		dst[i] = math.Float32frombits(sign | bits)
	}
}
