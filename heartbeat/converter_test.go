package heartbeat_test

import (
	"context"
	"encoding/base64"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"google.golang.org/grpc"

	"github.com/opencharacter/opencharacter/codec"
	"github.com/opencharacter/opencharacter/heartbeat"
)

// TestConverterOfTheWorker: a worker whose client encrypts has its heartbeats encrypted, though no activity says so.
func TestConverterOfTheWorker(t *testing.T) {
	keys, err := codec.Parse([]byte("k " + base64.StdEncoding.EncodeToString(make([]byte, 32))))
	if err != nil {
		t.Fatal(err)
	}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{BackgroundActivityContext: heartbeat.WithConverter(t.Context(), keys.DataConverter())})
	heard := make(chan struct{})
	var once sync.Once
	record := func(_ context.Context, r *workflowservice.RecordActivityTaskHeartbeatRequest, _ ...grpc.CallOption) (*workflowservice.RecordActivityTaskHeartbeatResponse, error) {
		var plain, text string
		if err := converter.GetDefaultDataConverter().FromPayloads(r.GetDetails(), &plain); err == nil || strings.Contains(r.String(), "rows") {
			t.Errorf("the heartbeat is readable: %v", r)
		}
		if err := keys.DataConverter().FromPayloads(r.GetDetails(), &text); err != nil || text != "17 rows" {
			t.Errorf("%q %v", text, err)
		}
		once.Do(func() { close(heard) })
		return &workflowservice.RecordActivityTaskHeartbeatResponse{}, nil
	}
	env.RegisterActivityWithOptions(func(ctx context.Context) error {
		return heartbeat.RunSending(ctx, record, heartbeat.Options{Every: 5 * time.Millisecond, Details: func() any { return "17 rows" }}, func(context.Context) error {
			select {
			case <-heard:
			case <-time.After(10 * time.Second):
				t.Error("no heartbeat came")
			}
			return nil
		})
	}, activity.RegisterOptions{Name: "work"})
	if _, err := env.ExecuteActivity("work"); err != nil {
		t.Fatal(err)
	}
}
