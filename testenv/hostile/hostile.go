// Package hostile holds parsers to their bounds in fuzz tests: an input of n bytes may cost so much memory and so much
// time, and no more. A parser that hangs or that trusts a count in a file is found by it even when it never panics.
//
// It knows nothing of what is parsed. Start reading at Bounds.Hold.
package hostile

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// Bounds is what one input may cost.
type Bounds struct {
	// Base is how many bytes may be allocated whatever the input; 0 means 1 MiB.
	Base uint64
	// PerByte is how many more bytes may be allocated for each byte of input; 0 means 64. Counted is all that is
	// allocated during the work, also what is collected before its end.
	PerByte uint64
	// Time is how long the work may take; 0 means 10 s, far above what any input of a fuzz test needs.
	Time time.Duration
}

// exit ends a process whose work does not come back: nothing else reaches a loop that never ends. Tests replace it.
var exit = func() { os.Exit(2) }

// Hold does the work on an input of n bytes and fails the test when it cost too much. Work that outlives its time
// does not come back by itself, so the process prints all its stacks and ends: go's fuzzing then keeps the input.
func (b Bounds) Hold(t testing.TB, n int, work func()) {
	t.Helper()
	limit := cmp.Or(b.Base, 1<<20) + cmp.Or(b.PerByte, 64)*uint64(n)
	most := cmp.Or(b.Time, 10*time.Second)
	alarm := time.AfterFunc(most, func() {
		buf := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "hostile: an input of %d bytes took more than %v\n%s\n", n, most, buf[:runtime.Stack(buf, true)])
		exit()
	})
	defer alarm.Stop()
	before := allocated()
	work()
	if used := allocated() - before; used > limit {
		t.Errorf("an input of %d bytes made the work allocate %d bytes, the bound is %d", n, used, limit)
		debug.FreeOSMemory() // so that the next input is judged alone
	}
}

// allocated counts the bytes that the process has allocated so far.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
