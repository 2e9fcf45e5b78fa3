// Package workers puts workflows and activities on task queues: who serves what, how many at once, and how a worker
// stops.
//
// [New] makes the workers of a program that does nothing else. [NewPlugin] is for everybody else: it adds our stages to the
// workers of a Temporal client of your own, in a program of ten lines. Both go the same way.
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
	"go.temporal.io/sdk/worker"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/metrics"
	"github.com/opencharacter/opencharacter/permit"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workflows"
)

// Options says what this process serves. The zero value serves nothing; use [All] for every queue.
type Options struct {
	// Queues to serve: data (workflows and data activities), teacher, engine. For the plugin nil means those on which the
	// program makes workers.
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
	// Converter encodes heartbeats; give that of the client when it encrypts. nil = the SDK's JSON. A client with the plugin
	// takes it where it has no converter of its own, and else its own counts.
	Converter converter.DataConverter
	// Key returns the value of an environment variable that a spec names (teacher queue); required there.
	Key func(env string) string
	// Did is told of every unit of work of the engine (engine queue); nil tells nobody.
	Did func(activities.Work)
	// Metrics counts what the workers do; nil counts nothing.
	Metrics *metrics.Set
	// TeacherSlots is how many teacher chunks run at once; 0 is 4.
	TeacherSlots int
	// Namespace is the Temporal namespace whose search attributes are looked up; "" is that of the plugin's client, or default.
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
	// Own are teachers, filters and evaluations of the program's own, for specs to name. All workers of a fleet must have the same.
	Own activities.Own
	// Fatal is told when a worker cannot go on (its namespace is gone, its credentials are refused); nil tells nobody.
	Fatal func(error)
	// StopTimeout is how long a stopping worker may take to commit what it has; 0 is 30 s.
	StopTimeout time.Duration
}

// All names every queue.
func All() []string { return []string{"data", "teacher", "engine"} }

// taskQueues are the names of the queues at Temporal.
var taskQueues = map[string]string{"data": DataQueue, "teacher": TeacherQueue, "engine": EngineQueue}

var errNoKey = errors.New("workers: the teacher queue needs a way to read API keys: set workers.Options.Key")

// complete checks the options and fills in the defaults.
func (o Options) complete() (Options, error) {
	if o.Store == nil {
		return o, errors.New("workers: no object store is given")
	}
	if err := o.Deployment.Check(); err != nil {
		return o, fmt.Errorf("workers: %w", err)
	}
	for _, q := range o.Queues {
		if taskQueues[q] == "" {
			return o, fmt.Errorf("workers: queue %q is not one of data, teacher, engine", q)
		}
		if q == "teacher" && o.Key == nil {
			return o, errNoKey
		}
	}
	if err := o.Own.Check(); err != nil {
		return o, fmt.Errorf("workers: %w", err)
	}
	o.StopTimeout = cmp.Or(o.StopTimeout, 30*time.Second)
	o.TeacherSlots = cmp.Or(o.TeacherSlots, 4)
	if o.Allow == nil {
		var paths []string
		if o.Hub.CacheDir != "" {
			paths = []string{o.Hub.CacheDir}
		}
		var err error
		if o.Allow, err = permit.New(permit.Options{Paths: paths}); err != nil {
			return o, fmt.Errorf("workers: %w", err)
		}
	}
	return o, nil
}

func (o Options) namespace() string { return cmp.Or(o.Namespace, client.DefaultNamespace) }

// New makes the workers of o.Queues on c, whose connection should be made with [Connection]. Start each, and stop each in
// the end. It is for a program that is nothing but our worker; see [NewPlugin] for one that is more.
func New(c client.Client, o Options) ([]worker.Worker, error) {
	p, err := NewPlugin(o)
	if err != nil {
		return nil, err
	}
	p.calls = &services{c.WorkflowService(), c.OperatorService()}
	var out []worker.Worker
	for _, q := range o.Queues {
		out = append(out, worker.New(c, taskQueues[q], worker.Options{Plugins: []worker.Plugin{p}}))
		if p.wrong != nil {
			return nil, p.wrong
		}
	}
	return out, nil
}

// attributes lists our search attributes that the namespace knows. A cluster that does not tell has none for us.
func attributes(ctx context.Context, s services, namespace string) ([]string, error) {
	// A server on SQL keeps their names with the namespace. Its list of them leaks a connection to itself at each call
	// (found by bench/soak, server 1.32), so it is asked only where a name is not there.
	if ns, err := s.workflow.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace}); err == nil {
		if aliases := slices.Collect(maps.Values(ns.GetConfig().GetCustomSearchAttributeAliases())); hasAll(aliases, workflows.SearchAttributes()) {
			return workflows.SearchAttributes(), nil
		}
	}
	r, err := s.operator.ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
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
