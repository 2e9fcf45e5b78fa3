package workflows

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
)

// Progress is the answer of the run's progress query.
type Progress struct {
	ID           string          `json:"id"`
	State        string          `json:"state"`
	Constitution string          `json:"constitution,omitempty"`
	Preset       string          `json:"preset,omitempty"`
	Model        string          `json:"model,omitempty"`
	Teacher      string          `json:"teacher,omitempty"`
	Error        string          `json:"error,omitempty"`
	Stages       []StageProgress `json:"stages"`
	// Spec is where the resolved spec lies, Adjusted what was changed in it while the run went, Report its live report.
	Spec     string                  `json:"spec,omitempty"`
	Adjusted []activities.Adjustment `json:"adjusted,omitempty"`
	Report   string                  `json:"report,omitempty"`
}

// changeRecordFirst is the change that records a run before its first stage; older histories lack that record.
const changeRecordFirst = "record-before-first-stage"

// changeWaitForOld is the change that waits for a stage of that id to end; before it the run failed.
const changeWaitForOld = "wait-for-old-stage"

// Result is what a finished run returns; everything else is in the run's record in the store.
type Result struct {
	ID           string             `json:"id"`
	Constitution string             `json:"constitution"`
	Stages       []string           `json:"stages"`
	Evaluation   map[string]float64 `json:"evaluation,omitempty"`
	Next         string             `json:"next"`
}

// run is CharacterTraining's state.
type run struct {
	Progress
	brief  activities.Brief
	paused bool
	done   []activities.Stage
	child  string // workflow id of the running child
	up     bool   // it has started: signals reach it
	// reports are what children tell.
	reports workflow.ReceiveChannel
	// See adjust.go: adjusting is held while the spec changes or a stage begins, recording while the record is written.
	adjusting, recording workflow.Mutex
	answers              map[string]answer // by update
	endings              workflow.ReceiveChannel
	signals              []pauseSignal
}

// CharacterTraining is the whole: {"constitution":"captain"} is a complete input.
func CharacterTraining(ctx workflow.Context, input Input) (Result, error) {
	r := &run{}
	r.ID, r.State = workflow.GetInfo(ctx).WorkflowExecution.ID, Running
	for _, k := range []string{activities.KindPreferences, activities.KindDPO, activities.KindIntrospection, activities.KindSFT, activities.KindEvaluation} {
		r.Stages = append(r.Stages, StageProgress{Name: k, State: Pending, Workflow: r.ID + "/" + k})
	}
	if c := continuedRun(input); c != nil {
		r.brief, r.paused, r.Stages, r.done, r.Adjusted = c.Brief, c.Paused, c.Stages, c.Done, c.Adjusted
	}
	if err := r.handlers(ctx); err != nil {
		return Result{}, err
	}
	r.show(ctx)
	err := r.stages(ctx, input)
	if workflow.IsContinueAsNewError(err) {
		return Result{}, err
	}
	r.State = Completed
	if err != nil {
		r.State, r.Error = Failed, cause(err)
		if temporal.IsCanceledError(err) || ctx.Err() != nil {
			r.State, r.Error = Cancelled, ""
		}
	}
	// The record is written also when the run failed or was cancelled: what was made stays usable.
	dctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	if r.brief.Plan.Key != "" {
		if rerr := r.record(dctx); rerr != nil && err == nil {
			err = rerr
		}
	}
	r.attributes(dctx, "")
	r.show(dctx)
	_ = workflow.Await(dctx, func() bool { return workflow.AllHandlersFinished(dctx) }) // every accepted update is answered
	res := Result{ID: r.ID, Constitution: r.brief.Constitution, Next: fmt.Sprintf("character chat --id %s; character export %s --out DIR", r.ID, r.ID)}
	for _, s := range r.done {
		res.Stages = append(res.Stages, s.Kind)
		if s.Kind == activities.KindEvaluation {
			res.Evaluation = s.Values
		}
	}
	return res, err
}

func (r *run) stages(ctx workflow.Context, input Input) error {
	begins := r.brief.Plan.Key == ""
	if begins {
		raw, _ := input.MarshalJSON()
		var err error
		if r.brief, err = resolve(ctx, raw); err != nil {
			return err
		}
	}
	r.Constitution, r.Preset, r.Model, r.Teacher = r.brief.Constitution, r.brief.Preset, r.brief.Model, r.brief.Teacher
	r.located()
	if begins && workflow.GetVersion(ctx, changeRecordFirst, workflow.DefaultVersion, 1) == 1 { // from here on the run can be found in the store, should Temporal's own be lost
		if err := r.record(ctx); err != nil {
			return err
		}
	}
	pref, err := r.stage(ctx, activities.KindPreferences, GeneratePreferences, StageInput{})
	if err != nil {
		return err
	}
	dpo, err := r.stage(ctx, activities.KindDPO, TrainAdapter, StageInput{Kind: activities.KindDPO, Preferences: &pref})
	if err != nil {
		return err
	}
	intro, err := r.stage(ctx, activities.KindIntrospection, GenerateIntrospection, StageInput{DPO: &dpo})
	if err != nil {
		return err
	}
	sft, err := r.stage(ctx, activities.KindSFT, TrainAdapter, StageInput{Kind: activities.KindSFT, Introspection: &intro, DPO: &dpo})
	if err != nil {
		return err
	}
	_, err = r.stage(ctx, activities.KindEvaluation, EvaluateCharacter, StageInput{DPO: &dpo, SFT: &sft})
	return err
}

