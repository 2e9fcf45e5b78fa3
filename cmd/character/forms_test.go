package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/query/v1"
	"go.temporal.io/api/schedule/v1"
	"go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/update/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/testenv/stack"
	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

// forms sends the requests that the Temporal UI's form, temporal and tctl send, by the bare API.
type forms struct {
	t *testing.T
	workflowservice.WorkflowServiceClient
	info stack.Info
}

const namespace = "default"

func (m *machine) forms(t *testing.T) *forms {
	t.Helper()
	info, alive, err := stack.Read(m.data)
	if err != nil || !alive {
		t.Fatal(err, alive)
	}
	c, err := grpc.NewClient(info.Temporal, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &forms{t, workflowservice.NewWorkflowServiceClient(c), info}
}

// payload is JSON as a form sends it.
func payload(s string) *common.Payloads {
	return &common.Payloads{Payloads: []*common.Payload{{Metadata: map[string][]byte{"encoding": []byte("json/plain")}, Data: []byte(s)}}}
}

func (f *forms) ctx() context.Context {
	ctx, cancel := context.WithTimeout(f.t.Context(), 2*time.Minute)
	f.t.Cleanup(cancel)
	return ctx
}

func (f *forms) start(id, input string) string {
	f.t.Helper()
	r, err := f.StartWorkflowExecution(f.ctx(), &workflowservice.StartWorkflowExecutionRequest{Namespace: namespace, WorkflowId: id, RequestId: id,
		WorkflowType: &common.WorkflowType{Name: "CharacterTraining"}, TaskQueue: &taskqueue.TaskQueue{Name: "character"}, Input: payload(input), Identity: "a form"})
	if err != nil {
		f.t.Fatal(err)
	}
	return r.RunId
}

// ask sends a query and reads its answer.
func (f *forms) ask(id, name string, out any) error {
	r, err := f.QueryWorkflow(f.ctx(), &workflowservice.QueryWorkflowRequest{Namespace: namespace, Execution: &common.WorkflowExecution{WorkflowId: id}, Query: &query.WorkflowQuery{QueryType: name}})
	if err != nil {
		return err
	}
	return json.Unmarshal(r.QueryResult.Payloads[0].Data, out)
}

// update sends an update and waits for its outcome: the answer, or the refusal.
func (f *forms) update(id, name, input string) (string, string) {
	f.t.Helper()
	in := &update.Input{Name: name}
	if input != "" {
		in.Args = payload(input)
	}
	r, err := f.UpdateWorkflowExecution(f.ctx(), &workflowservice.UpdateWorkflowExecutionRequest{Namespace: namespace, WorkflowExecution: &common.WorkflowExecution{WorkflowId: id},
		Request: &update.Request{Meta: &update.Meta{UpdateId: fmt.Sprint(name, time.Now().UnixNano()), Identity: "a form"}, Input: in}, WaitPolicy: &update.WaitPolicy{LifecycleStage: enums.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_COMPLETED}})
	if err != nil {
		f.t.Fatalf("update %s: %v", name, err)
	}
	if p := r.GetOutcome().GetSuccess().GetPayloads(); len(p) > 0 {
		return string(p[0].Data), ""
	}
	return "", r.GetOutcome().GetFailure().GetMessage()
}

func (f *forms) signal(id, name string) {
	f.t.Helper()
	if _, err := f.SignalWorkflowExecution(f.ctx(), &workflowservice.SignalWorkflowExecutionRequest{Namespace: namespace, WorkflowExecution: &common.WorkflowExecution{WorkflowId: id}, SignalName: name, Identity: "tctl"}); err != nil {
		f.t.Fatal(err)
	}
}

// reset goes back to the first workflow task, as `temporal workflow reset --type FirstWorkflowTask` and tctl's form do.
func (f *forms) reset(id, runID string) {
	f.t.Helper()
	h, err := f.GetWorkflowExecutionHistory(f.ctx(), &workflowservice.GetWorkflowExecutionHistoryRequest{Namespace: namespace, Execution: &common.WorkflowExecution{WorkflowId: id, RunId: runID}})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range h.History.Events {
		if e.EventType != enums.EVENT_TYPE_WORKFLOW_TASK_COMPLETED {
			continue
		}
		if _, err := f.ResetWorkflowExecution(f.ctx(), &workflowservice.ResetWorkflowExecutionRequest{Namespace: namespace, WorkflowExecution: &common.WorkflowExecution{WorkflowId: id, RunId: runID},
			Reason: "test", WorkflowTaskFinishEventId: e.EventId, RequestId: fmt.Sprint(time.Now().UnixNano()), ResetReapplyType: enums.RESET_REAPPLY_TYPE_ALL_ELIGIBLE}); err != nil {
			f.t.Fatal(err)
		}
		return
	}
	f.t.Fatal("no workflow task was completed")
}

// count asks a list view.
func (f *forms) count(q string) int64 {
	f.t.Helper()
	r, err := f.CountWorkflowExecutions(f.ctx(), &workflowservice.CountWorkflowExecutionsRequest{Namespace: namespace, Query: q})
	if err != nil {
		f.t.Fatal(err)
	}
	return r.Count
}

func (f *forms) metadata(id string) *sdk.WorkflowMetadata {
	f.t.Helper()
	r, err := f.QueryWorkflow(f.ctx(), &workflowservice.QueryWorkflowRequest{Namespace: namespace, Execution: &common.WorkflowExecution{WorkflowId: id}, Query: &query.WorkflowQuery{QueryType: "__temporal_workflow_metadata"}})
	if err != nil {
		f.t.Fatal(err)
	}
	var md sdk.WorkflowMetadata
	if err := protojson.Unmarshal(r.QueryResult.Payloads[0].Data, &md); err != nil {
		f.t.Fatal(err)
	}
	return &md
}

// tinyInput is the whole tiny run as a form's input.
func (m *machine) tinyInput(set ...string) string {
	m.t.Helper()
	raw, err := spec.Set([]byte(`{"constitution":"captain"}`), "model", m.model)
	for _, kv := range append(tinymodel.Settings(), set...) {
		k, v, _ := strings.Cut(kv, "=")
		if err == nil {
			raw, err = spec.Set(raw, k, v)
		}
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return string(raw)
}

// TestForms starts a run as the UI's form and the CLIs do, pauses it by signal as tctl does, adjusts and resumes it by
// updates, reads its page, resets it in the middle and at the end, and finds it in list views.
func TestForms(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	// A file that runs on this machine may name: the model is outside the folder of models.
	m.alone("--allow-path", m.model)
	f := m.forms(t)
	first := f.start("form", m.tinyInput("preferences.chunk=2", "dpo.segment_steps=1"))
	m.waitFor("form", "a pair", func(s runState) bool { return s.Stages[0].Kept >= 1 })
	f.signal("form", "pause")
	m.waitFor("form", "standing still", stands)
	if _, why := f.update("form", "pause", ""); !strings.Contains(why, "already paused") {
		t.Errorf("a second pause: %q", why)
	}
	if _, why := f.update("form", "adjust", `{"seed":9}`); !strings.Contains(why, "start another run") {
		t.Errorf("adjust seed: %q", why)
	}
	if out, why := f.update("form", "adjust", `{"sft.epochs":1,"evaluation":{"scored":2}}`); why != "" || !strings.Contains(out, `"sft.epochs"`) {
		t.Errorf("adjust: %s %s", out, why)
	}
	md := f.metadata("form")
	for _, want := range []string{"# form: paused", "| preferences |", "**Next:**", "resume", "[live report](http://127.0.0.1:", "/runs/form)", "sft.epochs", "resolved spec", "dropped"} {
		if !strings.Contains(md.CurrentDetails, want) {
			t.Errorf("the page lacks %q:\n%s", want, md.CurrentDetails)
		}
	}
	said := map[string]string{}
	for _, d := range slices.Concat(md.Definition.QueryDefinitions, md.Definition.UpdateDefinitions, md.Definition.SignalDefinitions) {
		said[d.Name] = d.Description
	}
	for _, name := range []string{"progress", "metrics", "warnings", "pause", "resume", "adjust", "finish-early"} {
		if said[name] == "" {
			t.Errorf("%s has no description", name)
		}
	}
	f.signal("form", "resume")
	m.waitFor("form", "a step", func(s runState) bool { return s.Stages[1].Done >= 1 })
	f.reset("form", first) // updates and signals are sent to the new run again by the server
	m.waitFor("form", "the end", func(s runState) bool { return s.State == "completed" })
	want := m.sums("form")
	if !strings.Contains(want, "adapter_model.safetensors") {
		t.Fatal(want)
	}
	if n := len(m.status("form").Adjusted); n != 2 {
		t.Errorf("%d adjustments are left after the reset", n)
	}
	f.reset("form", first) // the end again: every stage is reused
	m.waitFor("form", "the end again", func(s runState) bool { return s.State == "completed" && s.Stages[4].State == "reused" })
	m.same(t, "form", want)
	for _, q := range []string{`CharacterConstitution="captain" AND CharacterOutcome="completed"`, fmt.Sprintf("CharacterModel=%q", m.model), `CharacterPreset="demo"`} {
		for i := 0; f.count(q) == 0; i++ {
			if i == 100 {
				t.Fatalf("no run in the list view %s", q)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	f.summaries("form", "form/preferences", "form/dpo", "form/introspection", "form/sft", "form/evaluation")
	f.schedule(m)
	f.batch(m)

	fresh := newMachine(t)
	fresh.model = m.model
	fresh.must(fresh.runArgs("fresh", "--set", "preferences.chunk=2", "--set", "dpo.segment_steps=1", "--set", "sft.epochs=1", "--set", "evaluation.scored=2")...)
	fresh.same(t, "fresh", want)
}

// summaries: every entry of the timeline says what it is.
func (f *forms) summaries(ids ...string) {
	f.t.Helper()
	for _, id := range ids {
		h, err := f.GetWorkflowExecutionHistory(f.ctx(), &workflowservice.GetWorkflowExecutionHistoryRequest{Namespace: namespace, Execution: &common.WorkflowExecution{WorkflowId: id}})
		if err != nil {
			f.t.Fatal(err)
		}
		for _, e := range h.History.Events {
			switch e.EventType {
			case enums.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, enums.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED, enums.EVENT_TYPE_TIMER_STARTED:
				if len(e.GetUserMetadata().GetSummary().GetData()) == 0 {
					f.t.Errorf("%s: event %d, %s, has no summary", id, e.EventId, e.EventType)
				}
			}
		}
	}
}

// schedule makes a schedule as `temporal schedule create` does and lets it start a run now, as `temporal schedule trigger`
// does.
func (f *forms) schedule(m *machine) {
	f.t.Helper()
	_, err := f.CreateSchedule(f.ctx(), &workflowservice.CreateScheduleRequest{Namespace: namespace, ScheduleId: "nightly", RequestId: "nightly", Schedule: &schedule.Schedule{
		Spec:   &schedule.ScheduleSpec{CronString: []string{"0 3 * * *"}},
		Action: &schedule.ScheduleAction{Action: &schedule.ScheduleAction_StartWorkflow{StartWorkflow: &workflow.NewWorkflowExecutionInfo{WorkflowId: "nightly", WorkflowType: &common.WorkflowType{Name: "CharacterTraining"}, TaskQueue: &taskqueue.TaskQueue{Name: "character"}, Input: payload(m.tinyInput("seed=2"))}}}}})
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.PatchSchedule(f.ctx(), &workflowservice.PatchScheduleRequest{Namespace: namespace, ScheduleId: "nightly", RequestId: "trigger", Patch: &schedule.SchedulePatch{TriggerImmediately: &schedule.TriggerImmediatelyRequest{}}}); err != nil {
		f.t.Fatal(err)
	}
	id := ""
	for i := 0; id == ""; i++ {
		if i == 300 {
			f.t.Fatal("the schedule started nothing")
		}
		time.Sleep(100 * time.Millisecond)
		d, err := f.DescribeSchedule(f.ctx(), &workflowservice.DescribeScheduleRequest{Namespace: namespace, ScheduleId: "nightly"})
		if err != nil {
			f.t.Fatal(err)
		}
		for _, a := range d.Info.RecentActions {
			id = a.StartWorkflowResult.GetWorkflowId()
		}
	}
	m.waitFor(id, "the end of the scheduled run", func(s runState) bool { return s.State == "completed" })
	m.sums(id)
}

// batch starts many constitutions at once, as the loop in docs/control.md does.
func (f *forms) batch(m *machine) {
	f.t.Helper()
	names := []string{"sarcastic", "poet"}
	for _, name := range names {
		in, err := spec.Set([]byte(m.tinyInput()), "constitution", name)
		if err != nil {
			f.t.Fatal(err)
		}
		f.start(name, string(in))
	}
	for _, name := range names {
		m.waitFor(name, "the end of "+name, func(s runState) bool { return s.State == "completed" })
	}
	for i := 0; f.count(`WorkflowType="CharacterTraining" AND CharacterOutcome="completed" AND CharacterConstitution IN ("sarcastic","poet")`) != 2; i++ {
		if i == 100 {
			f.t.Fatal("the list view does not have both")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestFormOfOneField: {"constitution":"sarcastic"} is a complete input. It needs the demo's model on this machine.
func TestFormOfOneField(t *testing.T) {
	m := newMachine(t)
	if out := m.must("model", "ls"); !strings.Contains(out, "smollm2-135m-instruct") || strings.Contains(out, "not here") {
		if slices.Contains(strings.Fields(os.Getenv("CHARACTER_REQUIRE")), "model") {
			t.Fatalf("CHARACTER_REQUIRE asks for the model, and it is not here:\n%s", out)
		}
		t.Skip("the demo's model is not here; `character model pull smollm2-135m-instruct` gets it")
	}
	m.alone()
	f := m.forms(t)
	f.start("sarcastic", `{"constitution":"sarcastic"}`)
	m.waitFor("sarcastic", "the first stage", func(s runState) bool { return s.Stages[0].State == "running" && s.Stages[0].Total == 96 })
	if d := f.metadata("sarcastic").CurrentDetails; !strings.Contains(d, "Character **sarcastic**, preset demo, model smollm2-135m-instruct, teacher local") {
		t.Errorf("the page says\n%s", d)
	}
	if _, err := f.TerminateWorkflowExecution(f.ctx(), &workflowservice.TerminateWorkflowExecutionRequest{Namespace: namespace, WorkflowExecution: &common.WorkflowExecution{WorkflowId: "sarcastic"}}); err != nil {
		t.Fatal(err)
	}
}
