package workers_test

import (
	"context"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workers"
)

// frontend is as much of a Temporal server as a worker needs to start and to find nothing to do. It remembers who called
// what on which queue, with which key.
type frontend struct {
	workflowservice.UnimplementedWorkflowServiceServer
	mu    sync.Mutex
	calls map[string]int
	keys  map[string]bool
}

func (f *frontend) saw(ctx context.Context, call string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	f.calls[call]++
	f.keys[strings.Join(md.Get("authorization"), ",")] = true
}

func (f *frontend) count(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[call]
}

func (f *frontend) GetSystemInfo(ctx context.Context, _ *workflowservice.GetSystemInfoRequest) (*workflowservice.GetSystemInfoResponse, error) {
	f.saw(ctx, "info")
	return &workflowservice.GetSystemInfoResponse{Capabilities: &workflowservice.GetSystemInfoResponse_Capabilities{}}, nil
}

func (f *frontend) DescribeNamespace(ctx context.Context, r *workflowservice.DescribeNamespaceRequest) (*workflowservice.DescribeNamespaceResponse, error) {
	f.saw(ctx, "namespace "+r.Namespace)
	if r.Namespace == "gone" {
		return nil, serviceerror.ToStatus(serviceerror.NewNamespaceNotFound("gone")).Err()
	}
	return &workflowservice.DescribeNamespaceResponse{}, nil
}

func (f *frontend) PollWorkflowTaskQueue(ctx context.Context, r *workflowservice.PollWorkflowTaskQueueRequest) (*workflowservice.PollWorkflowTaskQueueResponse, error) {
	f.saw(ctx, "workflows of "+r.TaskQueue.GetName())
	<-ctx.Done()
	return nil, ctx.Err()
}

func (f *frontend) PollActivityTaskQueue(ctx context.Context, r *workflowservice.PollActivityTaskQueueRequest) (*workflowservice.PollActivityTaskQueueResponse, error) {
	f.saw(ctx, "activities of "+r.TaskQueue.GetName())
	<-ctx.Done()
	return nil, ctx.Err()
}

func (f *frontend) ShutdownWorker(context.Context, *workflowservice.ShutdownWorkerRequest) (*workflowservice.ShutdownWorkerResponse, error) {
	return &workflowservice.ShutdownWorkerResponse{}, nil
}

func (f *frontend) ListWorkflowExecutions(ctx context.Context, r *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	f.saw(ctx, "look in "+r.Namespace)
	return &workflowservice.ListWorkflowExecutionsResponse{}, nil
}

func (f *frontend) DescribeTaskQueue(context.Context, *workflowservice.DescribeTaskQueueRequest) (*workflowservice.DescribeTaskQueueResponse, error) {
	return &workflowservice.DescribeTaskQueueResponse{}, nil
}

func serve(t *testing.T) (address string, f *frontend) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f = &frontend{calls: map[string]int{}, keys: map[string]bool{}}
	s := grpc.NewServer()
	workflowservice.RegisterWorkflowServiceServer(s, f)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), f
}

