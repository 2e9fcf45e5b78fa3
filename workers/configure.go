package workers

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/heartbeat"
)

// configure puts what a queue of ours needs into a worker's options. What the program has set stays; what contradicts
// our stages is an error. p.mu is held.
func (p *Plugin) configure(queue string, w *worker.Options) error {
	own := func(set bool, what, instead string) error {
		if !set {
			return nil
		}
		return fmt.Errorf("workers: worker.Options.%s is set for task queue %s: %s", what, taskQueues[queue], instead)
	}
	sizes := w.MaxConcurrentActivityExecutionSize != 0 || w.Tuner != nil
	err := errors.Join(
		own(w.DeploymentOptions.UseVersioning, "DeploymentOptions", "name the version in workers.Options.Deployment, because workers of our queues go together"),
		own(p.o.Identity != "" && w.Identity != "" && w.Identity != p.o.Identity, "Identity", "it must be workers.Options.Identity, or be left empty"))
	switch queue {
	case "teacher":
		err = errors.Join(err, own(sizes, "MaxConcurrentActivityExecutionSize or Tuner", "set workers.Options.TeacherSlots instead"))
		if p.o.Key == nil {
			err = errors.Join(err, errNoKey)
		}
	case "engine":
		sizes = sizes || w.MaxConcurrentLocalActivityExecutionSize != 0 || w.MaxConcurrentWorkflowTaskExecutionSize != 0 || w.MaxConcurrentNexusTaskExecutionSize != 0
		err = errors.Join(err, own(sizes, "MaxConcurrent...ExecutionSize or Tuner", "an engine has one slot a device; leave it unset, and give other work another worker"))
	}
	if slices.ContainsFunc(w.Interceptors, func(i interceptor.WorkerInterceptor) bool { _, ours := i.(*held); return ours }) {
		err = errors.Join(err, fmt.Errorf("workers: two plugins serve task queue %s; make one for a client, and no workers.New beside it", taskQueues[queue]))
	}
	if err != nil {
		return err
	}
	if w.WorkerStopTimeout == 0 {
		w.WorkerStopTimeout = p.o.StopTimeout
	}
	if w.Identity == "" {
		w.Identity = p.o.Identity
	}
	if w.StickyScheduleToStartTimeout == 0 {
		w.StickyScheduleToStartTimeout = p.o.StickyWait
	}
	if p.o.Deployment != (Deployment{}) {
		w.DeploymentOptions = p.o.Deployment.options()
	}
	if theirs, ours := w.OnFatalError, p.o.Fatal; theirs == nil {
		w.OnFatalError = ours
	} else if ours != nil {
		w.OnFatalError = func(err error) { ours(err); theirs(err) }
	}
	w.DisableEagerActivities = true
	if w.BackgroundActivityContext == nil {
		w.BackgroundActivityContext = context.Background()
	}
	w.BackgroundActivityContext = heartbeat.WithConverter(w.BackgroundActivityContext, p.o.Converter)
	add := []interceptor.WorkerInterceptor{&only{inner: &measured{m: p.o.Metrics}}, p.own, &only{inner: p.spoilt}}
	switch queue {
	case "data":
		add = append(add, &only{inner: &beating{}})
	case "teacher":
		w.MaxConcurrentActivityExecutionSize, w.DisableWorkflowWorker = p.o.TeacherSlots, true
	case "engine":
		// One slot a device: two models at once would only slow each other down.
		slots := newPatience(1)
		if w.Tuner, err = slots.tuner(); err != nil {
			return fmt.Errorf("workers: %w", err)
		}
		w.DisableWorkflowWorker = true
		add = append(add, &only{inner: slots})
	}
	w.Interceptors = slices.Concat(w.Interceptors, add)
	return nil
}

// activities are what a queue serves. p.mu is held, and p.calls is known.
func (p *Plugin) activities(queue string) any {
	o, calls := p.o, *p.calls
	count := lanes(calls.workflow, o.namespace(), o.TeacherSlots, o.Deployment)
	switch queue {
	case "data":
		return &activities.Data{Store: o.Store, Lanes: count, Report: o.Report, Own: o.Own, Attributes: func(ctx context.Context) ([]string, error) {
			return attributes(ctx, calls, o.namespace())
		}}
	case "teacher":
		return &activities.Teacher{Store: o.Store, Key: o.Key, Allow: o.Allow, Lanes: count, Own: o.Own, Asked: asked(o.Metrics)}
	}
	return &activities.Engine{Store: o.Store, Hub: o.Hub, Pull: o.Pull, Allow: o.Allow, Stall: o.Stall, Lanes: count, Did: o.Did, Own: o.Own, Meter: o.Metrics}
}

// ours are the names of our activities: those of the methods.
var ours = sync.OnceValue(func() map[string]bool {
	names := map[string]bool{}
	for _, t := range []reflect.Type{reflect.TypeFor[*activities.Data](), reflect.TypeFor[*activities.Teacher](), reflect.TypeFor[*activities.Engine]()} {
		for i := range t.NumMethod() {
			names[t.Method(i).Name] = true
		}
	}
	return names
})

// only lets an interceptor see our activities, and leaves those that a program has beside them on the same worker alone.
type only struct {
	interceptor.WorkerInterceptorBase
	inner interceptor.WorkerInterceptor
}

func (o *only) InterceptActivity(ctx context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &choosing{interceptor.ActivityInboundInterceptorBase{Next: o.inner.InterceptActivity(ctx, next)}, next}
}

type choosing struct {
	interceptor.ActivityInboundInterceptorBase
	past interceptor.ActivityInboundInterceptor
}

func (c *choosing) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	if !ours()[activity.GetInfo(ctx).ActivityType.Name] {
		return c.past.ExecuteActivity(ctx, in)
	}
	return c.Next.ExecuteActivity(ctx, in)
}
