//go:build unix

package estimate

import (
	"syscall"
	"time"
)

// cpu is the processor time of this process so far, in seconds; -1 where that is not told.
func cpu() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return -1
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
