package workers

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/opencharacter/opencharacter/activities"
)

// TestPatience: a worker that lacks a model asks for no more work for a while, longer each time; success ends that.
func TestPatience(t *testing.T) {
	p := newPatience(1)
	free := func() bool { // an ended context takes a slot only where none has to be waited for
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := p.ReserveSlot(ctx, nil)
		if err == nil {
			p.ReleaseSlot(nil)
		}
		return err == nil
	}
	if !free() {
		t.Fatal("a new worker has no slot")
	}
	lacks := temporal.NewApplicationError("no such model", activities.NotHere)
	for _, want := range []time.Duration{15 * time.Second, 30 * time.Second, time.Minute, time.Minute} {
		p.heard(lacks)
		if p.pause != want || free() {
			t.Errorf("pause %v, want %v; a slot is free: %v", p.pause, want, free())
		}
	}
	if len(p.taken) != 0 {
		t.Error("a slot that was not used is not given back")
	}
	p.heard(errors.New("something else"))
	if p.pause != longestPause {
		t.Error("another failure ends the pause")
	}
	p.heard(nil)
	p.until = time.Time{}
	if p.pause != 0 || !free() {
		t.Errorf("after a success the pause is %v", p.pause)
	}
	if _, err := p.tuner(); err != nil {
		t.Error(err)
	}
}
