package cpu

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// adviseHuge asks for huge pages on the part of b that can have them. It is a
// hint: a kernel that refuses costs speed only.
func adviseHuge(b []byte) {
	o := int(-uintptr(unsafe.Pointer(&b[0])) & (hugePage - 1))
	n := (len(b) - o) &^ (hugePage - 1)
	if n > 0 {
		_ = unix.Madvise(b[o:o+n], unix.MADV_HUGEPAGE)
	}
}
