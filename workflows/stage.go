package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
)

// Names of queries, updates and signals.
const (
	QueryProgress = "progress"
	QueryMetrics  = "metrics"
	QueryWarnings = "warnings"
	QueryRows     = "rows"
	UpdatePause   = "pause"
	UpdateResume  = "resume"
	UpdateAdjust  = "adjust"
	UpdateFinish  = "finish-early"
	signalStage   = "stage-progress" // child to parent
	signalPause   = "stage-pause"    // parent to child, true or false
)

// States of a stage or a run.
const (
	Pending   = "pending"
	Running   = "running"
	Paused    = "paused"
	Completed = "completed"
	Reused    = "reused"
	Failed    = "failed"
	Cancelled = "cancelled"
)

// The activities, named by nil pointers: only their method names travel.
var (
	data    *activities.Data
	teacher *activities.Teacher
	engine  *activities.Engine
)

// StageProgress is what a stage tells about itself.
type StageProgress struct {
	Name     string             `json:"name"`
	State    string             `json:"state"`
	Workflow string             `json:"workflow,omitempty"`
	Unit     string             `json:"unit,omitempty"` // what Done and Total count
	Done     int64              `json:"done"`
	Total    int64              `json:"total"`
	Rows     int64              `json:"rows,omitempty"` // tried
	Kept     int64              `json:"kept"`
	Dropped  map[string]int64   `json:"dropped,omitempty"`
	Tokens   int64              `json:"tokens,omitempty"`
	Values   map[string]float64 `json:"values,omitempty"`
	Step     string             `json:"step,omitempty"` // what it does now
	Said     []string           `json:"said,omitempty"` // by activities: checkpoint fallbacks, kernel changes, left-out messages
	Warnings []string           `json:"warnings,omitempty"`
	Told     int                `json:"told,omitempty"` // counts the stage's reports: signals overtake each other
}

// stage is one stage workflow's state.
type stage struct {
	StageProgress
	brief  activities.Brief
	parent string
	paused bool
	told   int    // reports, of which the parent heard some
	heard  string // the state that the parent heard last
	pauses workflow.ReceiveChannel
	// running is how many chunks are made now; engines and teachers are how many can be, as far as is known.
	running, engines, teachers int
	// What the run asks of the stage while it runs: see ask.go.
	asks      workflow.ReceiveChannel
	limits    limits
	sizes     activities.Sizes
	version   int    // counts the plans that were taken over
	found     int    // the version whose key was looked for
	finish    bool   // end early
	asked     string // by this update
	closing   string // why nothing can change any more
	answering int    // answers on their way
	training  bool   // a segment is under way
	// rows tells where what is made so far lies; nil = nothing is.
	rows func() activities.Rows
}

// begin resolves the input, registers the handlers and returns the stage.
func begin(ctx workflow.Context, in StageInput, name, unit string) (*stage, error) {
	s := &stage{StageProgress: StageProgress{Name: name, State: Running, Unit: unit, Workflow: workflow.GetInfo(ctx).WorkflowExecution.ID}, parent: in.Parent, paused: in.Paused}
	if err := s.handlers(ctx); err != nil {
		return nil, err
	}
	s.restore(in.Continued)
	if in.Brief != nil {
		s.brief = *in.Brief
		return s, nil
	}
	var err error
	s.brief, err = resolve(ctx, in.Spec)
	return s, err
}

// resolve makes the plan: the spec by a data worker, the models by an engine worker, the teacher by its own.
func resolve(ctx workflow.Context, spec []byte) (activities.Brief, error) {
	var b activities.Brief
	if err := workflow.ExecuteActivity(onData(ctx, "resolve the spec"), data.ResolveSpec, activities.ResolveInput{Spec: spec}).Get(ctx, &b); err != nil {
		return b, err
	}
	if askable(b.Teacher) && !b.OwnPairs {
		if err := workflow.ExecuteActivity(onTeacher(ctx, "check the teacher"), teacher.CheckTeacher, activities.CheckTeacherInput{Plan: b.Plan}).Get(ctx, nil); err != nil {
			return b, err
		}
	}
	var m activities.InspectModelOutput
	if err := workflow.ExecuteActivity(onEngine(ctx, "load and check "+b.Model), engine.InspectModel, activities.InspectModelInput{Plan: b.Plan}).Get(ctx, &m); err != nil {
		return b, err
	}
	b.Plan = m.Plan
	return b, nil
}

