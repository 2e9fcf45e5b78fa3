package workflows_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workflows"
)

// suite runs CharacterTraining with activities that only count: 40 prompts, half of them pass, ten training steps.
type suite struct {
	*testsuite.TestWorkflowEnvironment
	calls   map[string]int
	records []activities.Record
	chunks  []activities.ChunkInput
}

// newSuite leaves the named activities to the test.
func newSuite(t *testing.T, except ...string) *suite {
	var ts testsuite.WorkflowTestSuite
	s := &suite{TestWorkflowEnvironment: ts.NewTestWorkflowEnvironment(), calls: map[string]int{}}
	s.SetTestTimeout(30 * time.Second)
	for _, w := range []any{workflows.CharacterTraining, workflows.GeneratePreferences, workflows.TrainAdapter, workflows.GenerateIntrospection, workflows.EvaluateCharacter} {
		s.RegisterWorkflow(w)
	}
	s.RegisterActivity(&activities.Data{})
	s.RegisterActivity(&activities.Teacher{})
	s.RegisterActivity(&activities.Engine{})
	on := func(name string, result ...any) {
		if !slices.Contains(except, name) {
			s.OnActivity(name, mock.Anything, mock.Anything).Return(result...)
		}
	}
	ref := func(k string) store.Ref { return store.Ref{Key: k, SHA256: k, Size: 1} }
	adapter := &activities.AdapterRef{Files: map[string]store.Ref{"adapter_model.safetensors": ref("a")}}
	brief := activities.Brief{Plan: ref("plan"), Constitution: "captain", Preset: "demo", Model: "tiny", Teacher: "local", Pairs: 16, PairChunk: 8, Reflections: 4, Interactions: 2, Chunk: 4}
	on("ResolveSpec", func(_ context.Context, in activities.ResolveInput) (activities.Brief, error) {
		s.calls["ResolveSpec"]++
		if strings.Contains(string(in.Spec), "bad") {
			return brief, temporal.NewNonRetryableApplicationError("spec: bad field", activities.BadInput, nil)
		}
		return brief, nil
	})
	on("InspectModel", activities.InspectModelOutput{Plan: ref("pinned")}, nil)
	on("FindStage", func(_ context.Context, in activities.FindStageInput) (activities.FindStageOutput, error) {
		return activities.FindStageOutput{Key: "key-" + in.Kind}, nil
	})
	on("MakePrompts", activities.PromptSet{Index: ref("prompts"), Count: 40}, nil)
	chunk := func(_ context.Context, in activities.ChunkInput) (activities.ChunkOutput, error) {
		s.chunks = append(s.chunks, in)
		n := int64(in.To - in.From)
		if in.Only != nil {
			return activities.ChunkOutput{Chain: ref(in.Role), Rows: n / 2, Kept: n / 2}, nil
		}
		return activities.ChunkOutput{Chain: ref(in.Role), Rows: n, Kept: n / 2, Dropped: map[string]int64{"unfinished": n - n/2}}, nil
	}
	on("Generate", chunk)
	on("Converse", chunk)
	on("JoinPairs", activities.Stage{Kind: activities.KindPreferences, Key: "p", Parts: []store.Ref{ref("pairs")}, Rows: 32, Kept: 16}, nil)
	on("JoinIntrospection", activities.Stage{Kind: activities.KindIntrospection, Key: "i", Parts: []store.Ref{ref("talks")}, Rows: 12, Kept: 6}, nil)
	on("KeepStage", func(_ context.Context, st activities.Stage) (activities.Stage, error) { return st, nil })
	on("PrepareTraining", activities.PrepareOutput{Rows: 16, Kept: 16, Steps: 10}, nil)
	on("ReferenceLogProbs", activities.ChunkOutput{Chain: ref("reference"), Rows: 16, Kept: 16}, nil)
	step := map[string]int{}
	on("TrainSegment", func(_ context.Context, in activities.TrainInput) (activities.SegmentOutput, error) {
		step[in.Kind] += 5
		o := activities.SegmentOutput{Step: step[in.Kind], Total: 10, Values: map[string]float64{"loss": .5}}
		if o.Step == 10 {
			o.Done, o.Adapter = true, adapter
		}
		s.calls[in.Kind]++
		if in.Kind == activities.KindDPO && in.Reference == nil || in.Kind == activities.KindSFT && len(in.Frozen) != 1 {
			return o, errors.New("the training lacks its reference or its frozen adapter")
		}
		return o, nil
	})
	on("EvaluateModel", func(_ context.Context, in activities.EvaluateInput) (activities.EvaluateOutput, error) {
		s.calls["evaluate "+in.Which]++
		return activities.EvaluateOutput{Result: ref(in.Which)}, nil
	})
	on("JoinEvaluation", activities.Stage{Kind: activities.KindEvaluation, Key: "e", Kept: 2, Values: map[string]float64{"gain_dpo": 1.5}}, nil)
	on("RecordRun", func(_ context.Context, r activities.Record) error {
		s.records = append(s.records, r)
		return nil
	})
	return s
}

func input(s string) workflows.Input { return workflows.NewInput(json.RawMessage(s)) }

