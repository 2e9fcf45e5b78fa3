//go:build !noserver

package activities

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"google.golang.org/grpc"

	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/s3server"
	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

func TestMain(m *testing.M) { s3server.Main(m) }

// tiny makes whole stages on the tiny model last a second.
var tiny = map[string]string{
	"preferences.pairs": "12", "preferences.min_pairs": "4", "preferences.max_candidates": "60", "preferences.teacher.max_tokens": "128", "preferences.student.max_tokens": "128",
	"preferences.filter.repetition_threshold": "-1", "dpo.rank": "4", "dpo.alpha": "4", "dpo.batch_size": "2", "dpo.epochs": "2", "dpo.learning_rate": "1e-3",
	"introspection.reflections": "4", "introspection.interactions": "2", "introspection.turns": "2", "introspection.interaction.max_tokens": "256",
	"introspection.filter.repetition_threshold": "-1", "evaluation.held_out": "4",
}

// kit is a store, a tiny model and a plan.
type kit struct {
	t      *testing.T
	cfg    store.Config
	store  *store.Store
	data   *Data
	hub    hub.Options
	plan   store.Ref
	engine *Engine
}

func newKit(t *testing.T, set ...string) *kit {
	t.Helper()
	server := s3server.Shared(t)
	k := &kit{t: t, cfg: store.Config{Endpoint: server.Endpoint, Bucket: "activities", Prefix: "t/" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")),
		AccessKey: server.AccessKey, SecretKey: server.SecretKey}}
	var err error
	if k.store, err = store.Open(t.Context(), k.cfg); err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(t.TempDir(), "tiny")
	if err := tinymodel.Write(model, 1); err != nil {
		t.Fatal(err)
	}
	k.data, k.hub = &Data{Store: k.store}, hub.Options{CacheDir: t.TempDir(), Clients: [][]string{}}
	raw := k.spec(append([]string{"model", model}, set...)...)
	b, err := k.data.ResolveSpec(t.Context(), ResolveInput{Spec: raw})
	if err != nil {
		t.Fatal(err)
	}
	k.fresh()
	k.plan = do[InspectModelOutput](k, k.engine.InspectModel, InspectModelInput{Plan: b.Plan}).Plan
	return k
}

// spec is the tiny spec with some fields set.
func (k *kit) spec(set ...string) json.RawMessage {
	k.t.Helper()
	raw := []byte("{}")
	var err error
	for key, v := range tiny {
		if raw, err = spec.Set(raw, key, v); err != nil {
			k.t.Fatal(err)
		}
	}
	for i := 0; i < len(set); i += 2 {
		if raw, err = spec.Set(raw, set[i], set[i+1]); err != nil {
			k.t.Fatal(err)
		}
	}
	return raw
}

// testWorkflow is the workflow id that the SDK's test environment gives its activities.
const testWorkflow = "default-test-workflow-id"

// fresh is a worker that has just started: nothing is in its memory.
func (k *kit) fresh() { k.engine = &Engine{Store: k.store, Hub: k.hub} }

// do runs an activity to its success.
func do[T any](k *kit, f any, in any) T {
	k.t.Helper()
	out, err := try[T](k, f, in, nil, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	return out
}

// try runs an activity as a worker would. stop is the worker's stop channel; beat hears every heartbeat.
func try[T any](k *kit, f any, in any, stop chan struct{}, beat func(Live)) (T, error) {
	k.t.Helper()
	var ts testsuite.WorkflowTestSuite
	env := ts.NewTestActivityEnvironment()
	env.SetTestTimeout(time.Minute)
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{&server{beat: beat}}})
	if stop != nil {
		env.SetWorkerStopChannel(stop)
	}
	env.RegisterActivity(f)
	var out T
	v, err := env.ExecuteActivity(f, in)
	if err == nil {
		err = v.Get(&out)
	}
	return out, err
}

// server takes heartbeats in place of a Temporal server.
type server struct {
	interceptor.WorkerInterceptorBase
	mu   sync.Mutex
	beat func(Live)
}

func (s *server) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &inbound{interceptor.ActivityInboundInterceptorBase{Next: next}, s}
}

type inbound struct {
	interceptor.ActivityInboundInterceptorBase
	s *server
}

func (i *inbound) Init(next interceptor.ActivityOutboundInterceptor) error {
	return i.Next.Init(newOutbound(activity.GetClient)(interceptor.ActivityOutboundInterceptorBase{Next: next}, fakeClient{s: i.s}))
}

// outbound gives activities a client of the test. C is the SDK's type of it, which has no public name.
type outbound[C any] struct {
	interceptor.ActivityOutboundInterceptorBase
	c C
}

func newOutbound[C any](func(context.Context) C) func(interceptor.ActivityOutboundInterceptorBase, C) *outbound[C] {
	return func(b interceptor.ActivityOutboundInterceptorBase, c C) *outbound[C] { return &outbound[C]{b, c} }
}

// GetInfo asks for a heartbeat every few milliseconds.
func (o *outbound[C]) GetInfo(ctx context.Context) activity.Info {
	i := o.Next.GetInfo(ctx)
	i.HeartbeatTimeout = 15 * time.Millisecond
	return i
}

func (o *outbound[C]) GetClient(context.Context) C { return o.c }

type fakeClient struct {
	client.Client
	s *server
}

func (c fakeClient) WorkflowService() workflowservice.WorkflowServiceClient {
	return fakeService{s: c.s}
}

type fakeService struct {
	workflowservice.WorkflowServiceClient
	s *server
}

func (f fakeService) RecordActivityTaskHeartbeat(_ context.Context, r *workflowservice.RecordActivityTaskHeartbeatRequest, _ ...grpc.CallOption) (*workflowservice.RecordActivityTaskHeartbeatResponse, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	var l Live
	if r.Details != nil {
		if err := converter.GetDefaultDataConverter().FromPayloads(r.Details, &l); err != nil {
			panic(err) // the CLI reads them in this way
		}
	}
	if f.s.beat != nil {
		f.s.beat(l)
	}
	return &workflowservice.RecordActivityTaskHeartbeatResponse{}, nil
}
