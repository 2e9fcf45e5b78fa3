package workers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/grpc"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/workflows"
)

// PluginName is the plugin's name, as Temporal shows it of a worker.
const PluginName = "opencharacter"

// Task queues of our stages. A worker that is made on one of them, with the plugin, serves it.
const (
	DataQueue    = activities.DataQueue    // workflows and data activities
	TeacherQueue = activities.TeacherQueue // answers that come from elsewhere
	EngineQueue  = activities.EngineQueue  // the model
)

// Plugin is our stages as a plugin of the Temporal SDK: a client plugin, a worker plugin and a replayer plugin in one.
// Make it with [NewPlugin].
type Plugin struct {
	*temporal.SimplePlugin
	own    *held
	spoilt *damage

	mu    sync.Mutex
	o     Options
	conn  *grpc.ClientConn
	calls *services
	at    map[string]*serving // by the worker's instance key
	wrong error               // the first mistake in a worker's options
}

// serving is one worker that serves a queue of ours.
type serving struct {
	queue string
	err   error // why it cannot start
	done  bool  // it is registered
	watch *watching
}

// services are a Temporal server's two APIs, over the client's connection.
type services struct {
	workflow workflowservice.WorkflowServiceClient
	operator operatorservice.OperatorServiceClient
}

// NewPlugin makes the plugin. Put it into client.Options.Plugins: from then on every worker that is made of that client on
// [DataQueue], [TeacherQueue] or [EngineQueue] (or on those of them that o.Queues names; nil names all three) serves our
// stages beside what the program registers itself. Workers on other queues are left alone.
//
// The client gets the way in which outcomes wait for a server that is away ([Connection]) and, where it has none,
// o.Converter. A worker of ours gets our workflows and activities, its slots, and what looks after work whose worker is
// silent or whose data is damaged; all of that touches our activities only. Mistakes in a worker's options are told by its
// Start or Run.
func NewPlugin(o Options) (*Plugin, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	p := &Plugin{o: o, own: newHeld(), spoilt: newDamage(), at: map[string]*serving{}}
	p.SimplePlugin, err = temporal.NewSimplePlugin(temporal.SimplePluginOptions{Name: PluginName,
		ConfigureClient: p.configureClient, ConfigureWorker: p.configureWorker, RunContextBefore: p.register, RunContextAfter: p.stopped})
	if err != nil {
		return nil, fmt.Errorf("workers: %w", err)
	}
	return p, nil
}

// configureClient may be called again and again with the same options: a program tries until its server is there.
func (p *Plugin) configureClient(_ context.Context, in client.PluginConfigureClientOptions) error {
	c := in.ClientOptions
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.DataConverter == nil {
		c.DataConverter = p.o.Converter
	} else {
		p.o.Converter = c.DataConverter
	}
	if p.o.Namespace == "" {
		p.o.Namespace = c.Namespace
	}
	c.ConnectionOptions.DialOptions = slices.Concat(c.ConnectionOptions.DialOptions, Connection(), []grpc.DialOption{grpc.WithChainUnaryInterceptor(p.meet)})
	return nil
}

// meet takes the connection of the client, which its plugins are not told. The SDK's first call on it is before any
// worker starts; what we call on it passes the SDK's own interceptors, and so has its credentials.
func (p *Plugin) meet(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	p.mu.Lock()
	if p.conn != cc { // one that did not come about is left behind
		p.conn, p.calls = cc, &services{workflowservice.NewWorkflowServiceClient(cc), operatorservice.NewOperatorServiceClient(cc)}
	}
	p.mu.Unlock()
	return invoke(ctx, method, req, reply, cc, opts...)
}

