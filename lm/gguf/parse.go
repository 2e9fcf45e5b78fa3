package gguf

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Limits of a header. Real files stay far below them; they bound what a hostile file can make us allocate.
const (
	maxHeader     = 256 << 20 // bytes before the tensor data
	maxKey        = 1<<16 - 1 // bytes of a key, from the format's definition
	maxTensorName = 1024      // bytes; ggml itself allows 64
	maxDims       = 4
	maxAlignment  = 1 << 20
)

// parse reads the whole header and checks the tensor table.
func parse(src io.ReaderAt, size int64) (*File, error) {
	h := &header{
		r:     bufio.NewReaderSize(io.NewSectionReader(src, 0, min(size, maxHeader)), 1<<16),
		size:  size,
		limit: min(size, maxHeader),
	}
	var magic [4]byte
	if err := h.bytes(magic[:]); err != nil {
		return nil, fmt.Errorf("%w; this is not a GGUF file", err)
	}
	if string(magic[:]) != "GGUF" {
		return nil, fmt.Errorf("the file starts with %q, not with \"GGUF\": this is not a GGUF file; give the path of a .gguf file", magic[:])
	}
	version, err := h.u32()
	if err != nil {
		return nil, err
	}
	switch {
	case version == 2 || version == 3:
	case version&0xffff == 0:
		return nil, errors.New("the file is big-endian, which is not supported; use the little-endian file of the model")
	default:
		return nil, fmt.Errorf("format version %d is not supported (2 and 3 are); convert the model again with a current llama.cpp", version)
	}
	tensors, err := h.count(24) // a tensor's entry: name length 8, dimensions 4, type 4, offset 8
	if err != nil {
		return nil, fmt.Errorf("number of tensors: %w", err)
	}
	keys, err := h.count(13) // a key's entry: key length 8, type 4, value at least 1
	if err != nil {
		return nil, fmt.Errorf("number of metadata keys: %w", err)
	}
	f := &File{src: src, Meta: map[string]any{}, Tensors: map[string]TensorInfo{}, spans: map[string]span{}}
	for i := range keys {
		if err := h.pair(f); err != nil {
			return nil, fmt.Errorf("metadata key %d of %d: %w", i+1, keys, err)
		}
	}
	for i := range tensors {
		if err := h.tensor(f); err != nil {
			return nil, fmt.Errorf("tensor %d of %d: %w", i+1, tensors, err)
		}
	}
	if err := f.place(h.pos, size); err != nil {
		return nil, err
	}
	return f, nil
}

// pair reads one metadata key and its value.
func (h *header) pair(f *File) error {
	key, err := h.name(maxKey)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	if _, dup := f.Meta[key]; dup {
		return fmt.Errorf("%q stands twice in the file; download it again", key)
	}
	kind, err := h.u32()
	if err != nil {
		return fmt.Errorf("%q: %w", key, err)
	}
	v, err := h.value(kind)
	if err != nil {
		return fmt.Errorf("%q: %w", key, err)
	}
	f.Meta[key] = v
	p := Pair{Key: key, Value: v, kind: kind}
	if kind == typeArray {
		p.elem = h.elem
	}
	f.pairs = append(f.pairs, p)
	return nil
}

// tensor reads one entry of the tensor table; its offset is still relative to the data section.
func (h *header) tensor(f *File) error {
	name, err := h.name(maxTensorName)
	if err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if _, dup := f.Tensors[name]; dup {
		return fmt.Errorf("%q stands twice in the file; download it again", name)
	}
	dims, err := h.u32()
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	if dims < 1 || dims > maxDims {
		return fmt.Errorf("%q: %d dimensions, allowed are 1 to %d", name, dims, maxDims)
	}
	shape := make([]int, dims)
	weights := int64(1)
	for i := range shape {
		d, err := h.u64()
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		// No type needs less than half a byte a weight, so more than 2*size weights can not be there.
		if d < 1 || d > math.MaxInt64/4 || int64(d) > 2*h.size/weights {
			return fmt.Errorf("%q: dimension %d is %d, which does not fit into a file of %d bytes", name, i, d, h.size)
		}
		weights *= int64(d)
		shape[len(shape)-1-i] = int(d)
	}
	number, err := h.u32()
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	form, err := formatOf(number)
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	offset, err := h.u64()
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	if offset > uint64(h.size) {
		return fmt.Errorf("%q: starts at byte %d of the data, the file has %d bytes; it is truncated or damaged, download it again", name, offset, h.size)
	}
	info := TensorInfo{Name: name, Type: form.name, Shape: shape}
	if info.Cols()%form.block != 0 {
		return fmt.Errorf("%q: rows of %d weights are no multiple of the %d weights of a %s block", name, info.Cols(), form.block, form.name)
	}
	f.Tensors[name] = info
	f.Order = append(f.Order, name)
	f.spans[name] = span{
		offset: int64(offset), rows: info.Rows(), cols: info.Cols(),
		rowBytes: int64(info.Cols()/form.block) * int64(form.bytes), format: form,
	}
	return nil
}

