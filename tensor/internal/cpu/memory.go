package cpu

import (
	"sync"
	"unsafe"
)

const hugePage = 2 << 20

// Floats returns n zeros aligned to 64 bytes. Large blocks ask the system for
// huge pages, which are worth up to 40 % where memory is the limit.
func Floats(n int) []float32 {
	b := make([]float32, n+15)
	o := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b)))&63) / 4
	b = b[o : o+n : o+n]
	if 4*n >= 2*hugePage {
		adviseHuge(unsafe.Slice((*byte)(unsafe.Pointer(&b[0])), 4*n))
	}
	return b
}

func halves(n int) []uint16 {
	f := Floats((n + 1) / 2)
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(f))), n)
}

// buffer is scratch memory, kept between operations. Its contents are garbage.
type buffer struct{ f []float32 }

var buffers = sync.Pool{New: func() any { return new(buffer) }}

func scratch(n int) *buffer {
	b := buffers.Get().(*buffer)
	if len(b.f) < n {
		b.f = Floats(n + n/4)
	}
	return b
}

func (b *buffer) free() { buffers.Put(b) }

// at is the address of s[i], also just past its end.
func at(s []float32, i int) unsafe.Pointer {
	return unsafe.Add(unsafe.Pointer(unsafe.SliceData(s)), 4*i)
}
