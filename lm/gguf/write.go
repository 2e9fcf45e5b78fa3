package gguf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// Pair is one metadata key with its value and the type under which it stands in a file. Make one with [Text],
// [Uint32], [Float32], [Bool], [Texts], [Int32s] or [Float32s], or take those of an open file from [File.Pairs].
type Pair struct {
	Key   string
	Value any // as in [File.Meta]

	kind, elem uint32
}

// Pairs lists the metadata in the order of the file. Written again, each has the type that it had.
func (f *File) Pairs() []Pair { return append([]Pair(nil), f.pairs...) }

// Text is a pair of type string.
func Text(key, v string) Pair { return Pair{Key: key, Value: v, kind: typeString} }

// Uint32 is a pair of type uint32, what llama.cpp takes dimensions and token ids from.
func Uint32(key string, v uint32) Pair { return Pair{Key: key, Value: uint64(v), kind: typeU32} }

// Float32 is a pair of type float32.
func Float32(key string, v float32) Pair { return Pair{Key: key, Value: float64(v), kind: typeF32} }

// Bool is a pair of type bool.
func Bool(key string, v bool) Pair { return Pair{Key: key, Value: v, kind: typeBool} }

// Texts is an array of strings.
func Texts(key string, v []string) Pair {
	return Pair{Key: key, Value: v, kind: typeArray, elem: typeString}
}

// Int32s is an array of int32; other numbers are an error of [Write].
func Int32s(key string, v []int64) Pair {
	return Pair{Key: key, Value: v, kind: typeArray, elem: typeI32}
}

// Float32s is an array of float32; the values are rounded.
func Float32s(key string, v []float64) Pair {
	return Pair{Key: key, Value: v, kind: typeArray, elem: typeF32}
}

// Tensor is one tensor to write. Row fills dst, as long as the innermost dimension, with row r of it; rows are asked
// for once each, in order.
type Tensor struct {
	Name  string
	Type  string // "F32", "BF16" or "Q8_0"
	Shape []int  // row-major, outermost dimension first
	Row   func(r int, dst []float32) error
}

// alignment of tensor data: the default of the format.
const alignment = 32

// Write writes a GGUF file of version 3, tensor by tensor and row by row: at no time is more than one row in memory. The
// bytes depend on the pairs and the tensors and on their order only.
func Write(w io.Writer, pairs []Pair, tensors []Tensor) error {
	out := &output{w: bufio.NewWriterSize(w, 1<<20)}
	if err := out.header(pairs, tensors); err != nil {
		return fmt.Errorf("gguf: write: %w", err)
	}
	for _, t := range tensors {
		if err := out.tensor(t); err != nil {
			return fmt.Errorf("gguf: write: tensor %q: %w", t.Name, err)
		}
	}
	if err := out.w.Flush(); err != nil {
		return fmt.Errorf("gguf: write: %w", err)
	}
	return nil
}

// output counts what is written.
type output struct {
	w   *bufio.Writer
	pos int64
	b   []byte
}

func (o *output) put(b []byte) error {
	n, err := o.w.Write(b)
	o.pos += int64(n)
	return err
}

// pad fills up to the alignment.
func (o *output) pad() error { return o.put(make([]byte, padding(o.pos))) }

func padding(n int64) int64 { return (alignment - n%alignment) % alignment }

// header writes everything before the tensor data. It is small beside them, so it is made in memory.
func (o *output) header(pairs []Pair, tensors []Tensor) error {
	b := append([]byte("GGUF"), 3, 0, 0, 0)
	b = le.AppendUint64(b, uint64(len(tensors)))
	b = le.AppendUint64(b, uint64(len(pairs)))
	seen := map[string]bool{}
	for _, p := range pairs {
		if seen[p.Key] {
			return fmt.Errorf("key %q stands twice", p.Key)
		}
		seen[p.Key] = true
		if p.Key == "general.alignment" && p.Value != uint64(alignment) {
			return fmt.Errorf("general.alignment is %v; only %d is written", p.Value, alignment)
		}
		var err error
		if b, err = p.append(b); err != nil {
			return fmt.Errorf("key %q: %w", p.Key, err)
		}
	}
	clear(seen)
	at := int64(0)
	for _, t := range tensors {
		if seen[t.Name] {
			return fmt.Errorf("tensor %q stands twice", t.Name)
		}
		seen[t.Name] = true
		f, err := t.check()
		if err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		b = appendText(b, t.Name)
		b = le.AppendUint32(b, uint32(len(t.Shape)))
		for i := range t.Shape {
			b = le.AppendUint64(b, uint64(t.Shape[len(t.Shape)-1-i]))
		}
		b = le.AppendUint32(b, f.number)
		b = le.AppendUint64(b, uint64(at))
		at += t.bytes(f)
		at += padding(at)
	}
	if err := o.put(b); err != nil {
		return err
	}
	return o.pad()
}

