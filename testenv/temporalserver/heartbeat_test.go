package temporalserver_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/heartbeat"
	"github.com/opencharacter/opencharacter/testenv/temporalserver"
)

// Here heartbeat.Run meets a real server. The package cannot do it: only this one may link the server.

type beatState struct {
	Step    int
	Attempt int32
}

// stepper works in short steps until it has done n, or told how many it has to do by the test.
type stepper struct {
	started chan int32 // attempt numbers
	enough  atomic.Bool
	causes  chan error
}

func newStepper() *stepper {
	return &stepper{started: make(chan int32, 10), causes: make(chan error, 10)}
}

func (s *stepper) Work(ctx context.Context) (beatState, error) {
	st := beatState{}
	if activity.HasHeartbeatDetails(ctx) {
		if err := activity.GetHeartbeatDetails(ctx, &st); err != nil {
			return st, err
		}
	}
	st.Attempt = activity.GetInfo(ctx).Attempt
	s.started <- st.Attempt
	var step atomic.Int64
	step.Store(int64(st.Step))
	now := func() any { return beatState{Step: int(step.Load()), Attempt: st.Attempt} }
	err := heartbeat.Run(ctx, heartbeat.Options{Every: 200 * time.Millisecond, Details: now}, func(ctx context.Context) error {
		for !s.enough.Load() {
			select {
			case <-ctx.Done():
				s.causes <- context.Cause(ctx)
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
				step.Add(1)
			}
		}
		return nil
	})
	return now().(beatState), err
}

func beating(ctx workflow.Context) (beatState, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ActivityID: "work", StartToCloseTimeout: time.Hour, HeartbeatTimeout: 30 * time.Second, WaitForCancellation: true,
	})
	var st beatState
	err := workflow.ExecuteActivity(ctx, "Work").Get(ctx, &st)
	return st, err
}

func startBeating(t *testing.T, c client.Client, queue string, s *stepper) (worker.Worker, client.WorkflowRun) {
	t.Helper()
	// A short throttle makes the SDK's own heartbeats give up after two seconds: Run must not depend on it.
	w := worker.New(c, queue, worker.Options{MaxHeartbeatThrottleInterval: 2 * time.Second, WorkerStopTimeout: 10 * time.Second})
	w.RegisterWorkflow(beating)
	w.RegisterActivity(s)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: queue, TaskQueue: queue}, beating)
	if err != nil {
		t.Fatal(err)
	}
	return w, run
}

func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("%s: nothing after a minute", what)
		panic("unreachable")
	}
}

// The server is away for ten seconds, five times as long as the SDK's own heartbeats bear.
func TestHeartbeatOutage(t *testing.T) {
	t.Parallel()
	o := temporalserver.Options{Dir: t.TempDir(), GRPCPort: freePort(t)}
	server := startChild(t, o)
	c := dial(t, fmt.Sprintf("127.0.0.1:%d", o.GRPCPort))
	s := newStepper()
	w, run := startBeating(t, c, "outage", s)
	defer w.Stop()
	receive(t, s.started, "first attempt")
	time.Sleep(500 * time.Millisecond)
	server.kill()
	time.Sleep(10 * time.Second)
	startChild(t, o)
	time.Sleep(500 * time.Millisecond)
	s.enough.Store(true)
	var st beatState
	if err := run.Get(t.Context(), &st); err != nil {
		t.Fatal(err)
	}
	if st.Attempt != 1 {
		t.Errorf("finished by attempt %d, want 1", st.Attempt)
	}
	select {
	case cause := <-s.causes:
		t.Errorf("the work was ended: %v", cause)
	default:
	}
}

