package cpu

import (
	"math/bits"
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

// A model has hundreds of matrices that are too small for huge pages of their own, so
// they are cut from slabs. A slab is collected when all that was cut from it is.
const slabFloats = 4 << 20

var slab struct {
	mu   sync.Mutex
	free []float32
}

// halves returns n zeros for a weight, aligned to 64 bytes.
func halves(n int) []uint16 {
	need := (n + 2*chunk - 1) / (2 * chunk) * chunk
	var f []float32
	if need > slabFloats/4 {
		f = Floats(need)
	} else {
		slab.mu.Lock()
		if need > len(slab.free) {
			slab.free = Floats(slabFloats)
		}
		f, slab.free = slab.free[:need:need], slab.free[need:]
		slab.mu.Unlock()
	}
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(f))), n)
}

// buffer is scratch memory, kept between operations. Its contents are garbage.
type buffer struct{ f []float32 }

// buffers holds free buffers by size: those of class c hold 1<<c values.
var buffers [48]sync.Pool

// scratch returns at least n values.
func scratch(n int) *buffer {
	class := max(bits.Len(uint(max(n, 1)-1)), 10)
	if b, ok := buffers[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{Floats(1 << class)}
}

func (b *buffer) free() { buffers[bits.Len(uint(len(b.f)-1))].Put(b) }

// at is the address of s[i], also just past its end.
func at(s []float32, i int) unsafe.Pointer {
	return unsafe.Add(unsafe.Pointer(unsafe.SliceData(s)), 4*i)
}
