package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Numbers of the metadata value types.
const (
	typeU8 = iota
	typeI8
	typeU16
	typeI16
	typeU32
	typeI32
	typeF32
	typeBool
	typeString
	typeArray
	typeU64
	typeI64
	typeF64
)

// width is the size in bytes of a value type; a string has at least its 8 bytes of length, 0 means unknown.
var width = [...]int{typeU8: 1, typeI8: 1, typeU16: 2, typeI16: 2, typeU32: 4, typeI32: 4, typeF32: 4, typeBool: 1,
	typeString: 8, typeArray: 0, typeU64: 8, typeI64: 8, typeF64: 8}

// value reads one metadata value of the given type.
func (h *header) value(kind uint32) (any, error) {
	if kind == typeArray {
		return h.array()
	}
	if kind >= uint32(len(width)) {
		return nil, fmt.Errorf("value type %d is unknown; the file is damaged or newer than this program", kind)
	}
	if kind == typeString {
		return h.string(maxHeader)
	}
	b := h.b[:width[kind]]
	if err := h.bytes(b); err != nil {
		return nil, err
	}
	switch kind {
	case typeU8, typeU16, typeU32, typeU64:
		return unsigned(b), nil
	case typeI8, typeI16, typeI32, typeI64:
		return signed(b), nil
	case typeF32, typeF64:
		return float(b), nil
	}
	return truth(b[0])
}

// array reads an array. Arrays of arrays are refused, as ggml does: so a file can not make us recurse.
func (h *header) array() (any, error) {
	kind, err := h.u32()
	if err != nil {
		return nil, err
	}
	if kind == typeArray {
		return nil, fmt.Errorf("an array of arrays is not supported; no known model has one, the file may be damaged")
	}
	if kind >= uint32(len(width)) {
		return nil, fmt.Errorf("array element type %d is unknown; the file is damaged or newer than this program", kind)
	}
	h.elem = kind
	n, err := h.count(uint64(width[kind]))
	if err != nil {
		return nil, err
	}
	switch kind {
	case typeString:
		return fill(n, func(int) (string, error) { return h.string(maxHeader) })
	case typeBool:
		return fill(n, func(int) (bool, error) {
			if err := h.bytes(h.b[:1]); err != nil {
				return false, err
			}
			return truth(h.b[0])
		})
	case typeF32, typeF64:
		return fill(n, func(int) (float64, error) {
			b := h.b[:width[kind]]
			err := h.bytes(b)
			return float(b), err
		})
	case typeI8, typeI16, typeI32, typeI64:
		return fill(n, func(int) (int64, error) {
			b := h.b[:width[kind]]
			err := h.bytes(b)
			return signed(b), err
		})
	}
	return fill(n, func(i int) (int64, error) {
		b := h.b[:width[kind]]
		if err := h.bytes(b); err != nil {
			return 0, err
		}
		u := unsigned(b)
		if u > math.MaxInt64 {
			return 0, fmt.Errorf("element %d is %d, more than 63 bits can hold", i, u)
		}
		return int64(u), nil
	})
}

func fill[T any](n int, read func(i int) (T, error)) ([]T, error) {
	out := make([]T, n)
	for i := range out {
		v, err := read(i)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

func unsigned(b []byte) uint64 {
	var w [8]byte
	copy(w[:], b)
	return binary.LittleEndian.Uint64(w[:])
}

func signed(b []byte) int64 {
	shift := 64 - 8*len(b)
	return int64(unsigned(b)<<shift) >> shift
}

func float(b []byte) float64 {
	if len(b) == 4 {
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

func truth(b byte) (bool, error) {
	if b > 1 {
		return false, fmt.Errorf("a truth value is %d, it must be 0 or 1; the file is damaged, download it again", b)
	}
	return b == 1, nil
}