// What the server and the worker can ask of an attempt, and how it closes.
func TestHeartbeatRequests(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server, err := temporalserver.Start(ctx, temporalserver.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, server) })
	c := dial(t, server.Address)

	t.Run("cancel", func(t *testing.T) {
		s := newStepper()
		w, run := startBeating(t, c, "cancel", s)
		defer w.Stop()
		receive(t, s.started, "first attempt")
		asked := time.Now()
		if err := c.CancelWorkflow(ctx, run.GetID(), ""); err != nil {
			t.Fatal(err)
		}
		if cause := receive(t, s.causes, "cause"); !temporal.IsCanceledError(cause) {
			t.Errorf("cause = %T %v", cause, cause)
		}
		t.Logf("canceled after %v", time.Since(asked))
		if err := run.Get(ctx, nil); !temporal.IsCanceledError(err) {
			t.Errorf("the workflow ended with %v, want canceled", err)
		}
	})

	for name, tt := range map[string]struct {
		ask  func(*commonpb.WorkflowExecution) error
		is   error
		undo func(*commonpb.WorkflowExecution) error
	}{
		"pause": {
			func(e *commonpb.WorkflowExecution) error {
				_, err := c.WorkflowService().PauseActivity(ctx, &workflowservice.PauseActivityRequest{Namespace: "default", Execution: e, Activity: &workflowservice.PauseActivityRequest_Id{Id: "work"}})
				return err
			}, activity.ErrActivityPaused,
			func(e *commonpb.WorkflowExecution) error {
				_, err := c.WorkflowService().UnpauseActivity(ctx, &workflowservice.UnpauseActivityRequest{Namespace: "default", Execution: e, Activity: &workflowservice.UnpauseActivityRequest_Id{Id: "work"}})
				return err
			},
		},
		"reset": {
			func(e *commonpb.WorkflowExecution) error {
				_, err := c.WorkflowService().ResetActivity(ctx, &workflowservice.ResetActivityRequest{Namespace: "default", Execution: e, Activity: &workflowservice.ResetActivityRequest_Id{Id: "work"}})
				return err
			}, activity.ErrActivityReset, func(*commonpb.WorkflowExecution) error { return nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStepper()
			w, run := startBeating(t, c, name, s)
			defer w.Stop()
			receive(t, s.started, "first attempt")
			e := &commonpb.WorkflowExecution{WorkflowId: run.GetID(), RunId: run.GetRunID()}
			if err := tt.ask(e); err != nil {
				t.Fatal(err)
			}
			if cause := receive(t, s.causes, "cause"); !errors.Is(cause, tt.is) {
				t.Errorf("cause = %v", cause)
			}
			s.enough.Store(true)
			if err := tt.undo(e); err != nil {
				t.Fatal(err)
			}
			receive(t, s.started, "second attempt")
			var st beatState
			if err := run.Get(ctx, &st); err != nil {
				t.Fatal(err)
			}
		})
	}

	// A stopping worker hands its attempt over: the next one starts a second later and knows the exact step.
	t.Run("worker stop", func(t *testing.T) {
		s := newStepper()
		w, run := startBeating(t, c, "stop", s)
		receive(t, s.started, "first attempt")
		time.Sleep(300 * time.Millisecond)
		stopped := time.Now()
		w.Stop()
		if cause := receive(t, s.causes, "cause"); !errors.Is(cause, heartbeat.ErrWorkerStopping) {
			t.Errorf("cause = %v", cause)
		}
		s.enough.Store(true)
		next := worker.New(c, "stop", worker.Options{})
		next.RegisterWorkflow(beating)
		next.RegisterActivity(s)
		if err := next.Start(); err != nil {
			t.Fatal(err)
		}
		defer next.Stop()
		if n := receive(t, s.started, "second attempt"); n != 2 {
			t.Errorf("attempt %d", n)
		}
		t.Logf("second attempt %v after the stop", time.Since(stopped))
		var st beatState
		if err := run.Get(ctx, &st); err != nil {
			t.Fatal(err)
		}
		if st.Attempt != 2 || st.Step < 5 {
			t.Errorf("the second attempt knew nothing of the first: %+v", st)
		}
	})
}
