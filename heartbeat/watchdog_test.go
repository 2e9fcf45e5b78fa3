package heartbeat_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/opencharacter/opencharacter/heartbeat"
)

// watched executes one activity under the watchdog; its server answers every heartbeat.
func watched(t *testing.T, progress func() int64, work func(context.Context) error) error {
	t.Helper()
	s := &server{answer: func(int) error { return nil }}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{s}})
	o := heartbeat.Options{Every: 5 * time.Millisecond, Details: func() any { return 7 }, Progress: progress, Stall: 20 * time.Millisecond}
	act := func(ctx context.Context) error { return heartbeat.RunSending(ctx, s.record, o, work) }
	env.RegisterActivityWithOptions(act, activity.RegisterOptions{Name: "work"})
	_, err := env.ExecuteActivity("work")
	return err
}

func still() int64 { return 0 }

// Work that waits for something that never comes is ended although its heartbeats are answered.
func TestStalled(t *testing.T) {
	var cause error
	err := watched(t, still, func(ctx context.Context) error {
		defer func() { cause = context.Cause(ctx) }()
		return untilDone(ctx)
	})
	if !errors.Is(cause, heartbeat.ErrStalled) {
		t.Errorf("cause %v", cause)
	}
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.NonRetryable() || !strings.Contains(err.Error(), "no progress: nothing was done for 20ms (it stands at 7)") {
		t.Errorf("error %v", err)
	}
}

// Work that does not even look at its context is left behind.
func TestStalledForGood(t *testing.T) {
	free := make(chan struct{})
	left := make(chan struct{})
	err := watched(t, still, func(context.Context) error {
		defer close(left)
		<-free
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "no progress") {
		t.Errorf("error %v", err)
	}
	close(free)
	<-left
}

// A panic under the watchdog is the activity's own, with the stack of the work.
func TestPanicWatched(t *testing.T) {
	err := watched(t, still, func(context.Context) error { panic("shape") })
	var p *temporal.PanicError
	if !errors.As(err, &p) || !strings.Contains(err.Error(), "shape") || !strings.Contains(err.Error(), "TestPanicWatched") {
		t.Fatalf("error = %v", err)
	}
}

func TestOwnErrorWatched(t *testing.T) {
	err := watched(t, still, func(context.Context) error {
		return temporal.NewNonRetryableApplicationError("not finite", "NonFinite", nil)
	})
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != "NonFinite" {
		t.Fatalf("error = %v", err)
	}
}

// On a clock of the test: slow work that gets on is left alone for a day, and ended ten minutes after its last sign.
func TestStallClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		start := time.Now()
		ctx, end := context.WithCancelCause(t.Context())
		over := make(chan struct{})
		done := make(chan bool, 1)
		go func() { done <- heartbeat.Stalls(heartbeat.Options{Progress: n.Load}, over, end) }()
		for range 24 * 7 {
			time.Sleep(time.Hour / 7)
			n.Add(1)
			if ctx.Err() != nil {
				t.Fatalf("ended after %v: %v", time.Since(start), context.Cause(ctx))
			}
		}
		last := time.Now()
		<-ctx.Done()
		if d := time.Since(last); d < heartbeat.DefaultStall || d > heartbeat.DefaultStall*11/10 || !errors.Is(context.Cause(ctx), heartbeat.ErrStalled) || !<-done {
			t.Errorf("ended %v after the last sign of life: %v", d, context.Cause(ctx))
		}
	})
	synctest.Test(t, func(t *testing.T) { // the work is over first
		over := make(chan struct{})
		time.AfterFunc(heartbeat.DefaultStall/2, func() { close(over) })
		if heartbeat.Stalls(heartbeat.Options{Progress: still}, over, func(error) { t.Error("ended") }) {
			t.Error("stalled")
		}
	})
}
