package main

import (
	"fmt"
	"io"
	"time"

	"github.com/opencharacter/opencharacter/activities"
)

// jumped is from how far on a difference between the clock and the time that has really passed is told: half of the
// shortest heartbeat timeout. What NTP does bit by bit stays below.
const jumped = 10 * time.Second

// jump tells how far the wall clock was set, or the machine slept, between two readings of time.Now: each holds a
// reading of a clock too that nobody can set.
func jump(before, now time.Time) time.Duration {
	return now.Round(0).Sub(before.Round(0)) - now.Sub(before)
}

// clockNews is the line about a jump; "" when it is none.
func clockNews(by time.Duration) string {
	switch {
	case by >= jumped:
		return fmt.Sprintf("the clock went %v ahead, or the machine slept: work under way is taken for timed out, and its present chunk or segment is done again", by.Round(time.Second))
	case by <= -jumped:
		return fmt.Sprintf("the clock was set back by %v: Temporal's timers ring that much later, so runs may stand still until the clock is there again; nothing is lost. To go on at once: stop this, rename the folder temporal of the data directory, then `character repair`", by.Abs().Round(time.Second))
	}
	return ""
}

// watchClock says when the clock of this machine jumps. Nothing we compute or commit goes by it, but the embedded Temporal
// server's timers do.
func watchClock(warn io.Writer, done <-chan struct{}) {
	if warn == nil {
		return
	}
	for before := time.Now(); ; {
		select {
		case <-done:
			return
		case <-time.After(2 * time.Second):
		}
		now := time.Now()
		if news := clockNews(jump(before, now)); news != "" {
			fmt.Fprintf(warn, "\ncharacter: %s\n", news)
		}
		before = now
	}
}

// checkFuture finds objects that were written later than it is now by the clock of their server: that clock was set back since,
// and the timers of a Temporal server on the same machine with it.
func checkFuture(v *activities.Inventory, now time.Time) []finding {
	var newest time.Time
	for _, o := range v.Objects {
		if o.Modified.After(newest) {
			newest = o.Modified
		}
	}
	ahead := newest.Sub(now).Round(time.Second)
	if ahead <= maxSkew {
		return nil
	}
	return []finding{{"clocks", levelNote, fmt.Sprintf("the newest object was written %v from now: the clock was set back since", ahead),
		"nothing is lost; a run that stands still goes on when the clock is there again, or at once without Temporal's file: stop `character up`, rename the folder temporal of the data directory, `character repair`"}}
}
