package heartbeat_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"google.golang.org/grpc"

	"github.com/opencharacter/opencharacter/heartbeat"
)

// server answers heartbeats in place of a Temporal server: answer(n) is the answer to the n-th, from 0.
type server struct {
	interceptor.WorkerInterceptorBase
	answer func(n int) error

	mu      sync.Mutex
	details []int
	own     int // heartbeats of the SDK itself
}

func (s *server) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &inbound{interceptor.ActivityInboundInterceptorBase{Next: next}, s}
}

type inbound struct {
	interceptor.ActivityInboundInterceptorBase
	s *server
}

// The SDK cancels the context of the running activity by itself; here the test does.
type endKey struct{}

func (i *inbound) Init(next interceptor.ActivityOutboundInterceptor) error {
	return i.Next.Init(&outbound{interceptor.ActivityOutboundInterceptorBase{Next: next}, i.s})
}

func (i *inbound) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	return i.Next.ExecuteActivity(context.WithValue(ctx, endKey{}, end), in)
}

type outbound struct {
	interceptor.ActivityOutboundInterceptorBase
	s *server
}

func (o *outbound) RecordHeartbeat(ctx context.Context, _ ...any) {
	o.s.mu.Lock()
	o.s.own++
	n := len(o.s.details)
	o.s.mu.Unlock()
	if err := o.s.answer(n); err != nil {
		ctx.Value(endKey{}).(context.CancelCauseFunc)(err)
	}
}

func (s *server) record(_ context.Context, r *workflowservice.RecordActivityTaskHeartbeatRequest, _ ...grpc.CallOption) (*workflowservice.RecordActivityTaskHeartbeatResponse, error) {
	s.mu.Lock()
	n := len(s.details)
	var d int
	if err := converter.GetDefaultDataConverter().FromPayloads(r.GetDetails(), &d); err != nil {
		panic(err)
	}
	s.details = append(s.details, d)
	s.mu.Unlock()
	switch err := s.answer(n); {
	case temporal.IsCanceledError(err):
		return &workflowservice.RecordActivityTaskHeartbeatResponse{CancelRequested: true}, nil
	case errors.Is(err, activity.ErrActivityPaused):
		return &workflowservice.RecordActivityTaskHeartbeatResponse{ActivityPaused: true}, nil
	case errors.Is(err, activity.ErrActivityReset):
		return &workflowservice.RecordActivityTaskHeartbeatResponse{ActivityReset: true}, nil
	default:
		return &workflowservice.RecordActivityTaskHeartbeatResponse{}, err
	}
}

// run executes one activity that hands work to heartbeat.Run.
func run(t *testing.T, s *server, stop chan struct{}, work func(context.Context) error) (cause, err error) {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{s}})
	if stop != nil {
		env.SetWorkerStopChannel(stop)
	}
	n := 0
	var mu sync.Mutex
	act := func(ctx context.Context) error {
		return heartbeat.RunSending(ctx, s.record, heartbeat.Options{Every: 5 * time.Millisecond, Details: func() any {
			mu.Lock()
			defer mu.Unlock()
			n++
			return n
		}}, func(ctx context.Context) error {
			err := work(ctx)
			cause = context.Cause(ctx)
			return err
		})
	}
	env.RegisterActivityWithOptions(act, activity.RegisterOptions{Name: "work"})
	_, err = env.ExecuteActivity("work")
	return cause, err
}

func untilDone(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(10 * time.Second):
		return errors.New("the work was never told to end")
	}
}

func TestCauses(t *testing.T) {
	after := func(n int, err error) func(int) error {
		return func(i int) error {
			if i < n {
				return nil
			}
			return err
		}
	}
	tests := []struct {
		name   string
		answer error
		is     func(error) bool
		own    int    // SDK heartbeats at the end
		want   string // in the activity's error
	}{
		{"cancel", temporal.NewCanceledError(), temporal.IsCanceledError, 1, "context canceled"},
		{"pause", activity.ErrActivityPaused, func(err error) bool { return errors.Is(err, activity.ErrActivityPaused) }, 1, "activity paused"},
		{"reset", activity.ErrActivityReset, func(err error) bool { return errors.Is(err, activity.ErrActivityReset) }, 1, "activity reset"},
		{"gone", serviceerror.NewNotFound("no such attempt"), func(err error) bool { return errors.Is(err, heartbeat.ErrAttemptOver) }, 0, "given this attempt up"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &server{answer: after(2, tt.answer)}
			cause, err := run(t, s, nil, untilDone)
			if !tt.is(cause) {
				t.Errorf("cause of the work's context = %v", cause)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error of the activity = %v, want %q", err, tt.want)
			}
			if s.own != tt.own {
				t.Errorf("%d heartbeats of the SDK, want %d", s.own, tt.own)
			}
		})
	}
}

