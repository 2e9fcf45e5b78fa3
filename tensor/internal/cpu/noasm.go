//go:build !amd64 || purego

package cpu

func assembly() []*Kernels { return nil }

func pause() {}
