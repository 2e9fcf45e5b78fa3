//go:build !purego

package main

import "golang.org/x/sys/cpu"

var hasVector = cpu.X86.HasAVX2

//go:noescape
func readVectors(p *float32, blocks int)

// vectors reads x in blocks of 64 values.
func vectors(x []float32) float32 {
	if n := len(x) / 64; n > 0 {
		readVectors(&x[0], n)
	}
	return 0
}
