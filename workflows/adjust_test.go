package workflows_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/testsuite"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workflows"
)

// outcome is what an update came to.
type outcome struct {
	rejected, failed error
	value            any
	done             bool
}

func (s *suite) update(name string, arg any) *outcome {
	o := &outcome{}
	s.UpdateWorkflow(name, "", &testsuite.TestUpdateCallback{OnAccept: func() {}, OnReject: func(err error) { o.rejected = err },
		OnComplete: func(v any, err error) { o.value, o.failed, o.done = v, err, true }}, arg)
	return o
}

// adjusting lets AdjustSpec do what the real one does to the numbers that workflows steer by.
func adjusting(s *suite, t *testing.T) *[]string {
	var seen []string
	resolved, err := spec.Resolve([]byte(`{"preferences":{"pairs":16,"min_pairs":4},"introspection":{"reflections":4,"interactions":2}}`))
	if err != nil {
		t.Fatal(err)
	}
	s.OnActivity("AdjustSpec", mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.AdjustInput) (activities.AdjustOutput, error) {
		out := activities.AdjustOutput{Sizes: activities.Sizes{MinPairs: 4, MinShare: .5, Oversample: 6, ReflectionTries: 24, InteractionTries: 18}}
		n := resolved
		if len(in.Changes) > 0 {
			seen = append(seen, string(in.Changes))
			list, err := spec.ParseAdjust(in.Changes)
			if err != nil {
				return out, err
			}
			if n, out.Changes, err = n.Adjust(list, func(part string) spec.Phase { return in.Stages[part] }); err != nil {
				return out, err
			}
		}
		key := "adjusted"
		for range seen {
			key += "+"
		}
		out.Brief = activities.Brief{Plan: store.Ref{Key: key, SHA256: key, Size: 1}, Constitution: "captain", Preset: "demo", Model: "tiny", Teacher: "local", Pairs: n.Preferences.Pairs, PairChunk: 8,
			Reflections: n.Introspection.Reflections, Interactions: n.Introspection.Interactions, Chunk: 4}
		return out, nil
	})
	return &seen
}

// TestAdjustARun: the adjusted plan reaches the stage that runs and those after it, and the record says so.
func TestAdjustARun(t *testing.T) {
	s := newSuite(t)
	seen := adjusting(s, t)
	var fewer, bad *outcome
	s.RegisterDelayedCallback(func() { s.UpdateWorkflowNoRejection(workflows.UpdatePause, "p", t) }, 0)
	s.RegisterDelayedCallback(func() {
		bad = s.update(workflows.UpdateAdjust, input(`{"seed":2}`))
		fewer = s.update(workflows.UpdateAdjust, input(`{"preferences.pairs":8,"dpo.epochs":3}`))
	}, time.Hour)
	s.RegisterDelayedCallback(func() { s.UpdateWorkflowNoRejection(workflows.UpdateResume, "r", t) }, 2*time.Hour)
	s.ExecuteWorkflow(workflows.CharacterTraining, input(`{}`))
	if err := s.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	if bad.rejected == nil || !strings.Contains(bad.rejected.Error(), "start another run") {
		t.Errorf("what shapes everything: %+v", bad)
	}
	if !fewer.done || fewer.failed != nil {
		t.Fatalf("adjust: %+v", fewer)
	}
	most := 0
	for _, c := range s.chunks {
		if c.Role == activities.RoleTeacher {
			most = max(most, c.To)
		}
	}
	if most >= 32 {
		t.Errorf("the teacher was asked %d prompts for 8 pairs", most)
	}
	last := s.records[len(s.records)-1]
	if len(*seen) != 1 || last.Plan.Key != "adjusted+" || len(last.Adjusted) != 2 || last.Adjusted[0].Key != "dpo.epochs" || last.Adjusted[0].At.IsZero() {
		t.Errorf("record %+v after %v", last, *seen)
	}
}

