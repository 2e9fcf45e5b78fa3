// Package gguf reads GGUF model files, versions 2 and 3, the format of ggml and llama.cpp, and writes version 3.
//
// It knows the container (metadata keys, the tensor table, alignment) and the block formats of the
// common tensor types, and widens a row of weights to float32 exactly as ggml defines it. It does not
// know what a key or a tensor means: names, permutations and tokenizers belong to its callers.
//
// Start at [Open], then [File.ReadRow], or [File.ReadBlocks] for the stored integers; at [Write] for output. A file is never trusted: every size, count and offset is
// checked against the size of the file before anything is allocated for it.
package gguf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// File is an open GGUF file. Its fields are for reading only.
type File struct {
	// Meta holds the metadata. A value is a string, bool, int64 (signed integers), uint64 (unsigned
	// integers), float64, or for arrays []string, []bool, []int64 (all integers) or []float64.
	Meta map[string]any
	// Tensors is the tensor table by name.
	Tensors map[string]TensorInfo
	// Order lists the names of the tensors as they stand in the file.
	Order []string

	src    io.ReaderAt
	closer io.Closer
	pairs  []Pair
	spans  map[string]span
	pool   sync.Pool // of *window
}

// TensorInfo describes one tensor.
type TensorInfo struct {
	Name string
	Type string // "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K" or "Q6_K"
	// Shape is row-major, outermost dimension first: a matrix of a linear layer is [out, in]. (The
	// file itself stores the innermost dimension first.)
	Shape []int
}

// Rows is the number of rows: the product of all dimensions but the innermost; 1 for a vector.
func (t TensorInfo) Rows() int {
	n := 1
	for _, d := range t.Shape[:len(t.Shape)-1] {
		n *= d
	}
	return n
}

// Cols is the length of a row: the innermost dimension.
func (t TensorInfo) Cols() int { return t.Shape[len(t.Shape)-1] }

// span is where a tensor lies and how its rows are stored.
type span struct {
	offset   int64 // from the start of the file
	rowBytes int64
	rows     int
	cols     int
	format   format
}

// Open reads the header of the file at path and keeps the file open for [File.ReadRow]. Close it when
// all weights are read.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("gguf: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("gguf: %s: %w; give the path of a .gguf file", path, err), f.Close())
	}
	g, err := parse(f, st.Size())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("gguf: %s: %w", path, err), f.Close())
	}
	g.closer = f
	return g, nil
}

// Parse reads a GGUF file that lies in memory. The returned File keeps data.
func Parse(data []byte) (*File, error) {
	g, err := parse(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("gguf: %w", err)
	}
	return g, nil
}

// Close closes the underlying file. ReadRow fails after it.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// ReadRow reads row number row of a tensor, widened to float32, into dst, whose length must be the
// tensor's innermost dimension. A vector is row 0; a tensor of more than two dimensions counts its rows
// in storage order. Calls may run concurrently.
func (f *File) ReadRow(name string, row int, dst []float32) error {
	return f.readRow(name, row, len(dst), func(s span, raw []byte) error {
		s.format.widen(dst, raw)
		return nil
	})
}

// readRow calls use with the stored bytes of a row, which are good during the call.
func (f *File) readRow(name string, row, cols int, use func(s span, raw []byte) error) error {
	s, ok := f.spans[name]
	switch {
	case !ok:
		return fmt.Errorf("gguf: the file has no tensor %q; is this the right architecture?", name)
	case row < 0 || row >= s.rows:
		return fmt.Errorf("gguf: tensor %q: row %d of %d", name, row, s.rows)
	case cols != s.cols:
		return fmt.Errorf("gguf: tensor %q: rows have %d weights, the caller wants %d", name, s.cols, cols)
	}
	w, _ := f.pool.Get().(*window)
	if w == nil {
		w = new(window)
	}
	defer f.pool.Put(w)
	raw, err := w.row(f.src, s, row)
	if errors.Is(err, io.EOF) {
		err = errors.New("the file became shorter while it was open; download it again")
	}
	if err == nil {
		err = use(s, raw)
	}
	if err != nil {
		return fmt.Errorf("gguf: tensor %q: row %d: %w", name, row, err)
	}
	return nil
}

// window is a piece of the file in memory. Rows are small and read in order, so one system call
// fetches many of them.
type window struct {
	start int64
	data  []byte
}

// readAhead is the size of a window, unless one row is longer.
const readAhead = 128 << 10

// row returns the stored bytes of one row; they are good until the next call.
func (w *window) row(src io.ReaderAt, s span, row int) ([]byte, error) {
	at := s.offset + int64(row)*s.rowBytes
	if from := at - w.start; from >= 0 && from+s.rowBytes <= int64(len(w.data)) {
		return w.data[from:][:s.rowBytes], nil
	}
	n := max(s.rowBytes, min(readAhead, s.rowBytes*int64(s.rows-row)))
	if int64(cap(w.data)) < n {
		w.data = make([]byte, n)
	}
	w.start, w.data = at, w.data[:n]
	if _, err := src.ReadAt(w.data, at); err != nil {
		w.data = w.data[:0]
		return nil, err
	}
	return w.data[:s.rowBytes], nil
}