// stage runs one stage as a child and records the run after it. A stage that was over before this history began is
// not run again.
func (r *run) stage(ctx workflow.Context, kind string, child any, in StageInput) (activities.Stage, error) {
	if i := slices.IndexFunc(r.done, func(s activities.Stage) bool { return s.Kind == kind }); i >= 0 {
		return r.done[i], nil
	}
	if workflow.GetInfo(ctx).GetCurrentHistoryLength() > runEvents {
		return activities.Stage{}, r.goOn(ctx)
	}
	if err := workflow.Await(ctx, func() bool { return !r.paused }); err != nil {
		return activities.Stage{}, err
	}
	var st activities.Stage
	err := r.begin(ctx, kind, child, in, &st)
	for wait := 2 * time.Second; isTaken(err) && workflow.GetVersion(ctx, changeWaitForOld, workflow.DefaultVersion, 1) == 1; wait = min(2*wait, time.Minute) {
		// A reset leaves the stage of the run before behind, which ends after its segment.
		_ = workflow.RequestCancelExternalWorkflow(ctx, r.ID+"/"+kind, "").Get(ctx, nil) // it may be over already
		if err := workflow.NewTimerWithOptions(ctx, wait, workflow.TimerOptions{Summary: "wait for the end of the " + kind + " stage that a reset left"}).Get(ctx, nil); err != nil {
			return st, err
		}
		err = r.begin(ctx, kind, child, in, &st)
	}
	if eerr := r.endedEarly(ctx); err == nil {
		err = eerr
	}
	i := r.index(kind)
	if err != nil {
		r.Stages[i].State = Failed
		if ctx.Err() != nil {
			r.Stages[i].State = Cancelled
		}
		return st, err
	}
	r.Stages[i].State, r.Stages[i].Step = Completed, ""
	if st.Reused {
		r.Stages[i].State = Reused
	}
	r.Stages[i].Kept, r.Stages[i].Dropped = st.Kept, st.Dropped
	if st.Values != nil {
		r.Stages[i].Values = st.Values
	}
	if r.Stages[i].Total == 0 { // a reused stage is over before its first report: a signal sent at the end is not delivered
		r.Stages[i].Total, r.Stages[i].Unit = st.Kept, "rows"
	}
	r.Stages[i].Done = r.Stages[i].Total
	if r.Stages[i].counts() {
		r.Stages[i].Done = st.Kept
	}
	// The last report may have been one before the rows beyond the target were left out of the counts.
	r.Stages[i].Warnings = append(slices.Clone(r.Stages[i].Said), warnings(r.Stages[i])...)
	st.Reused = false // the record says what the run has, not how it came by it
	r.done = append(r.done, st)
	r.show(ctx)
	return st, r.record(ctx)
}

// begin starts a stage as a child and waits for its result.
func (r *run) begin(ctx workflow.Context, kind string, child any, in StageInput, st *activities.Stage) error {
	if err := r.adjusting.Lock(ctx); err != nil { // the stage begins with the old spec or with the new one
		return err
	}
	brief := r.brief
	in.Brief, in.Parent = &brief, r.ID
	r.attributes(ctx, kind)
	r.child, r.up = r.ID+"/"+kind, false
	future := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: r.child, TaskQueue: activities.DataQueue, ParentClosePolicy: enums.PARENT_CLOSE_POLICY_REQUEST_CANCEL, WaitForCancellation: true,
		WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE, StaticSummary: kind + " of " + r.ID,
	}), child, in)
	r.adjusting.Unlock()
	_ = future.GetChildWorkflowExecution().Get(ctx, nil) // when it cannot start, the result says so too
	r.up = true
	err := future.Get(ctx, st)
	r.child = ""
	return err
}

// isTaken says that a stage of that id runs already.
func isTaken(err error) bool {
	var taken *temporal.ChildWorkflowExecutionAlreadyStartedError
	return errors.As(err, &taken)
}

