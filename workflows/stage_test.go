package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/workflows"
)

const trainInput = `{"kind":"dpo","preferences":{"kind":"preferences","key":"p","parts":[{"key":"pairs","sha256":"pairs","size":1}],"rows":16,"kept":16}}`

// TestErrorKeepsItsWhole: an error that says what within where arrives at the user with both.
func TestErrorKeepsItsWhole(t *testing.T) {
	s := newSuite(t, "TrainSegment")
	inner := errors.New("unexpected EOF")
	err := fmt.Errorf("model /m.gguf: %w", inner)
	s.OnActivity("TrainSegment", mock.Anything, mock.Anything).Return(activities.SegmentOutput{}, temporal.NewNonRetryableApplicationError(err.Error(), activities.BadInput, err))
	s.ExecuteWorkflow(workflows.CharacterTraining, input(`{}`))
	p := progress(t, s)
	if p.State != workflows.Failed || p.Error != "model /m.gguf: unexpected EOF" {
		t.Errorf("state %s, error %q", p.State, p.Error)
	}
	if last := s.records[len(s.records)-1]; last.State != workflows.Failed || len(last.Stages) != 1 {
		t.Errorf("record %+v", last)
	}
	for _, st := range p.Stages {
		if st.Name == activities.KindDPO && st.State != workflows.Failed {
			t.Errorf("stage %+v", st)
		}
	}
}

// TestCancel: a cancelled run ends as cancelled, and what it made is recorded.
func TestCancel(t *testing.T) {
	s := newSuite(t, "EvaluateModel")
	s.OnActivity("EvaluateModel", mock.Anything, mock.Anything).Return(func(ctx context.Context, _ activities.EvaluateInput) (activities.EvaluateOutput, error) {
		s.CancelWorkflow()
		<-ctx.Done()
		return activities.EvaluateOutput{}, ctx.Err()
	})
	s.ExecuteWorkflow(workflows.CharacterTraining, input(`{}`))
	if err := s.GetWorkflowError(); !temporal.IsCanceledError(err) {
		t.Errorf("error %v", err)
	}
	if p := progress(t, s); p.State != workflows.Cancelled || p.Error != "" || p.Stages[4].State != workflows.Cancelled {
		t.Errorf("progress %+v", p)
	}
	if last := s.records[len(s.records)-1]; last.State != workflows.Cancelled || len(last.Stages) != 4 {
		t.Errorf("record %+v", last)
	}
}

// TestLongTrainingGoesOnInANewHistory: with what it must keep, and not before.
func TestLongTrainingGoesOnInANewHistory(t *testing.T) {
	s := newSuite(t)
	s.SetOnActivityCompletedListener(func(info *activity.Info, _ converter.EncodedValue, _ error) {
		if info.ActivityType.Name == "TrainSegment" {
			s.SetCurrentHistoryLength(1501)
		}
	})
	s.ExecuteWorkflow(workflows.TrainAdapter, input(trainInput))
	var next *workflow.ContinueAsNewError
	if err := s.GetWorkflowError(); !errors.As(err, &next) {
		t.Fatalf("error %v", err)
	}
	if in := string(next.Input.Payloads[0].Data); !strings.Contains(in, `"brief":{`) || !strings.Contains(in, `"reference":{"key":"reference"`) {
		t.Errorf("it goes on with %s", in)
	}

	again := newSuite(t, "ReferenceLogProbs", "ResolveSpec")
	again.ExecuteWorkflow(workflows.TrainAdapter, input(string(next.Input.Payloads[0].Data)))
	if err := again.GetWorkflowError(); err != nil {
		t.Errorf("the second half: %v", err)
	}
}

