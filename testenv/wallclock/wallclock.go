// Package wallclock sets the wall clock of single processes, so that tests can let it jump without touching the
// machine's.
//
// Linux has name spaces for the clocks that only count, but none for the time of day, and a Go program without cgo takes no preloaded
// library. It asks for the time by a function that the kernel maps into each process (the vDSO); Shift writes another
// one over it in the memory of the target process alone. Start reading at Shift.
package wallclock

import "errors"

// ErrUnsupported: this system or processor is not served, or the process may not be changed.
var ErrUnsupported = errors.New("wallclock: the clock of a process cannot be shifted here")
