//go:build !(linux && amd64)

package wallclock

import "time"

// Shift is for Linux on amd64.
func Shift(int, time.Duration) error { return ErrUnsupported }
