//go:build !amd64 || purego

package main

const hasVector = false

func vectors([]float32) float32 { panic("no vector loop on this processor") }