// Many failed heartbeats in a row do not end the work.
func TestTransient(t *testing.T) {
	reached := make(chan struct{})
	s := &server{answer: func(n int) error {
		if n == 10 {
			close(reached)
		}
		if n < 10 {
			return serviceerror.NewUnavailable("server restarts")
		}
		return nil
	}}
	cause, err := run(t, s, nil, func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-reached:
			return nil
		}
	})
	if cause != nil || err != nil {
		t.Fatalf("cause %v, error %v", cause, err)
	}
}

func TestWorkerStop(t *testing.T) {
	stop := make(chan struct{})
	s := &server{answer: func(int) error { return nil }}
	time.AfterFunc(20*time.Millisecond, func() { close(stop) })
	cause, err := run(t, s, stop, untilDone)
	if !errors.Is(cause, heartbeat.ErrWorkerStopping) {
		t.Errorf("cause = %v", cause)
	}
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != heartbeat.StoppedType || app.NonRetryable() || app.NextRetryDelay() != time.Second {
		t.Errorf("error = %#v", err)
	}
	if s.own != 0 {
		t.Errorf("%d heartbeats of the SDK", s.own)
	}
}

// The work's own failure is returned as it is, with the newest details sent before it.
func TestOwnError(t *testing.T) {
	s := &server{answer: func(int) error { return nil }}
	before := 0
	_, err := run(t, s, nil, func(context.Context) error {
		time.Sleep(30 * time.Millisecond)
		s.mu.Lock()
		before = len(s.details)
		s.mu.Unlock()
		return temporal.NewNonRetryableApplicationError("loss is not finite", "NonFinite", nil)
	})
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != "NonFinite" {
		t.Fatalf("error = %v", err)
	}
	if len(s.details) <= before {
		t.Errorf("no heartbeat after the failure: %v", s.details)
	}
}

// Success wins over a cancellation that came too late.
func TestSuccessAfterCancel(t *testing.T) {
	s := &server{answer: func(int) error { return temporal.NewCanceledError() }}
	cause, err := run(t, s, nil, func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	})
	if !temporal.IsCanceledError(cause) || err != nil {
		t.Fatalf("cause %v, error %v", cause, err)
	}
}

func TestPanic(t *testing.T) {
	s := &server{answer: func(int) error { return nil }}
	_, err := run(t, s, nil, func(context.Context) error { panic("shape") })
	var p *temporal.PanicError
	if !errors.As(err, &p) {
		t.Fatalf("error = %v", err)
	}
	s.mu.Lock()
	n := len(s.details)
	s.mu.Unlock()
	time.Sleep(50 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.details) != n {
		t.Error("heartbeats go on after a panic")
	}
}

// Run itself, through the SDK's client: the test environment hears each heartbeat.
func TestRun(t *testing.T) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	heard := make(chan string, 100)
	env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		var s string
		if err := details.Get(&s); err != nil {
			t.Error(err)
		}
		heard <- s
	})
	act := func(ctx context.Context) error {
		return heartbeat.Run(ctx, heartbeat.Options{Every: 5 * time.Millisecond, Details: func() any { return "step 7" }}, func(ctx context.Context) error {
			for range 3 {
				select {
				case s := <-heard:
					if s != "step 7" {
						return errors.New("details " + s)
					}
				case <-time.After(10 * time.Second):
					return errors.New("no heartbeat")
				}
			}
			return ctx.Err()
		})
	}
	env.RegisterActivityWithOptions(act, activity.RegisterOptions{Name: "work"})
	if _, err := env.ExecuteActivity("work"); err != nil {
		t.Fatal(err)
	}
}
