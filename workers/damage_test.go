package workers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/opencharacter/opencharacter/store"
)

// TestDamageIsFinal: damage that several attempts find ends the run with the way out of it; nothing else does.
func TestDamageIsFinal(t *testing.T) {
	for _, c := range []struct {
		err   error
		final bool
	}{
		{fmt.Errorf("get parts/x: %w", store.ErrCorrupt), true},
		{fmt.Errorf("get parts/x: %w", store.ErrNotFound), true},
		{errors.New("connection reset"), false},
		{context.Canceled, false},
	} {
		d, a := newDamage(), attempt{run: "r", activity: "5"}
		for n := int32(1); n <= damageLooks; n++ {
			a.n = n
			if n == 2 { // another activity's luck changes nothing
				if err := d.verdict("tiny/dpo", attempt{run: "r", activity: "6"}, nil); err != nil {
					t.Fatal(err)
				}
			}
			err := d.verdict("tiny/dpo", a, c.err)
			var app *temporal.ApplicationError
			switch final := errors.As(err, &app) && app.NonRetryable(); {
			case final != (c.final && n == damageLooks):
				t.Errorf("%v, attempt %d: %v", c.err, n, err)
			case final && (app.Type() != Damaged || !strings.Contains(err.Error(), "`character repair tiny`") || !strings.Contains(err.Error(), "parts/x")):
				t.Errorf("%v", err)
			}
		}
		if c.final && len(d.looks) != 0 {
			t.Errorf("%v is remembered", d.looks)
		}
	}
	d, a := newDamage(), attempt{run: "r", activity: "5"}
	for range 10 {
		for range damageLooks - 1 {
			if err := d.verdict("w", a, store.ErrCorrupt); !errors.Is(err, store.ErrCorrupt) || errors.As(err, new(*temporal.ApplicationError)) {
				t.Fatal(err)
			}
		}
		if err := d.verdict("w", a, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamageIntercepts: the worker's activities are judged.
func TestDamageIntercepts(t *testing.T) {
	var s testsuite.WorkflowTestSuite
	env := s.NewTestActivityEnvironment()
	d := newDamage()
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{d}})
	fails := func(ctx context.Context) error {
		info := activity.GetInfo(ctx)
		d.looks[attempt{run: info.WorkflowExecution.RunID, activity: info.ActivityID}] = damageLooks - 1 // the attempts before
		return fmt.Errorf("get parts/x: %w", store.ErrCorrupt)
	}
	env.RegisterActivityWithOptions(fails, activity.RegisterOptions{Name: "fails"})
	_, last := env.ExecuteActivity("fails")
	var app *temporal.ApplicationError
	if !errors.As(last, &app) || app.Type() != Damaged || !app.NonRetryable() {
		t.Errorf("%v", last)
	}
}