// place turns the offsets into positions in the file and checks that every tensor is aligned, lies
// inside the file and overlaps no other.
func (f *File) place(headerEnd, size int64) error {
	align := int64(32)
	switch v := f.Meta["general.alignment"].(type) {
	case nil:
	case uint64:
		if v == 0 || v&(v-1) != 0 || v > maxAlignment {
			return fmt.Errorf("general.alignment is %d, it must be a power of two up to %d", v, maxAlignment)
		}
		align = int64(v)
	default:
		return fmt.Errorf("general.alignment is a %T, it must be an unsigned integer", v)
	}
	base := (headerEnd + align - 1) / align * align
	order := slices.Clone(f.Order)
	for _, name := range order {
		s := f.spans[name]
		if s.offset%align != 0 {
			return fmt.Errorf("tensor %q: offset %d is not aligned to %d bytes; the file is damaged, download it again", name, s.offset, align)
		}
		s.offset += base
		if end := s.offset + s.rowBytes*int64(s.rows); end > size {
			return fmt.Errorf("tensor %q: ends at byte %d, the file has only %d bytes: it is truncated; download it again", name, end, size)
		}
		f.spans[name] = s
	}
	slices.SortFunc(order, func(a, b string) int { return cmp.Compare(f.spans[a].offset, f.spans[b].offset) })
	for i := 1; i < len(order); i++ {
		a := f.spans[order[i-1]]
		if a.offset+a.rowBytes*int64(a.rows) > f.spans[order[i]].offset {
			return fmt.Errorf("tensors %q and %q overlap; the file is damaged, download it again", order[i-1], order[i])
		}
	}
	return nil
}

// header is a bounded cursor over the part of the file before the tensor data.
type header struct {
	r     *bufio.Reader
	pos   int64
	limit int64  // of the header
	size  int64  // of the file
	elem  uint32 // element type of the last array
	b     [8]byte
}

// need checks that n more bytes can be there, before anything is allocated for them.
func (h *header) need(n uint64) error {
	if left := uint64(h.limit - h.pos); n > left {
		if h.limit < h.size {
			return fmt.Errorf("needs %d bytes at byte %d, a header may have %d bytes at most; the file is damaged", n, h.pos, int64(maxHeader))
		}
		return fmt.Errorf("needs %d bytes at byte %d, only %d are left: the file is truncated or damaged; download it again", n, h.pos, left)
	}
	return nil
}

func (h *header) bytes(dst []byte) error {
	if err := h.need(uint64(len(dst))); err != nil {
		return err
	}
	n, err := io.ReadFull(h.r, dst)
	h.pos += int64(n)
	if err != nil {
		return fmt.Errorf("reading at byte %d: %w", h.pos, err)
	}
	return nil
}

func (h *header) u32() (uint32, error) {
	err := h.bytes(h.b[:4])
	return binary.LittleEndian.Uint32(h.b[:4]), err
}

func (h *header) u64() (uint64, error) {
	err := h.bytes(h.b[:8])
	return binary.LittleEndian.Uint64(h.b[:8]), err
}

// count reads a number of things of at least each bytes and checks that so many can follow.
func (h *header) count(each uint64) (int, error) {
	n, err := h.u64()
	if err != nil {
		return 0, err
	}
	if n > math.MaxInt64/each {
		return 0, fmt.Errorf("count %d at byte %d is impossible; the file is damaged, download it again", n, h.pos-8)
	}
	return int(n), h.need(n * each)
}

// name reads a key or a tensor's name.
func (h *header) name(limit uint64) (string, error) {
	s, err := h.string(limit)
	if strings.IndexByte(s, 0) >= 0 {
		return "", fmt.Errorf("the name %q holds a zero byte; the file is damaged, download it again", s)
	}
	return s, err
}

func (h *header) string(limit uint64) (string, error) {
	n, err := h.u64()
	if err != nil {
		return "", err
	}
	if n > limit {
		return "", fmt.Errorf("a text of %d bytes at byte %d, allowed are %d; the file is damaged, download it again", n, h.pos-8, limit)
	}
	if err := h.need(n); err != nil {
		return "", err
	}
	b := make([]byte, n)
	if err := h.bytes(b); err != nil {
		return "", err
	}
	return string(b), nil
}