// TestFinishEarly: a stage ends with what it has when that is enough, and not before; asked again, it does no more.
func TestFinishEarly(t *testing.T) {
	s := newSuite(t, "Generate")
	seen := adjusting(s, t)
	s.OnActivity("Generate", mock.Anything, mock.Anything).After(time.Minute).Return(func(_ context.Context, in activities.ChunkInput) (activities.ChunkOutput, error) {
		s.chunks = append(s.chunks, in)
		n := int64(in.To-in.From) / 2
		return activities.ChunkOutput{Chain: store.Ref{Key: in.Role, SHA256: in.Role, Size: 1}, Rows: 2 * n, Kept: n}, nil
	})
	var few, bad, begun, early, again *outcome
	s.RegisterDelayedCallback(func() {
		few = s.update(workflows.UpdateFinish, workflows.Finish{})
		bad = s.update(workflows.UpdateFinish, workflows.Finish{Stage: "dpo"})
	}, 30*time.Second)
	s.RegisterDelayedCallback(func() {
		begun = s.update(workflows.UpdateAdjust, input(`{"preferences.student.top_p":0.5}`))
		early = s.update(workflows.UpdateFinish, workflows.Finish{Stage: "preferences"})
		again = s.update(workflows.UpdateFinish, workflows.Finish{Stage: "preferences"})
	}, 150*time.Second)
	s.ExecuteWorkflow(workflows.CharacterTraining, input(`{}`))
	if err := s.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	if few.failed == nil || !strings.Contains(few.failed.Error(), "so 4 are missing") {
		t.Errorf("under the floor: %+v", few)
	}
	if bad.rejected == nil || !strings.Contains(bad.rejected.Error(), "dpo has not begun") {
		t.Errorf("a stage that has not begun: %+v", bad)
	}
	if begun.rejected == nil || !strings.Contains(begun.rejected.Error(), "preferences has begun") {
		t.Errorf("what shaped the rows: %+v", begun)
	}
	for _, o := range []*outcome{early, again} {
		if !o.done || o.failed != nil {
			t.Errorf("finish-early: %+v", o)
		}
	}
	most := 0
	for _, c := range s.chunks {
		if c.Role == activities.RoleTeacher {
			most = max(most, c.To)
		}
	}
	last := s.records[len(s.records)-1]
	if most != 16 || len(last.Adjusted) != 1 || last.Adjusted[0].Key != "preferences.pairs" || string(last.Adjusted[0].To) != "8" {
		t.Errorf("%d prompts were tried; adjusted: %+v", most, last.Adjusted)
	}
	if len(*seen) != 2 || (*seen)[0] != `{"preferences.pairs":8}` || (*seen)[1] != (*seen)[0] { // by the stage, and by the run
		t.Errorf("changes %v", *seen)
	}
}

// TestLongEarlyEnd: an early end that was asked for at the end of a history holds in the next.
func TestLongEarlyEnd(t *testing.T) {
	s := newSuite(t, "TrainSegment")
	seen := adjusting(s, t)
	var streams []string
	s.OnActivity("TrainSegment", mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.TrainInput) (activities.SegmentOutput, error) {
		streams = append(streams, in.Key)
		return activities.SegmentOutput{Step: 5, Total: 5, Done: true, Adapter: &activities.AdapterRef{}}, nil
	})
	next := `{"kind":"dpo","preferences":{"kind":"preferences","key":"p","parts":[{"key":"pairs","sha256":"pairs","size":1}],"rows":16,"kept":16},
 "brief":{"plan":{"key":"plan","sha256":"plan","size":1}},"continued":{"reference":{"key":"reference","sha256":"r","size":1},"stream":"first","finish":true,"asked":"u","progress":{"name":"dpo","state":"running","unit":"steps","done":5,"total":10},"told":3,"sizes":{}}}`
	s.ExecuteWorkflow(workflows.TrainAdapter, input(next))
	if err := s.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	if len(*seen) != 1 || (*seen)[0] != `{"dpo.steps":5}` {
		t.Errorf("changes %v", *seen)
	}
	if len(streams) == 0 || streams[0] != "first" {
		t.Errorf("it trains in stream %v: an adjustment must not lose the checkpoints", streams)
	}
}