// TestLongScoringGoesOnInANewHistory: a training of very many pairs does so already before its first step.
func TestLongScoringGoesOnInANewHistory(t *testing.T) {
	var mu sync.Mutex
	var scored []int // the first pair of each chunk
	score := func(s *suite) {
		s.OnActivity("PrepareTraining", mock.Anything, mock.Anything).Return(activities.PrepareOutput{Rows: 1000, Kept: 1000, Steps: 10, Lanes: 2}, nil)
		s.OnActivity("ReferenceLogProbs", mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.TrainInput) (activities.ChunkOutput, error) {
			n := int64(in.To - in.From)
			if n > 128 {
				t.Errorf("a chunk of %d pairs", n)
			}
			mu.Lock()
			defer mu.Unlock()
			scored = append(scored, in.From)
			return activities.ChunkOutput{Chain: key("reference", in.From, in.To), Rows: n, Kept: n, Lanes: 1}, nil
		})
		s.OnActivity("LinkChunks", mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.LinkInput) (activities.LinkOutput, error) {
			return activities.LinkOutput{Chains: in.Chains[0].Chunks[len(in.Chains[0].Chunks)-1:]}, nil
		})
	}
	s := newSuite(t, "PrepareTraining", "ReferenceLogProbs")
	score(s)
	s.SetOnActivityCompletedListener(func(info *activity.Info, _ converter.EncodedValue, _ error) {
		mu.Lock()
		defer mu.Unlock()
		if len(scored) >= 4 {
			s.SetCurrentHistoryLength(1500)
		}
	})
	s.ExecuteWorkflow(workflows.TrainAdapter, input(trainInput))
	var next *workflow.ContinueAsNewError
	if err := s.GetWorkflowError(); !errors.As(err, &next) {
		t.Fatalf("error %v", err)
	}
	if s.calls[activities.KindDPO] != 0 {
		t.Error("it trained before all pairs were scored")
	}
	again := newSuite(t, "ResolveSpec", "PrepareTraining", "ReferenceLogProbs")
	score(again)
	again.ExecuteWorkflow(workflows.TrainAdapter, input(string(next.Input.Payloads[0].Data)))
	if err := again.GetWorkflowError(); err != nil {
		t.Fatalf("the second half: %v", err)
	}
	slices.Sort(scored)
	if len(slices.Compact(scored)) != len(scored) || len(scored) < 8 || scored[0] != 0 {
		t.Errorf("chunks from %v were scored", scored)
	}
}

// TestRowsNameATraining: the rows themselves name a training, not the stage that made them.
func TestRowsNameATraining(t *testing.T) {
	s := newSuite(t, "FindStage")
	var got activities.FindStageInput
	s.OnActivity("FindStage", mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.FindStageInput) (activities.FindStageOutput, error) {
		got = in
		st := &activities.Stage{Kind: in.Kind, Key: "k", Kept: 16, Reused: true}
		return activities.FindStageOutput{Key: "k", Stage: st}, nil
	})
	s.ExecuteWorkflow(workflows.TrainAdapter, input(trainInput))
	if len(got.Upstream) != 1 || got.Upstream[0] != "pairs" {
		t.Errorf("upstream %v", got.Upstream)
	}
	v, err := s.QueryWorkflow(workflows.QueryProgress)
	if err != nil {
		t.Fatal(err)
	}
	var p workflows.StageProgress
	if err := v.Get(&p); err != nil || p.State != workflows.Reused || p.Done != 16 || p.Unit != "rows" {
		t.Errorf("a reused training shows %+v (%v)", p, err)
	}
}

// TestPauseOfARun reaches the stage that runs, and resume goes on.
func TestPauseOfARun(t *testing.T) {
	s := newSuite(t)
	s.RegisterDelayedCallback(func() { s.UpdateWorkflowNoRejection(workflows.UpdatePause, "1", t) }, 0)
	calls := 0
	s.RegisterDelayedCallback(func() {
		calls = len(s.chunks)
		if p := progress(t, s); p.State != workflows.Paused {
			t.Errorf("state %s", p.State)
		}
	}, time.Hour)
	s.RegisterDelayedCallback(func() {
		if len(s.chunks) != calls || calls > 2 {
			t.Errorf("%d chunks ran, %d before the pause took hold", len(s.chunks), calls)
		}
		s.UpdateWorkflowNoRejection(workflows.UpdateResume, "2", t)
	}, 2*time.Hour)
	s.ExecuteWorkflow(workflows.CharacterTraining, input(`{}`))
	if err := s.GetWorkflowError(); err != nil {
		t.Error(err)
	}
}