// askable says that a teacher is asked, one answer at a time, and can be asked beforehand whether it answers.
func askable(teacher string) bool {
	_, own := spec.OwnTeacher(teacher)
	return own || teacher == "openai"
}

func (s *stage) handlers(ctx workflow.Context) error {
	if err := workflow.SetQueryHandlerWithOptions(ctx, QueryProgress, func() (StageProgress, error) { return s.StageProgress, nil },
		workflow.QueryHandlerOptions{Description: "Counts, drop reasons and state of this stage"}); err != nil {
		return err
	}
	if err := workflow.SetQueryHandlerWithOptions(ctx, QueryMetrics, func() (map[string]float64, error) { return s.Values, nil },
		workflow.QueryHandlerOptions{Description: "The newest values: loss, accuracy, margin, perplexity"}); err != nil {
		return err
	}
	if err := workflow.SetQueryHandlerWithOptions(ctx, QueryWarnings, func() ([]string, error) { return s.Warnings, nil },
		workflow.QueryHandlerOptions{Description: "What looks wrong, computed after chapter 14 of the tutorial"}); err != nil {
		return err
	}
	if err := workflow.SetQueryHandlerWithOptions(ctx, QueryRows, func() (activities.Rows, error) {
		if s.rows == nil {
			return activities.Rows{}, nil
		}
		return s.rows(), nil
	}, workflow.QueryHandlerOptions{Description: "Where the rows and checkpoints made so far lie in the bucket, dropped rows included"}); err != nil {
		return err
	}
	if err := pauseUpdates(ctx, &s.paused, func(ctx workflow.Context) { s.show(ctx) }); err != nil {
		return err
	}
	ch := workflow.GetSignalChannel(ctx, signalPause)
	s.pauses = ch
	s.hearAsks(ctx)
	workflow.Go(ctx, func(ctx workflow.Context) {
		for ch.Receive(ctx, &s.paused) {
			s.show(ctx)
		}
	})
	return nil
}

// pauseUpdates registers pause and resume with validators.
func pauseUpdates(ctx workflow.Context, paused *bool, changed func(workflow.Context)) error {
	set := func(name string, to bool, what string) error {
		return workflow.SetUpdateHandlerWithOptions(ctx, name, func(ctx workflow.Context) error {
			*paused = to
			changed(ctx)
			return nil
		}, workflow.UpdateHandlerOptions{Description: what, Validator: func() error {
			if *paused == to {
				return fmt.Errorf("the run is already %sd", name)
			}
			return nil
		}})
	}
	if err := set(UpdatePause, true, "Stop after the present chunk or segment; nothing is lost"); err != nil {
		return err
	}
	return set(UpdateResume, false, "Go on after a pause")
}

// gate waits while the run is paused.
func (s *stage) gate(ctx workflow.Context) error {
	if !s.paused || s.finish {
		return ctx.Err()
	}
	s.State = Paused
	s.tell(ctx)
	err := workflow.Await(ctx, func() bool { return !s.paused || s.finish })
	s.State = Running
	s.tell(ctx)
	return err
}

// count adds a chunk's counts and tells.
func (s *stage) count(ctx workflow.Context, o activities.ChunkOutput) {
	s.Rows += o.Rows
	s.Tokens += o.Tokens
	for _, v := range sorted(o.Dropped) {
		if s.Dropped == nil {
			s.Dropped = map[string]int64{}
		}
		s.Dropped[v.name] += v.n
	}
}

type named struct {
	name string
	n    int64
}

// sorted lists a map in the order of its keys: workflow code must not range over a map.
func sorted(m map[string]int64) []named {
	out := make([]named, 0, len(m))
	//workflowcheck:ignore
	for k, n := range m {
		out = append(out, named{k, n})
	}
	slices.SortFunc(out, func(a, b named) int { return strings.Compare(a.name, b.name) })
	return out
}

// heard says whether the nth report of a running stage goes to its parent: the first 40, then every tenth, from 400 on
// every hundredth, and so on. So the longest stage costs the parent's history some hundred events; its own page has all.
func heard(n int) bool {
	every := 1
	for last := 40; n > last; last *= 10 {
		every *= 10
	}
	return n%every == 0
}

