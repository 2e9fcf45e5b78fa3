//go:build !linux

package main

import "time"

// processorTime is the wall clock where there is no better one.
func processorTime() time.Duration { return time.Since(start) }
