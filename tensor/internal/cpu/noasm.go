//go:build !amd64 || purego

package cpu

func assembly() []*micro { return nil }

func pause() {}