// check refuses what a reader would refuse.
func (t Tensor) check() (format, error) {
	if t.Name == "" || len(t.Name) > 63 || strings.IndexByte(t.Name, 0) >= 0 { // ggml keeps 64 bytes with the zero
		return format{}, errors.New("a name has 1 to 63 bytes and no zero byte")
	}
	if len(t.Shape) < 1 || len(t.Shape) > maxDims {
		return format{}, fmt.Errorf("%d dimensions, allowed are 1 to %d", len(t.Shape), maxDims)
	}
	for _, d := range t.Shape {
		if d < 1 {
			return format{}, fmt.Errorf("shape %v is impossible", t.Shape)
		}
	}
	for _, f := range formats {
		if f.name != t.Type || pack(f.name) == nil {
			continue
		}
		if cols := t.Shape[len(t.Shape)-1]; cols%f.block != 0 {
			return format{}, fmt.Errorf("rows of %d weights are no multiple of the %d weights of a %s block", cols, f.block, f.name)
		}
		return f, nil
	}
	return format{}, fmt.Errorf("type %q is not written; F32, BF16 and Q8_0 are", t.Type)
}

// bytes is the size of the data.
func (t Tensor) bytes(f format) int64 {
	n := int64(f.bytes)
	for _, d := range t.Shape[:len(t.Shape)-1] {
		n *= int64(d)
	}
	return n * int64(t.Shape[len(t.Shape)-1]/f.block)
}

func (o *output) tensor(t Tensor) error {
	f, err := t.check()
	if err != nil {
		return err
	}
	info := TensorInfo{Shape: t.Shape}
	row, to := make([]float32, info.Cols()), pack(f.name)
	for r := range info.Rows() {
		if err := t.Row(r, row); err != nil {
			return fmt.Errorf("row %d: %w", r, err)
		}
		if o.b, err = to(o.b[:0], row); err != nil {
			return fmt.Errorf("row %d: %w", r, err)
		}
		if err := o.put(o.b); err != nil {
			return err
		}
	}
	return o.pad()
}

func appendText(b []byte, s string) []byte {
	return append(le.AppendUint64(b, uint64(len(s))), s...)
}

// append writes the pair.
func (p Pair) append(b []byte) ([]byte, error) {
	if p.Key == "" || len(p.Key) > maxKey {
		return nil, fmt.Errorf("a key has 1 to %d bytes", maxKey)
	}
	b = le.AppendUint32(appendText(b, p.Key), p.kind)
	if p.kind != typeArray {
		return appendValue(b, p.kind, p.Value)
	}
	b = le.AppendUint32(b, p.elem)
	switch list := p.Value.(type) {
	case []string:
		return appendEach(b, p.elem, list, func(v string) any { return v })
	case []bool:
		return appendEach(b, p.elem, list, func(v bool) any { return v })
	case []int64:
		return appendEach(b, p.elem, list, func(v int64) any { return v })
	case []float64:
		return appendEach(b, p.elem, list, func(v float64) any { return v })
	}
	return nil, fmt.Errorf("a list of type %T can not be written", p.Value)
}

func appendEach[T any](b []byte, kind uint32, list []T, value func(T) any) ([]byte, error) {
	b = le.AppendUint64(b, uint64(len(list)))
	for i, v := range list {
		var err error
		if b, err = appendValue(b, kind, value(v)); err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
	}
	return b, nil
}

// appendValue writes a single value of a type, or says that it is none of that type.
func appendValue(b []byte, kind uint32, value any) ([]byte, error) {
	switch v := value.(type) {
	case string:
		if kind == typeString {
			return appendText(b, v), nil
		}
	case bool:
		if kind == typeBool {
			if v {
				return append(b, 1), nil
			}
			return append(b, 0), nil
		}
	case float64:
		switch kind {
		case typeF32:
			return le.AppendUint32(b, math.Float32bits(float32(v))), nil
		case typeF64:
			return le.AppendUint64(b, math.Float64bits(v)), nil
		}
	case uint64:
		switch kind {
		case typeU8, typeU16, typeU32, typeU64:
			return appendInteger(b, kind, v, width[kind] == 8 || v>>(8*width[kind]) == 0)
		}
	case int64:
		switch kind {
		case typeI8, typeI16, typeI32, typeI64:
			shift := 64 - 8*width[kind]
			return appendInteger(b, kind, uint64(v), v<<shift>>shift == v)
		case typeU8, typeU16, typeU32, typeU64: // an element of a list
			return appendInteger(b, kind, uint64(v), v >= 0 && (width[kind] == 8 || v>>(8*width[kind]) == 0))
		}
	}
	return nil, fmt.Errorf("%T is no value of type number %d", value, kind)
}

func appendInteger(b []byte, kind uint32, v uint64, fits bool) ([]byte, error) {
	if !fits {
		return nil, fmt.Errorf("%d does not fit into %d bytes", int64(v), width[kind])
	}
	var word [8]byte
	le.PutUint64(word[:], v)
	return append(b, word[:width[kind]]...), nil
}
