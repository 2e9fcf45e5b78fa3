package workers

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/heartbeat"
	"github.com/opencharacter/opencharacter/metrics"
	"github.com/opencharacter/opencharacter/teacher"
)

// measured counts attempts at activities and what they made. Its outermost place sees every attempt as Temporal does.
type measured struct {
	interceptor.WorkerInterceptorBase
	m *metrics.Set
}

func (m *measured) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &measuredActivity{ActivityInboundInterceptorBase: interceptor.ActivityInboundInterceptorBase{Next: next}, m: m.m}
}

type measuredActivity struct {
	interceptor.ActivityInboundInterceptorBase
	m *metrics.Set
}

func (a *measuredActivity) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	info := activity.GetInfo(ctx)
	wait := time.Duration(-1) // of a later attempt the SDK does not say when it was scheduled
	if info.Attempt == 1 {
		wait = max(0, info.StartedTime.Sub(info.ScheduledTime))
	}
	began := time.Now()
	end := a.m.Activity(info.TaskQueue, info.ActivityType.Name, wait)
	ended := "panic"
	defer func() { end(ended, time.Since(began)) }()
	out, err := a.Next.ExecuteActivity(ctx, in)
	if ended = outcome(err); err == nil {
		a.count(in.Args, out)
	}
	return out, err
}

// outcome is an attempt's end in one word.
func outcome(err error) string {
	var app *temporal.ApplicationError
	switch {
	case err == nil:
		return "ok"
	case temporal.IsCanceledError(err):
		return "cancelled"
	case errors.As(err, &app) && app.Type() == heartbeat.StoppedType:
		return "stopped"
	case errors.As(err, &app) && app.NonRetryable():
		return "failed"
	}
	return "retry"
}

// count takes rows, segments and stages from what an activity was given and what it gave.
func (a *measuredActivity) count(args []any, out any) {
	switch o := out.(type) {
	case activities.ChunkOutput:
		role := "reference"
		if in, ok := first[activities.ChunkInput](args); ok {
			role = in.Role
		}
		a.m.Chunk(role, o.Kept, o.Dropped, o.Seconds)
	case activities.SegmentOutput:
		if in, ok := first[activities.TrainInput](args); ok {
			a.m.Segment(in.Kind, o.Seconds)
		}
	case activities.FindStageOutput:
		if o.Stage != nil {
			a.m.Stage(o.Stage.Kind, true)
		}
	case activities.Stage:
		if in, ok := first[activities.Stage](args); ok { // what KeepStage keeps
			a.m.Stage(in.Kind, false)
		}
	}
}

func first[T any](args []any) (v T, ok bool) {
	if len(args) > 0 {
		v, ok = args[0].(T)
	}
	return v, ok
}

// asked counts requests to teachers.
func asked(m *metrics.Set) func(teacher.Attempt) {
	return func(a teacher.Attempt) { m.Asked(a.Outcome, a.Took, a.PromptTokens, a.CompletionTokens) }
}
