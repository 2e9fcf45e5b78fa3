package workers

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
)

// timed gives activities a heartbeat timeout, which the test environment has no way to set.
type timed struct {
	interceptor.WorkerInterceptorBase
	timeout time.Duration
}

func (x *timed) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &timedInbound{interceptor.ActivityInboundInterceptorBase{Next: next}, x}
}

type timedInbound struct {
	interceptor.ActivityInboundInterceptorBase
	x *timed
}

func (i *timedInbound) Init(next interceptor.ActivityOutboundInterceptor) error {
	return i.Next.Init(&timedOutbound{interceptor.ActivityOutboundInterceptorBase{Next: next}, i.x})
}

type timedOutbound struct {
	interceptor.ActivityOutboundInterceptorBase
	x *timed
}

func (o *timedOutbound) GetInfo(ctx context.Context) activity.Info {
	i := o.Next.GetInfo(ctx)
	i.HeartbeatTimeout = o.x.timeout
	return i
}

// TestBeating: an activity that knows nothing of heartbeats beats, and only where somebody listens; its outcome passes.
func TestBeating(t *testing.T) {
	for name, c := range map[string]struct {
		timeout time.Duration
		beats   bool
		fails   error
	}{
		"beats":              {30 * time.Millisecond, true, nil},
		"beats and fails":    {30 * time.Millisecond, true, errors.New("no such object")},
		"of an old schedule": {0, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var suite testsuite.WorkflowTestSuite
			env := suite.NewTestActivityEnvironment()
			env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{&timed{timeout: c.timeout}, &beating{}}})
			heard := make(chan bool, 100)
			env.SetOnActivityHeartbeatListener(func(*activity.Info, converter.EncodedValues) {
				select {
				case heard <- true:
				default:
				}
			})
			env.RegisterActivityWithOptions(func(context.Context) (string, error) {
				for range 2 {
					if !c.beats {
						break
					}
					select {
					case <-heard:
					case <-time.After(10 * time.Second):
						return "", errors.New("no heartbeat")
					}
				}
				return "done", c.fails
			}, activity.RegisterOptions{Name: "work"})
			v, err := env.ExecuteActivity("work")
			if c.fails != nil {
				if err == nil || !strings.Contains(err.Error(), c.fails.Error()) {
					t.Errorf("error %v, want %v", err, c.fails)
				}
				return
			}
			var s string
			if err == nil {
				err = v.Get(&s)
			}
			if err != nil || s != "done" {
				t.Errorf("%q, %v", s, err)
			}
			if !c.beats && len(heard) > 0 {
				t.Error("it beats though nobody listens")
			}
		})
	}
}