// tell shows the stage on its page and reports it to the parent.
func (s *stage) tell(ctx workflow.Context) {
	s.Warnings = append(slices.Clone(s.Said), warnings(s.StageProgress)...)
	s.show(ctx)
	s.told++
	s.Told = s.told
	if s.parent != "" && (heard(s.told) || s.State != s.heard) {
		s.heard = s.State
		_ = workflow.SignalExternalWorkflow(ctx, s.parent, "", signalStage, s.StageProgress) // a parent that is gone needs no news
	}
}

func (s *stage) show(ctx workflow.Context) {
	workflow.SetCurrentDetails(ctx, "# "+s.Name+"\n\n"+table([]StageProgress{s.StageProgress})+warningList(s.Warnings))
}

// commit marks the end and returns the stage's result after it was kept under its key.
func (s *stage) commit(ctx workflow.Context, st activities.Stage) (activities.Stage, error) {
	s.Step = "commit"
	var kept activities.Stage
	if err := workflow.ExecuteActivity(onData(ctx, "commit the stage"), data.KeepStage, st).Get(ctx, &kept); err != nil {
		return kept, err
	}
	s.done(ctx, kept)
	return kept, nil
}

// done shows a finished or reused stage.
func (s *stage) done(ctx workflow.Context, st activities.Stage) {
	s.State, s.Step = Completed, ""
	if st.Reused {
		s.State = Reused
		s.Done, s.Total = st.Kept, st.Kept
		if s.Unit != "pairs" { // not the steps or models of the work that was not done
			s.Unit = "rows"
		}
	}
	s.Kept, s.Dropped = st.Kept, st.Dropped
	if st.Values != nil {
		s.Values = st.Values
	}
	s.Done = s.Total
	if s.counts() {
		s.Done = s.Kept
	}
	s.tell(ctx)
}

// counts says that Done counts kept rows, of which a finished stage may have fewer than it wanted.
func (s *StageProgress) counts() bool { return s.Unit == "pairs" || s.Unit == "rows" }

// find asks whether the same work was done before.
func (s *stage) find(ctx workflow.Context, kind string, upstream []string, adapters []activities.AdapterRef) (string, *activities.Stage, error) {
	var f activities.FindStageOutput
	s.found = s.version
	err := workflow.ExecuteActivity(onData(ctx, "look for the same work"), data.FindStage,
		activities.FindStageInput{Kind: kind, Plan: s.brief.Plan, Upstream: upstream, Adapters: adapters}).Get(ctx, &f)
	if err == nil && f.Stage != nil {
		s.done(ctx, *f.Stage)
	}
	return f.Key, f.Stage, err
}

func retry() *temporal.RetryPolicy {
	return &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second, MaximumAttempts: 100,
		NonRetryableErrorTypes: []string{"payloadSizeError"}}
}

// clip keeps a summary under the server's limit of 400 bytes: a longer one, of a model's long path, would fail the
// workflow task again and again.
func clip(summary string) string {
	if len(summary) > 300 {
		summary = strings.ToValidUTF8(summary[:300], "") + "..."
	}
	return summary
}

// onData: its activities take moments, and yet one that was lost with its worker must not hold a run up for 15 minutes.
func onData(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{TaskQueue: activities.DataQueue, StartToCloseTimeout: 15 * time.Minute, HeartbeatTimeout: 20 * time.Second, RetryPolicy: retry(), Summary: clip(summary)})
}

// Outage is how long Temporal may be away, or a worker unheard, without the end of what it is at: a server that comes
// back ends every attempt at once whose heartbeat timeout has passed meanwhile. A worker that is gone is missed much
// sooner: by the other workers (workers.Silence).
const Outage = 15 * time.Minute

func onTeacher(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{TaskQueue: activities.TeacherQueue, StartToCloseTimeout: 6 * time.Hour, HeartbeatTimeout: Outage,
		WaitForCancellation: true, RetryPolicy: retry(), Summary: clip(summary)})
}

func onEngine(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{TaskQueue: activities.EngineQueue, StartToCloseTimeout: 24 * time.Hour, HeartbeatTimeout: Outage,
		WaitForCancellation: true, RetryPolicy: retry(), Summary: clip(summary)})
}

func ref(r store.Ref) *store.Ref { return &r }