// configureWorker never returns an error: the SDK would panic with it.
func (p *Plugin) configureWorker(_ context.Context, in worker.PluginConfigureWorkerOptions) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at[in.WorkerInstanceKey] != nil {
		return nil // the plugin is in the client's options and in the worker's
	}
	s := &serving{queue: queueOf(in.TaskQueue)}
	if s.queue != "" && (len(p.o.Queues) == 0 || slices.Contains(p.o.Queues, s.queue)) {
		s.err = p.configure(s.queue, in.WorkerOptions)
	} else if slices.ContainsFunc(in.WorkerOptions.Plugins, func(x worker.Plugin) bool { return x == worker.Plugin(p) }) {
		s.err = fmt.Errorf("workers: the plugin was given to a worker on task queue %q, which it does not serve; make the worker on %s, or give the plugin to the client only", in.TaskQueue, p.serves())
	} else {
		return nil // a worker for something else, of the same client
	}
	p.at[in.WorkerInstanceKey] = s
	if p.wrong == nil {
		p.wrong = s.err
	}
	return nil
}

func queueOf(taskQueue string) string {
	for _, q := range All() {
		if taskQueues[q] == taskQueue {
			return q
		}
	}
	return ""
}

// serves lists the task queues that the plugin serves.
func (p *Plugin) serves() (list string) {
	for _, q := range All() {
		if len(p.o.Queues) == 0 || slices.Contains(p.o.Queues, q) {
			if list != "" {
				list += " or "
			}
			list += fmt.Sprintf("%q (%s)", taskQueues[q], q)
		}
	}
	return list
}

// registry is what workflows and activities are registered at.
type registry interface {
	RegisterWorkflowWithOptions(any, workflow.RegisterOptions)
	RegisterActivityWithOptions(any, activity.RegisterOptions)
}

// register is called when a worker starts, or before a history is replayed.
func (p *Plugin) register(_ context.Context, in temporal.SimplePluginRunContextBeforeOptions) error {
	if in.WorkflowReplayer {
		return add(in.Registry, "data", nil)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.at[in.InstanceKey]
	switch {
	case s == nil || s.done:
		return nil
	case s.err != nil:
		return s.err
	case p.calls == nil:
		return errors.New("workers: the plugin does not know the client's connection; put it into client.Options.Plugins, from where the client's workers have it too")
	}
	s.done = true
	return add(in.Registry, s.queue, p.activities(s.queue))
}

// add registers what a queue serves. The SDK panics where a name is taken.
func add(r registry, queue string, acts any) (err error) {
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("workers: serve the %s queue: %v; these names are ours: give yours other ones, and register our stages by the plugin only", queue, x)
		}
	}()
	if queue == "data" {
		for _, f := range Workflows() {
			r.RegisterWorkflowWithOptions(f, workflow.RegisterOptions{})
		}
	}
	if acts != nil {
		r.RegisterActivityWithOptions(acts, activity.RegisterOptions{})
	}
	return nil
}

// Workflows lists our workflow functions, for replay tests and for programs that start them as children.
func Workflows() []any {
	return []any{workflows.CharacterTraining, workflows.GeneratePreferences, workflows.TrainAdapter, workflows.GenerateIntrospection, workflows.EvaluateCharacter}
}

// StartWorker starts a worker and, beside one of the data queue, the looks for work whose worker is gone.
func (p *Plugin) StartWorker(ctx context.Context, in worker.PluginStartWorkerOptions, next func(context.Context, worker.PluginStartWorkerOptions) error) error {
	if err := p.SimplePlugin.StartWorker(ctx, in, next); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.at[in.WorkerInstanceKey]; s != nil && s.queue == "data" { // nil: it has stopped again
		if s.watch == nil {
			s.watch = watch(&watcher{c: p.calls.workflow, namespace: p.o.namespace(), identity: p.o.Identity, held: p.own})
		}
	}
	return nil
}

// stopped ends the looks before the worker stops: from then on tasks come that are not taken.
func (p *Plugin) stopped(_ context.Context, in temporal.SimplePluginRunContextAfterOptions) {
	p.mu.Lock()
	s := p.at[in.InstanceKey]
	delete(p.at, in.InstanceKey)
	p.mu.Unlock()
	if s != nil && s.watch != nil {
		s.watch.quiet()
	}
}
