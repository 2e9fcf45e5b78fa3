// Package workers puts workflows and activities on task queues: who serves what, how many at once, and how a worker
// stops. A program of a few lines can serve our stages on its own Temporal connection.
package workers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/heartbeat"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/metrics"
	"github.com/opencharacter/opencharacter/permit"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workflows"
)

// Options says what this process serves. The zero value serves nothing; use [All] for every queue.
type Options struct {
	// Queues to serve: data (workflows and data activities), teacher, engine.
	Queues []string
	// Store is the object store; required.
	Store *store.Store
	// Hub is where models are on this machine (engine queue).
	Hub hub.Options
	// Pull lets the engine fetch a known model that is missing.
	Pull bool
	// Stall is how long an attempt on the engine may make no progress before it ends and is tried again; 0 means
	// heartbeat.DefaultStall (10 minutes).
	Stall time.Duration
	// Allow says which model files and endpoints a spec may name; nil = model files in Hub.CacheDir, and no endpoint.
	Allow *permit.Rules
	// Converter encodes heartbeats; give that of the client when it encrypts. nil = the SDK's JSON.
	Converter converter.DataConverter
	// Key returns the value of an environment variable that a spec names (teacher queue); required there.
	Key func(env string) string
	// Did is told of every unit of work of the engine (engine queue); nil tells nobody.
	Did func(activities.Work)
	// Metrics counts what the workers do; nil counts nothing.
	Metrics *metrics.Set
	// TeacherSlots is how many teacher chunks run at once; 0 is 4.
	TeacherSlots int
	// Namespace is the Temporal namespace whose search attributes are looked up; "" is default.
	Namespace string
	// Identity is what each worker tells Temporal about itself; no other process may have it: tasks that the server gave to
	// that name and that are not here are given back at once. "" is the client's, and then only their silence tells.
	Identity string
	// StickyWait is how long a workflow's next step waits for the worker that has the workflow in memory before any may
	// take it; 0 is the SDK's 5 s.
	StickyWait time.Duration
	// Deployment makes the workers versioned; the zero value is not.
	Deployment Deployment
	// Report is the address under which live reports are served, for the links in runs' details; "" = none.
	Report string
	// Fatal is told when a worker cannot go on (its namespace is gone, its credentials are refused); nil tells nobody.
	Fatal func(error)
	// StopTimeout is how long a stopping worker may take to commit what it has; 0 is 30 s.
	StopTimeout time.Duration
}

// All names every queue.
func All() []string { return []string{"data", "teacher", "engine"} }

// New makes the workers of o.Queues on c. Start each, and stop each in the end.
func New(c client.Client, o Options) ([]worker.Worker, error) {
	if o.Store == nil {
		return nil, fmt.Errorf("workers: no object store is given")
	}
	if err := o.Deployment.Check(); err != nil {
		return nil, fmt.Errorf("workers: %w", err)
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = 30 * time.Second
	}
	if o.TeacherSlots == 0 {
		o.TeacherSlots = 4
	}
	o.Namespace = cmp.Or(o.Namespace, client.DefaultNamespace)
	count := lanes(c, o.Namespace, o.TeacherSlots, o.Deployment)
	if o.Allow == nil {
		var paths []string
		if o.Hub.CacheDir != "" {
			paths = []string{o.Hub.CacheDir}
		}
		var err error
		if o.Allow, err = permit.New(permit.Options{Paths: paths}); err != nil {
			return nil, fmt.Errorf("workers: %w", err)
		}
	}
	own, spoilt := newHeld(), newDamage()
	var out []worker.Worker
	for _, q := range o.Queues {
		opt := worker.Options{WorkerStopTimeout: o.StopTimeout, DisableEagerActivities: true, OnFatalError: o.Fatal, Identity: o.Identity, StickyScheduleToStartTimeout: o.StickyWait, DeploymentOptions: o.Deployment.options(),
			Interceptors:              []interceptor.WorkerInterceptor{&measured{m: o.Metrics}, own, spoilt},
			BackgroundActivityContext: heartbeat.WithConverter(context.Background(), o.Converter)}
		switch q {
		case "data":
			opt.Interceptors = append(opt.Interceptors, &beating{})
			w := worker.New(c, activities.DataQueue, opt)
			for _, f := range []any{workflows.CharacterTraining, workflows.GeneratePreferences, workflows.TrainAdapter, workflows.GenerateIntrospection, workflows.EvaluateCharacter} {
				w.RegisterWorkflow(f)
			}
			w.RegisterActivity(&activities.Data{Store: o.Store, Lanes: count, Report: o.Report, Attributes: func(ctx context.Context) ([]string, error) {
				return attributes(ctx, c, o.Namespace)
			}})
			out = append(out, &watching{Worker: w, w: &watcher{c: c, namespace: o.Namespace, identity: o.Identity, held: own}})
		case "teacher":
			if o.Key == nil {
				return nil, fmt.Errorf("workers: the teacher queue needs a way to read API keys")
			}
			opt.MaxConcurrentActivityExecutionSize, opt.DisableWorkflowWorker = o.TeacherSlots, true
			w := worker.New(c, activities.TeacherQueue, opt)
			w.RegisterActivity(&activities.Teacher{Store: o.Store, Key: o.Key, Allow: o.Allow, Lanes: count, Asked: asked(o.Metrics)})
			out = append(out, w)
		case "engine":
			// One slot a device: two models at once would only slow each other down.
			p := newPatience(1)
			var err error
			if opt.Tuner, err = p.tuner(); err != nil {
				return nil, fmt.Errorf("workers: %w", err)
			}
			opt.DisableWorkflowWorker, opt.Interceptors = true, append(opt.Interceptors, p)
			w := worker.New(c, activities.EngineQueue, opt)
			w.RegisterActivity(&activities.Engine{Store: o.Store, Hub: o.Hub, Pull: o.Pull, Allow: o.Allow, Stall: o.Stall, Lanes: count, Did: o.Did, Meter: o.Metrics})
			out = append(out, w)
		default:
			return nil, fmt.Errorf("workers: queue %q is not one of data, teacher, engine", q)
		}
	}
	return out, nil
}

// attributes lists our search attributes that the namespace knows. A cluster that does not tell has none for us.
func attributes(ctx context.Context, c client.Client, namespace string) ([]string, error) {
	// A server on SQL keeps their names with the namespace. Its list of them leaks a connection to itself at each call
	// (found by bench/soak, server 1.32), so it is asked only where a name is not there.
	if ns, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace}); err == nil {
		if aliases := slices.Collect(maps.Values(ns.GetConfig().GetCustomSearchAttributeAliases())); hasAll(aliases, workflows.SearchAttributes()) {
			return workflows.SearchAttributes(), nil
		}
	}
	r, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	var refused *serviceerror.PermissionDenied
	var unknown *serviceerror.Unimplemented
	if errors.As(err, &refused) || errors.As(err, &unknown) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range workflows.SearchAttributes() {
		if _, ok := r.CustomAttributes[n]; ok {
			out = append(out, n)
		}
	}
	return out, nil
}

func hasAll(have, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(have, w) })
}