func progress(t *testing.T, s *suite) workflows.Progress {
	t.Helper()
	v, err := s.QueryWorkflow(workflows.QueryProgress)
	if err != nil {
		t.Fatal(err)
	}
	var p workflows.Progress
	if err := v.Get(&p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCharacterTraining(t *testing.T) {
	s := newSuite(t)
	s.ExecuteWorkflow(workflows.CharacterTraining, input(`{"constitution":"captain"}`))
	if err := s.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	var r workflows.Result
	if err := s.GetWorkflowResult(&r); err != nil {
		t.Fatal(err)
	}
	if len(r.Stages) != 5 || r.Evaluation["gain_dpo"] != 1.5 {
		t.Errorf("result %+v", r)
	}
	p := progress(t, s)
	if p.State != workflows.Completed {
		t.Errorf("state %s", p.State)
	}
	for _, st := range p.Stages {
		if st.State != workflows.Completed || st.Done != st.Total || st.Kept == 0 {
			t.Errorf("stage %+v", st)
		}
	}
	if s.calls[activities.KindDPO] != 2 || s.calls[activities.KindSFT] != 2 || s.calls["evaluate base"] != 1 || s.calls["evaluate character"] != 1 {
		t.Errorf("calls %v", s.calls)
	}
	if first := s.records[0]; first.State != workflows.Running || first.Plan.Key != "pinned" || len(first.Stages) != 0 {
		t.Errorf("the first record is %+v: a run must be found in the store before its first stage ends", first)
	}
	last := s.records[len(s.records)-1]
	if last.State != workflows.Completed || len(last.Stages) != 5 {
		t.Errorf("last record %+v", last)
	}
	// Generation stops when the target is met: 16 pairs at one half take 32 prompts, not 40.
	most := 0
	for _, c := range s.chunks {
		if c.Role == activities.RoleTeacher {
			most = max(most, c.To)
		}
	}
	if most < 32 || most >= 40 {
		t.Errorf("the teacher was asked %d prompts", most)
	}
}

func TestBadSpecFails(t *testing.T) {
	s := newSuite(t)
	s.ExecuteWorkflow(workflows.CharacterTraining, input(`{"bad":1}`))
	if err := s.GetWorkflowError(); err == nil || !strings.Contains(err.Error(), "bad field") {
		t.Errorf("error %v", err)
	}
	if p := progress(t, s); p.State != workflows.Failed || p.Error != "spec: bad field" {
		t.Errorf("progress %+v", p)
	}
	if s.calls["ResolveSpec"] != 1 {
		t.Errorf("a bad spec was resolved %d times", s.calls["ResolveSpec"])
	}
}

func TestStageAloneRefusesUnknownFields(t *testing.T) {
	for _, c := range []struct {
		run  any
		in   string
		want string
	}{
		{workflows.TrainAdapter, `{"knid":"dpo"}`, "unknown field"},
		{workflows.TrainAdapter, `{"kind":"ppo"}`, `kind "ppo" is not dpo or sft`},
		{workflows.TrainAdapter, `{"kind":"dpo"}`, "needs a data set"},
		{workflows.TrainAdapter, `{"kind":"sft"}`, "on top of a DPO adapter"},
		{workflows.GenerateIntrospection, `{}`, "after DPO"},
		{workflows.EvaluateCharacter, `{}`, "dpo and sft"},
	} {
		s := newSuite(t)
		s.ExecuteWorkflow(c.run, input(c.in))
		if err := s.GetWorkflowError(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.in, err, c.want)
		}
	}
}

func TestStageAlone(t *testing.T) {
	s := newSuite(t)
	s.ExecuteWorkflow(workflows.GeneratePreferences, input(`{"spec":{"constitution":"captain"}}`))
	if err := s.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	var st activities.Stage
	if err := s.GetWorkflowResult(&st); err != nil || st.Kept != 16 {
		t.Errorf("%+v %v", st, err)
	}
}

// TestPause pauses a stage before it begins: nothing runs until resume, and a second pause is refused.
func TestPause(t *testing.T) {
	s := newSuite(t)
	var before int
	refused := false
	s.RegisterDelayedCallback(func() { s.UpdateWorkflowNoRejection(workflows.UpdatePause, "1", t) }, 0)
	s.RegisterDelayedCallback(func() {
		before = len(s.chunks)
		s.UpdateWorkflow(workflows.UpdatePause, "2", &testsuite.TestUpdateCallback{OnReject: func(error) { refused = true }, OnAccept: func() {}, OnComplete: func(any, error) {}})
	}, time.Hour)
	s.RegisterDelayedCallback(func() {
		if len(s.chunks) != before {
			t.Errorf("%d chunks ran during the pause", len(s.chunks)-before)
		}
		s.UpdateWorkflowNoRejection(workflows.UpdateResume, "3", t)
	}, 2*time.Hour)
	s.ExecuteWorkflow(workflows.GeneratePreferences, input(`{"spec":{}}`))
	if err := s.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	if !refused {
		t.Error("a second pause was not refused")
	}
	if before > 2 {
		t.Errorf("%d chunks ran before the pause took hold", before)
	}
}
