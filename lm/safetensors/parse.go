package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

const (
	maxHeader = 100_000_000 // bytes, the limit of the reference implementation
	maxDims   = 16
	metaKey   = "__metadata__"
)

// parse reads and checks the header: 8 bytes of length, then JSON, then the data without a gap.
func parse(src io.ReaderAt, size int64) (*File, error) {
	var b [8]byte
	if size < 8 {
		return nil, fmt.Errorf("the file has %d bytes, a safetensors file has at least 8; download it again", size)
	}
	if _, err := src.ReadAt(b[:], 0); err != nil {
		return nil, fmt.Errorf("reading the header's length: %w", err)
	}
	n := binary.LittleEndian.Uint64(b[:])
	if n > maxHeader {
		return nil, fmt.Errorf("the header claims %d bytes, allowed are %d; this is not a safetensors file", n, maxHeader)
	}
	if int64(n) > size-8 {
		return nil, fmt.Errorf("the header claims %d bytes, the file has only %d after the length: it is truncated; download it again", n, size-8)
	}
	text := make([]byte, n)
	if n > 0 {
		if _, err := src.ReadAt(text, 8); err != nil {
			return nil, fmt.Errorf("reading the header: %w", err)
		}
	}
	f := &File{src: src, Tensors: map[string]Info{}, spans: map[string]span{}}
	if err := f.header(text); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return f, f.place(8+int64(n), size)
}

// header reads the JSON object of the header. encoding/json's Unmarshal would accept a key twice and
// ignore the case of field names, so we walk the tokens ourselves.
func (f *File) header(text []byte) error {
	if !utf8.Valid(text) {
		return errors.New("it is not valid UTF-8")
	}
	if len(text) == 0 || text[0] != '{' {
		return errors.New("it does not start with '{'; this is not a safetensors file")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	seenMeta := false
	err := object(d, func(name string) error {
		if name == metaKey {
			if seenMeta {
				return errors.New("stands twice")
			}
			seenMeta = true
			f.Metadata = map[string]string{}
			return object(d, func(key string) error {
				if _, dup := f.Metadata[key]; dup {
					return errors.New("stands twice")
				}
				v, err := textToken(d)
				f.Metadata[key] = v
				return err
			})
		}
		if _, dup := f.Tensors[name]; dup {
			return errors.New("stands twice")
		}
		info, s, err := entry(d)
		if err != nil {
			return err
		}
		f.Tensors[name], f.spans[name] = info, s
		return nil
	})
	if err != nil {
		return err
	}
	if rest := bytes.TrimRight(text[d.InputOffset():], " "); len(rest) > 0 {
		return fmt.Errorf("%d bytes stand after the closing brace", len(rest))
	}
	return nil
}

// entry reads one tensor's {"dtype", "shape", "data_offsets"}.
func entry(d *json.Decoder) (info Info, s span, err error) {
	var offsets []int64
	seen := map[string]bool{}
	err = object(d, func(key string) (err error) {
		if seen[key] {
			return errors.New("stands twice")
		}
		seen[key] = true
		switch key {
		case "dtype":
			info.DType, err = textToken(d)
		case "shape":
			var dims []int64
			dims, err = integers(d, maxDims)
			info.Shape = make([]int, len(dims))
			for i, v := range dims {
				info.Shape[i] = int(v)
			}
		case "data_offsets":
			offsets, err = integers(d, 2)
		default:
			err = errors.New("unknown field")
		}
		return err
	})
	if err != nil {
		return info, s, err
	}
	for _, key := range []string{"dtype", "shape", "data_offsets"} {
		if !seen[key] {
			return info, s, fmt.Errorf("field %q is missing", key)
		}
	}
	if len(offsets) != 2 || offsets[0] > offsets[1] {
		return info, s, fmt.Errorf("data_offsets %v are not a start and an end", offsets)
	}
	width, ok := sizes[info.DType]
	if !ok {
		return info, s, fmt.Errorf("dtype %q is not supported", info.DType)
	}
	bytes := int64(width)
	for _, v := range info.Shape {
		if v > 0 && bytes > math.MaxInt64/int64(v) {
			return info, s, fmt.Errorf("shape %v is impossibly large", info.Shape)
		}
		bytes *= int64(v)
	}
	if bytes != offsets[1]-offsets[0] {
		return info, s, fmt.Errorf("shape %v of %s needs %d bytes, data_offsets hold %d", info.Shape, info.DType, bytes, offsets[1]-offsets[0])
	}
	return info, span{offsets[0], offsets[1]}, nil
}

// place turns offsets into positions in the file and checks that the tensors fill the data exactly:
// no overlap, no hole, nothing behind the end.
func (f *File) place(base, size int64) error {
	names := slices.SortedFunc(maps.Keys(f.spans), func(a, b string) int {
		x, y := f.spans[a], f.spans[b]
		return cmp.Or(cmp.Compare(x.start, y.start), cmp.Compare(x.end, y.end), cmp.Compare(a, b))
	})
	at := int64(0)
	for _, name := range names {
		s := f.spans[name]
		switch {
		case s.end > size-base:
			return fmt.Errorf("tensor %q: ends at byte %d of the data, the file has only %d: it is truncated; download it again", name, s.end, size-base)
		case s.start < at:
			return fmt.Errorf("tensor %q: overlaps another; the file is damaged, download it again", name)
		case s.start > at:
			return fmt.Errorf("tensor %q: a hole of %d bytes stands before it; the file is damaged, download it again", name, s.start-at)
		}
		at = s.end
		f.spans[name] = span{base + s.start, base + s.end}
	}
	if at != size-base {
		return fmt.Errorf("%d bytes after the last tensor belong to nothing; the file is damaged, download it again", size-base-at)
	}
	return nil
}

// object walks a JSON object: each is called after every key and must read the value. An error names the key.
func object(d *json.Decoder, each func(key string) error) error {
	if err := delim(d, '{'); err != nil {
		return err
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok {
			return fmt.Errorf("%v stands where a key is expected", t)
		}
		if err := each(key); err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
	}
	return delim(d, '}')
}

func delim(d *json.Decoder, want json.Delim) error {
	t, err := d.Token()
	if errors.Is(err, io.EOF) {
		return errors.New("the JSON ends too early")
	}
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("%v stands where %v is expected", t, want)
	}
	return nil
}

func textToken(d *json.Decoder) (string, error) {
	t, err := d.Token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", fmt.Errorf("%v stands where a text is expected", t)
	}
	return s, nil
}

// integers reads an array of at most limit non-negative integers.
func integers(d *json.Decoder, limit int) ([]int64, error) {
	if err := delim(d, '['); err != nil {
		return nil, err
	}
	var out []int64
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		number, ok := t.(json.Number)
		if !ok {
			return nil, fmt.Errorf("%v stands where a number is expected", t)
		}
		v, err := strconv.ParseInt(number.String(), 10, 64)
		if err != nil || v < 0 {
			return nil, fmt.Errorf("%v is not a size", number)
		}
		if len(out) == limit {
			return nil, fmt.Errorf("more than %d numbers", limit)
		}
		out = append(out, v)
	}
	return out, delim(d, ']')
}
