//go:build unix

package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// line is what is printed. CPU time leaves waiting for a core out, and is the steadier
// figure on a busy machine.
type line struct {
	Work        string  `json:"work"`
	Variant     string  `json:"variant"`
	Weights     string  `json:"weights"`
	Threads     int     `json:"threads"`
	LoadSeconds float64 `json:"load_seconds"`
	Tokens      int     `json:"tokens"`
	Seconds     float64 `json:"seconds"`
	CPUSeconds  float64 `json:"cpu_seconds"`
	PeakMB      float64 `json:"peak_mb"` // of the work, model included; 0 where the system does not tell
	// Decoding alone: from when every row has its first token to the end.
	DecodeTokens  int     `json:"decode_tokens,omitempty"`
	DecodeSeconds float64 `json:"decode_seconds,omitempty"`
}

// measure times work that makes or takes so many tokens.
func measure(tokens int, work func() error) (line, error) {
	start, cpu := time.Now(), cpuSeconds()
	if err := work(); err != nil {
		return line{}, err
	}
	return line{Tokens: tokens, Seconds: time.Since(start).Seconds(), CPUSeconds: cpuSeconds() - cpu, PeakMB: peakMB()}, nil
}

// timed runs step once to warm up and then measures it so many times. The peak is that
// of the warm-up too: it is of the same size.
func timed(steps, tokens int, step func() error) (line, error) {
	resetPeak()
	if err := step(); err != nil {
		return line{}, err
	}
	return measure(steps*tokens, func() error {
		for range steps {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	})
}

// cpuSeconds is what all threads of this process have used.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it cannot fail with these arguments
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// resetPeak gives freed memory back and, where the system allows it, forgets the
// greatest resident size so far: what loading took is not part of the work.
func resetPeak() {
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // elsewhere the peak includes loading
}

// peakMB is the largest resident size since resetPeak, where the system tells it, or 0.
func peakMB() float64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(data)) {
		var kb float64
		if _, err := fmt.Sscanf(l, "VmHWM: %f kB", &kb); err == nil {
			return kb / 1024
		}
	}
	return 0
}