func (r *run) record(ctx workflow.Context) error {
	if err := r.recording.Lock(ctx); err != nil { // two at once could end with the older one
		return err
	}
	defer r.recording.Unlock()
	return workflow.ExecuteActivity(onData(ctx, "record the run"), data.RecordRun,
		activities.Record{ID: r.ID, State: r.State, Error: r.Error, Plan: r.brief.Plan, Spec: r.brief.Spec, Adjusted: r.Adjusted, Stages: r.done, Warnings: r.warnings()}).Get(ctx, nil)
}

func (r *run) index(kind string) int {
	return slices.IndexFunc(r.Stages, func(s StageProgress) bool { return s.Name == kind })
}

func (r *run) handlers(ctx workflow.Context) error {
	if err := workflow.SetQueryHandlerWithOptions(ctx, QueryProgress, func() (Progress, error) { return r.progress(), nil },
		workflow.QueryHandlerOptions{Description: "All stages with counts and drop reasons"}); err != nil {
		return err
	}
	if err := workflow.SetQueryHandlerWithOptions(ctx, QueryMetrics, func() (map[string]map[string]float64, error) {
		m := map[string]map[string]float64{}
		for _, s := range r.Stages {
			if s.Values != nil {
				m[s.Name] = s.Values
			}
		}
		return m, nil
	}, workflow.QueryHandlerOptions{Description: "Newest loss, accuracy, margin, perplexity and gains by stage"}); err != nil {
		return err
	}
	if err := workflow.SetQueryHandlerWithOptions(ctx, QueryWarnings, func() ([]string, error) { return r.warnings(), nil },
		workflow.QueryHandlerOptions{Description: "What looks wrong in any stage"}); err != nil {
		return err
	}
	if err := pauseUpdates(ctx, &r.paused, r.passPause); err != nil {
		return err
	}
	r.pauseSignals(ctx)
	if err := r.controls(ctx); err != nil {
		return err
	}
	ch := workflow.GetSignalChannel(ctx, signalStage)
	r.reports = ch
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var p StageProgress
			if !ch.Receive(ctx, &p) {
				return
			}
			r.hear(ctx, p)
		}
	})
	return nil
}

// hear takes a stage's report. Signals can overtake each other and the child's end: only the last words of an ended
// stage count.
func (r *run) hear(ctx workflow.Context, p StageProgress) {
	i := r.index(p.Name)
	if i >= 0 && p.Told > 0 && p.Told < r.Stages[i].Told && p.Workflow == r.Stages[i].Workflow {
		return // a later one was faster
	}
	if i >= 0 && !ended(r.Stages[i].State) {
		r.Stages[i] = p
		r.show(ctx)
	} else if i >= 0 && ended(p.State) {
		r.Stages[i].Values, r.Stages[i].Warnings = p.Values, p.Warnings
		r.Stages[i].Done, r.Stages[i].Total = p.Done, p.Total
	}
}

func ended(state string) bool {
	return slices.Contains([]string{Completed, Reused, Failed, Cancelled}, state)
}

func (r *run) progress() Progress {
	p := r.Progress
	if r.paused && p.State == Running {
		p.State = Paused
	}
	p.Stages = slices.Clone(p.Stages)
	return p
}

func (r *run) warnings() []string {
	var w []string
	for _, s := range r.Stages {
		w = append(w, s.Warnings...)
	}
	return w
}

// attributes upserts those search attributes that the cluster knows.
func (r *run) attributes(ctx workflow.Context, stage string) {
	var up []temporal.SearchAttributeUpdate
	for _, a := range [][2]string{{AttrConstitution, r.brief.Constitution}, {AttrPreset, r.brief.Preset}, {AttrModel, r.brief.Model}, {AttrStage, stage}, {AttrOutcome, r.State}} {
		if slices.Contains(r.brief.Attributes, a[0]) {
			up = append(up, temporal.NewSearchAttributeKeyKeyword(a[0]).ValueSet(a[1]))
		}
	}
	if len(up) > 0 {
		_ = workflow.UpsertTypedSearchAttributes(ctx, up...) // fails only for an empty list
	}
}

// Search attributes, all of type Keyword. `character up` adds them to its own server.
const (
	AttrConstitution = "CharacterConstitution"
	AttrStage        = "CharacterStage"
	AttrModel        = "CharacterModel"
	AttrPreset       = "CharacterPreset"
	AttrOutcome      = "CharacterOutcome"
)

// SearchAttributes lists them.
func SearchAttributes() []string {
	return []string{AttrConstitution, AttrStage, AttrModel, AttrPreset, AttrOutcome}
}

// cause is what an activity or a check said, without the wrapping of child and activity errors. Its first application
// error is it: the ones within are the same error's inner parts, which say what but not where.
func cause(err error) string {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return app.Message()
	}
	return err.Error()
}
