package heartbeat

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// ErrStalled is the cause of the work's context when Options.Progress stood still for too long. Another attempt starts.
var ErrStalled = errors.New("the work makes no progress")

// DefaultStall is the default of Options.Stall.
const DefaultStall = 10 * time.Minute

// outcome is how work came back.
type outcome struct {
	err      error
	returned bool // false: it panicked
	panicked any
	stack    []byte
}

// watched does the work and watches its progress. When that stands still for o.Stall, it ends the work's context; work
// that does not return within leave after that is left behind, so that its slot is free to say so. Beats that go out
// from another goroutine would otherwise keep a hung attempt alive for ever.
func (o Options) watched(ctx context.Context, end context.CancelCauseFunc, leave time.Duration, work func(context.Context) error) error {
	done, stalled := make(chan outcome, 1), make(chan struct{})
	go func() {
		var r outcome
		defer func() {
			if !r.returned {
				r.panicked, r.stack = recover(), debug.Stack()
			}
			done <- r
		}()
		r.err = work(ctx)
		r.returned = true
	}()
	over := make(chan struct{})
	defer close(over)
	go func() {
		if o.stalls(over, end) {
			close(stalled)
		}
	}()
	var r outcome
	select {
	case r = <-done:
	case <-stalled:
		select {
		case r = <-done:
		case <-time.After(leave):
			return context.Cause(ctx)
		}
	}
	if !r.returned {
		panic(fmt.Sprintf("%v\n%s", r.panicked, r.stack)) // where the SDK expects it
	}
	return r.err
}

// stalls waits until the work is over (false) or its progress stood still for too long (true), and then ends its context.
// It goes on when the context ended for another reason: cancelled work may hang as well.
func (o Options) stalls(over <-chan struct{}, end context.CancelCauseFunc) bool {
	limit := cmp.Or(o.Stall, DefaultStall)
	tick := time.NewTicker(max(limit/20, time.Millisecond))
	defer tick.Stop()
	last, since := o.Progress(), time.Now()
	for {
		select {
		case <-over:
			return false
		case <-tick.C:
		}
		if n := o.Progress(); n != last {
			last, since = n, time.Now()
			continue
		}
		if time.Since(since) < limit {
			continue
		}
		at := ""
		if o.Details != nil {
			if b, err := json.Marshal(o.Details()); err == nil {
				at = fmt.Sprintf(" (it stands at %s)", b)
			}
		}
		end(fmt.Errorf("%w: nothing was done for %v%s; the attempt ends and is tried again", ErrStalled, limit, at))
		return true
	}
}