func plugin(t *testing.T, o workers.Options) *workers.Plugin {
	t.Helper()
	o.Store = &store.Store{}
	p, err := workers.NewPlugin(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func mine(workflow.Context) error { return nil }

func key(string) string { return "" }

// TestPlugin: workers on our queues serve our stages, with what they need, beside what the program has; others are as they were.
func TestPlugin(t *testing.T) {
	address, f := serve(t)
	p := plugin(t, workers.Options{Key: key})
	o := client.Options{HostPort: "127.0.0.1:1", Namespace: "ours", Plugins: []client.Plugin{p}, Credentials: client.NewAPIKeyStaticCredentials("the-key"),
		ConnectionOptions: client.ConnectionOptions{TLSDisabled: true, GetSystemInfoTimeout: time.Second}}
	if _, err := client.Dial(o); err == nil { // as while a server is away
		t.Fatal("port 1 answers")
	}
	o.HostPort, o.ConnectionOptions.GetSystemInfoTimeout = address, time.Minute
	c, err := client.Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, queue := range []string{workers.DataQueue, workers.TeacherQueue, workers.EngineQueue, "mine"} {
		w := worker.New(c, queue, worker.Options{WorkerStopTimeout: time.Second})
		if queue == workers.DataQueue || queue == "mine" {
			w.RegisterWorkflow(mine)
		}
		if err := w.Start(); err != nil {
			t.Fatalf("%s: %v", queue, err)
		}
		defer w.Stop()
	}
	deadline := time.Now().Add(time.Minute)
	for _, call := range []string{"workflows of character", "activities of character", "activities of character-teacher", "activities of character-engine", "workflows of mine", "look in ours"} {
		for f.count(call) == 0 {
			if time.Now().After(deadline) {
				t.Fatalf("no %s; there were %v", call, f.calls)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	for _, call := range []string{"workflows of character-teacher", "workflows of character-engine"} {
		if f.count(call) != 0 {
			t.Errorf("there were %s", call)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.keys) != 1 || !f.keys["Bearer the-key"] {
		t.Errorf("calls were made with the keys %v", f.keys)
	}
}

// TestPluginMistakes: every mistake is one error of Start; none is a panic.
func TestPluginMistakes(t *testing.T) {
	address, _ := serve(t)
	plain, err := client.Dial(client.Options{HostPort: address})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	clashes := func(w worker.Worker) {
		w.RegisterActivityWithOptions(func(context.Context) error { return nil }, activity.RegisterOptions{Name: "ResolveSpec"})
	}
	for name, c := range map[string]struct {
		o      workers.Options // of the plugin
		queue  string
		w      worker.Options
		client bool // the plugin is in the client's options, too
		more   func(worker.Worker)
		want   string
	}{
		"not in the client":    {queue: "character", want: "client.Options.Plugins"},
		"another queue":        {queue: "character-data", want: `"character" (data)`},
		"a queue left out":     {o: workers.Options{Queues: []string{"data"}}, queue: "character-engine", want: "does not serve"},
		"no keys":              {queue: "character-teacher", client: true, want: "API keys"},
		"slots of a teacher":   {o: workers.Options{Key: key}, queue: "character-teacher", w: worker.Options{MaxConcurrentActivityExecutionSize: 3}, client: true, want: "TeacherSlots"},
		"slots of an engine":   {queue: "character-engine", w: worker.Options{MaxConcurrentActivityExecutionSize: 3}, client: true, want: "one slot a device"},
		"identity":             {o: workers.Options{Identity: "a"}, queue: "character", w: worker.Options{Identity: "b"}, client: true, want: "Identity"},
		"version":              {queue: "character", w: worker.Options{DeploymentOptions: worker.DeploymentOptions{UseVersioning: true}}, client: true, want: "workers.Options.Deployment"},
		"a name that is taken": {queue: "character", client: true, more: clashes, want: "ResolveSpec"},
		"twice is once":        {queue: "character", client: true},
	} {
		t.Run(name, func(t *testing.T) {
			p, cl := plugin(t, c.o), plain
			if c.client {
				var err error
				if cl, err = client.Dial(client.Options{HostPort: address, Plugins: []client.Plugin{p}}); err != nil {
					t.Fatal(err)
				}
				defer cl.Close()
			}
			c.w.Plugins, c.w.WorkerStopTimeout = []worker.Plugin{p}, time.Second
			w := worker.New(cl, c.queue, c.w)
			if c.more != nil {
				c.more(w)
			}
			err := w.Start()
			if err == nil {
				w.Stop()
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	t.Run("two plugins", func(t *testing.T) {
		c, err := client.Dial(client.Options{HostPort: address, Plugins: []client.Plugin{plugin(t, workers.Options{})}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := workers.New(c, workers.Options{Queues: []string{"data"}, Store: &store.Store{}}); err == nil || !strings.Contains(err.Error(), "two plugins") {
			t.Error(err)
		}
	})
	t.Run("no such namespace", func(t *testing.T) { // the watcher must not outlive it
		p := plugin(t, workers.Options{})
		c, err := client.Dial(client.Options{HostPort: address, Namespace: "gone", Plugins: []client.Plugin{p}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := worker.New(c, "character", worker.Options{}).Start(); err == nil {
			t.Error("a worker starts in a namespace that is not there")
		}
	})
	for name, o := range map[string]workers.Options{
		"queue":      {Store: &store.Store{}, Queues: []string{"date"}},
		"store":      {},
		"deployment": {Store: &store.Store{}, Deployment: workers.Deployment{Build: "1"}},
		"own":        {Store: &store.Store{}, Own: activities.Own{Filters: make([]dataset.Filter, 1)}},
	} {
		if _, err := workers.NewPlugin(o); err == nil {
			t.Errorf("%s: %+v is taken", name, o)
		}
	}
}

// TestPluginReplays: a replayer with the plugin knows our workflows.
func TestPluginReplays(t *testing.T) {
	r, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{Plugins: []worker.Plugin{plugin(t, workers.Options{})}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := client.HistoryFromJSON(open(t, "../workflows/testdata/history/v3-evaluation.json"), client.HistoryJSONOptions{})
	if err != nil {
		t.Fatal(err)
	}
	id := h.Events[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowId()
	if err := r.ReplayWorkflowHistoryWithOptions(nil, h, worker.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: id}}); err != nil {
		t.Error(err)
	}
}
