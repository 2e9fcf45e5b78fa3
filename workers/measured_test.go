package workers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/heartbeat"
	"github.com/opencharacter/opencharacter/metrics"
	"github.com/opencharacter/opencharacter/testenv/scrape"
)

func TestOutcome(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"ok":        nil,
		"cancelled": fmt.Errorf("x: %w", temporal.NewCanceledError()),
		"stopped":   temporal.NewApplicationError("x", heartbeat.StoppedType),
		"failed":    temporal.NewNonRetryableApplicationError("x", activities.BadInput, nil),
		"retry":     errors.New("the network"),
	} {
		if got := outcome(err); got != want {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
}

// TestMeasured runs activities of our types through the interceptor, as a worker does.
func TestMeasured(t *testing.T) {
	t.Parallel()
	m := metrics.Define()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{&measured{m: m}}})
	register := func(name string, f any) { env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name}) }
	register("Generate", func(_ context.Context, in activities.ChunkInput) (activities.ChunkOutput, error) {
		if in.Role == "bad" {
			return activities.ChunkOutput{Kept: 100}, errors.New("no")
		}
		return activities.ChunkOutput{Rows: 5, Kept: 3, Dropped: map[string]int64{"short": 2}, Seconds: 7}, nil
	})
	register("ReferenceLogProbs", func(context.Context, activities.TrainInput) (activities.ChunkOutput, error) {
		return activities.ChunkOutput{Rows: 4, Kept: 4}, nil
	})
	register("TrainSegment", func(context.Context, activities.TrainInput) (activities.SegmentOutput, error) {
		return activities.SegmentOutput{Seconds: 60}, nil
	})
	register("KeepStage", func(_ context.Context, st activities.Stage) (activities.Stage, error) { return st, nil })
	register("JoinPairs", func(context.Context, activities.JoinPairsInput) (activities.Stage, error) {
		return activities.Stage{Kind: "preferences"}, nil
	})
	register("FindStage", func(_ context.Context, in activities.FindStageInput) (activities.FindStageOutput, error) {
		if in.Kind == "sft" {
			return activities.FindStageOutput{Stage: &activities.Stage{Kind: "sft"}}, nil
		}
		return activities.FindStageOutput{}, nil
	})
	for _, c := range []struct {
		name  string
		in    any
		fails bool
	}{
		{"Generate", activities.ChunkInput{Role: "teacher"}, false}, {"Generate", activities.ChunkInput{Role: "bad"}, true}, {"ReferenceLogProbs", activities.TrainInput{}, false},
		{"TrainSegment", activities.TrainInput{Kind: "dpo"}, false}, {"KeepStage", activities.Stage{Kind: "dpo"}, false}, {"JoinPairs", activities.JoinPairsInput{}, false},
		{"FindStage", activities.FindStageInput{Kind: "sft"}, false}, {"FindStage", activities.FindStageInput{Kind: "dpo"}, false},
	} {
		if _, err := env.ExecuteActivity(c.name, c.in); (err != nil) != c.fails {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	w := httptest.NewRecorder()
	m.Handler(&metrics.Health{}, true).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost/metrics", nil))
	seen, err := scrape.Parse(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want   float64
		name   string
		labels []string
	}{
		{3, "character_rows_kept_total", []string{"role=teacher"}},
		{2, "character_rows_dropped_total", []string{"role=teacher", "reason=short"}},
		{0, "character_rows_kept_total", []string{"role=bad"}},
		{4, "character_rows_kept_total", []string{"role=reference"}},
		{1, "character_segment_seconds", []string{"stage=dpo"}},
		{1, "character_stages_total", []string{"stage=dpo", "reused=false"}},
		{1, "character_stages_total", []string{"stage=sft", "reused=true"}},
		{0, "character_stages_total", []string{"stage=preferences"}}, // joined, not kept yet
		{1, "character_activity_seconds", []string{"activity=Generate", "outcome=retry"}},
		{1, "character_activity_seconds", []string{"activity=Generate", "outcome=ok"}},
		{0, "character_activities_running", nil},
		{8, "character_queue_wait_seconds", nil},
	} {
		if got, _ := seen.Sum(c.name, c.labels...); got != c.want {
			t.Errorf("%s%v is %v, want %v", c.name, c.labels, got, c.want)
		}
	}
}
