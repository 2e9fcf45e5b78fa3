// Package faultproxy stands between a program and its servers and does to their calls what networks and overloaded
// servers do: lost answers, errors, stalls, torn uploads, stale reads, cut and refused connections.
//
// S3 is an HTTP proxy that knows requests, TCP one that knows only bytes (for Temporal's gRPC). What happens to a call
// follows from the seed and the call's number alone. It knows nothing of what it carries beyond that; S3 keeps bodies in
// memory, so it is for tests. Start reading at NewS3.
package faultproxy

import (
	"fmt"
	"hash/fnv"
	"maps"
	"sync"
	"time"
)

// Kinds of faults of S3.
const (
	Lost    = "lost"    // the server has done it, the connection ends without an answer
	Refused = "refused" // 500, 503 or 429, with or without a body; the server never saw it
	Lied    = "lied"    // the server has done it, the answer is a 500
	Slow    = "slow"    // a late answer
	Stalled = "stalled" // half the answer, silence, then the rest
	Cut     = "cut"     // half the answer, then the connection ends
	Torn    = "torn"    // half the upload reaches the server, then both connections end
	Stale   = "stale"   // an earlier answer for an object that changes
)

// S3Kinds lists them.
func S3Kinds() []string { return []string{Lost, Refused, Lied, Slow, Stalled, Cut, Torn, Stale} }

// Kinds of faults of TCP.
const (
	Dropped = "dropped" // all connections end at once
	Away    = "away"    // all connections end and new ones are refused for a while
	Silent  = "silent"  // nothing passes for a while
)

// Options of a proxy.
type Options struct {
	Seed uint64
	// Rate is the share of calls that something happens to, 0 to 1. S3 only.
	Rate float64
	// Kinds of faults; empty: all. S3 only.
	Kinds []string
	// Stall is the silence of a stalled answer, and the longest delay of a slow one; 0 is a second. S3 only.
	Stall time.Duration
	// Every is the mean time between two faults; 0 is 3 seconds. TCP only.
	Every time.Duration
	// Longest is the longest outage; 0 is 3 seconds. TCP only.
	Longest time.Duration
}

// draw is a random number of [0, 1) that depends on seed, name and number only.
func draw(seed uint64, name string, n int64) float64 {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%d/%s/%d", seed, name, n) // never fails
	x := h.Sum64()                                   // FNV's high bits are poor: mix as splitmix64 does
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return float64((x^x>>31)>>11) / (1 << 53)
}

// counter counts faults by kind.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counter) add(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[kind]++
}

// Counts is how often each kind of fault happened so far, and "calls" (of TCP: "connections").
func (c *counter) Counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}
