package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The library sets memory aside for as many elements as a list in the metadata claims, before it reads one. checkLists walks
// over the metadata first (Thrift's compact protocol) and refuses lists that the bytes behind them can not hold.

// Types of the compact protocol.
const (
	thriftTrue = 1 + iota
	thriftFalse
	thriftByte
	thriftI16
	thriftI32
	thriftI64
	thriftDouble
	thriftBinary
	thriftList
	thriftSet
	thriftMap
	thriftStruct
	thriftUUID
)

const (
	maxThrift = 64 // structs, lists and maps within each other
	// leastStruct is how many bytes a struct in a list has at least: the shortest that Parquet knows, of ColumnOrder, has
	// three. It bounds what a list of nothing takes in memory.
	leastStruct = 3
)

var errThrift = errors.New("its metadata are damaged")

func checkLists(data []byte) error {
	w := thriftWalk{data: data}
	return w.structure(maxThrift)
}

// thriftWalk is at a place in the metadata.
type thriftWalk struct {
	data []byte
	at   int
}

func (w *thriftWalk) left() int { return len(w.data) - w.at }

func (w *thriftWalk) skip(n uint64) error {
	if n > uint64(w.left()) {
		return fmt.Errorf("%w: byte %d: %d bytes are claimed and %d are left", errThrift, w.at, n, w.left())
	}
	w.at += int(n)
	return nil
}

func (w *thriftWalk) byte() (byte, error) {
	if w.left() == 0 {
		return 0, fmt.Errorf("%w: they end in the middle", errThrift)
	}
	w.at++
	return w.data[w.at-1], nil
}

func (w *thriftWalk) varint() (uint64, error) {
	v, n := binary.Uvarint(w.data[w.at:])
	if n <= 0 {
		return 0, fmt.Errorf("%w: byte %d: no number", errThrift, w.at)
	}
	w.at += n
	return v, nil
}

func (w *thriftWalk) structure(deep int) error {
	if deep == 0 {
		return fmt.Errorf("%w: more than %d levels", errThrift, maxThrift)
	}
	for {
		b, err := w.byte()
		if err != nil || b == 0 {
			return err
		}
		if b>>4 == 0 { // the field's number stands behind it
			if _, err := w.varint(); err != nil {
				return err
			}
		}
		if t := b & 15; t != thriftTrue && t != thriftFalse { // which are their own value here, and a byte in a list
			if err := w.value(t, deep-1); err != nil {
				return err
			}
		}
	}
}

func (w *thriftWalk) value(t byte, deep int) error {
	switch t {
	case thriftTrue, thriftFalse, thriftByte:
		return w.skip(1)
	case thriftI16, thriftI32, thriftI64:
		_, err := w.varint()
		return err
	case thriftDouble:
		return w.skip(8)
	case thriftUUID:
		return w.skip(16)
	case thriftBinary:
		n, err := w.varint()
		if err != nil {
			return err
		}
		return w.skip(n)
	case thriftList, thriftSet:
		b, err := w.byte()
		if err != nil {
			return err
		}
		n := uint64(b >> 4)
		if n == 15 {
			if n, err = w.varint(); err != nil {
				return err
			}
		}
		return w.elements(n, deep, b&15)
	case thriftMap:
		n, err := w.varint()
		if err != nil || n == 0 {
			return err
		}
		b, err := w.byte()
		if err != nil {
			return err
		}
		return w.elements(n, deep, b>>4, b&15)
	case thriftStruct:
		return w.structure(deep)
	}
	return fmt.Errorf("%w: byte %d: type %d is not known", errThrift, w.at, t)
}

// elements walks over n times these types.
func (w *thriftWalk) elements(n uint64, deep int, types ...byte) error {
	least := uint64(0)
	for _, t := range types {
		if t == thriftStruct {
			least += leastStruct
		} else {
			least++
		}
	}
	if n > uint64(w.left())/least {
		return fmt.Errorf("%w: byte %d: %d elements are claimed and %d bytes are left", errThrift, w.at, n, w.left())
	}
	if deep == 0 {
		return fmt.Errorf("%w: more than %d levels", errThrift, maxThrift)
	}
	for range n {
		for _, t := range types {
			if err := w.value(t, deep-1); err != nil {
				return err
			}
		}
	}
	return nil
}
