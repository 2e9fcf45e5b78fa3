package hostile

import (
	"testing"
	"time"
)

var sink []byte

// failing records that a test would have failed.
type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Helper()               {}
func (f *failing) Errorf(string, ...any) { f.failed = true }

func TestHoldMemory(t *testing.T) {
	for _, c := range []struct {
		bounds    Bounds
		n, allocs int
		fails     bool
	}{
		{Bounds{}, 0, 1 << 10, false},
		{Bounds{}, 0, 4 << 20, true},
		{Bounds{}, 1 << 20, 4 << 20, false},
		{Bounds{Base: 8 << 20}, 0, 4 << 20, false},
		{Bounds{Base: 1 << 10, PerByte: 1}, 1000, 64 << 10, true},
	} {
		f := &failing{TB: t}
		c.bounds.Hold(f, c.n, func() { sink = make([]byte, c.allocs) })
		if f.failed != c.fails {
			t.Errorf("%+v: %d bytes of input, %d allocated: failed %v", c.bounds, c.n, c.allocs, f.failed)
		}
	}
}

func TestHoldTime(t *testing.T) {
	ended := make(chan bool, 1)
	old := exit
	exit = func() { ended <- true }
	t.Cleanup(func() { exit = old })
	Bounds{Time: time.Millisecond}.Hold(t, 1, func() {
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("work that does not come back was not noticed")
		}
	})
}
