//go:build !linux

package estimate

// peak is not told here.
func peak() int64 { return 0 }
