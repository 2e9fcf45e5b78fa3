package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workflows"
)

// fleet is a stage's test environment with engine workers that take their time: chunks end in a shuffled order.
type fleet struct {
	*suite
	t     *testing.T
	mu    sync.Mutex
	rng   *rand.Rand
	lanes func() int // how many engine workers there are, asked at the end of each chunk
	fail  func(in activities.ChunkInput) error
	// What was seen: chunks at once at most, prompts tried, and every chunk's own node.
	now, most int
	starts    int
	tried     map[int]int
	linked    int // calls of LinkChunks
	end       activities.JoinPairsInput
}

const (
	prompts = 400
	wanted  = 60
	slots   = 5 // of the teacher
)

// passes says whether a prompt makes a pair: about one in four, by its place only.
func passes(i int) bool {
	h := fnv.New32a()
	fmt.Fprint(h, i)
	return h.Sum32()%4 == 0
}

// enough is how many prompts hold the wanted pairs.
func enough() int {
	kept := 0
	for i := range prompts {
		if passes(i) {
			kept++
		}
		if kept == wanted {
			return i + 1
		}
	}
	return prompts
}

// key names a chain or a lone chunk by role and what it covers.
func key(role string, from, to int) store.Ref {
	k := fmt.Sprintf("%s/%d-%d", role, from, to)
	return store.Ref{Key: k, SHA256: k, Size: 1}
}

func covers(t *testing.T, r store.Ref) (role string, from, to int) {
	t.Helper()
	role, span, _ := strings.Cut(r.Key, "/")
	if _, err := fmt.Sscanf(span, "%d-%d", &from, &to); err != nil {
		t.Errorf("ref %q: %v", r.Key, err)
	}
	return role, from, to
}

// joined appends spans, and fails where they leave a gap.
func (f *fleet) joined(last *store.Ref, next store.Ref) store.Ref {
	role, from, to := covers(f.t, next)
	if last == nil {
		if from != 0 {
			f.t.Errorf("the chain of %s begins with prompt %d", role, from)
		}
		return next
	}
	was, begin, end := covers(f.t, *last)
	if was != role || end != from {
		f.t.Errorf("%s follows %s", next.Key, last.Key)
	}
	return key(role, begin, to)
}

func newFleet(t *testing.T, seed uint64, lanes func() int) *fleet {
	return newFleetOf(t, "local", seed, lanes)
}

// newFleetOf has a teacher of some kind; one that is not local answers slots chunks at once.
func newFleetOf(t *testing.T, teacher string, seed uint64, lanes func() int) *fleet {
	f := &fleet{suite: newSuite(t, "ResolveSpec", "MakePrompts", "Generate", "JoinPairs"), t: t, rng: rand.New(rand.NewPCG(seed, 1)), lanes: lanes, tried: map[int]int{}}
	f.OnActivity("ResolveSpec", mock.Anything, mock.Anything).Return(activities.Brief{Plan: store.Ref{Key: "plan"}, Teacher: teacher, Pairs: wanted, PairChunk: 16}, nil)
	f.OnActivity("MakePrompts", mock.Anything, mock.Anything).Return(activities.PromptSet{Index: store.Ref{Key: "prompts"}, Count: prompts, Engines: lanes(), Teachers: slots}, nil)
	f.OnActivity("CheckTeacher", mock.Anything, mock.Anything).Return(nil)
	takes := func() time.Duration {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.starts, f.now = f.starts+1, f.now+1
		f.most = max(f.most, f.now)
		return time.Duration(1+f.rng.IntN(600)) * time.Second
	}
	chunk := func(ctx context.Context, in activities.ChunkInput) (activities.ChunkOutput, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.now--
		if f.fail != nil {
			if err := f.fail(in); err != nil {
				return activities.ChunkOutput{}, err
			}
		}
		o := activities.ChunkOutput{Lanes: f.lanes(), Chain: key(in.Role, in.From, in.To)}
		if in.Previous != nil {
			o.Chain = f.joined(in.Previous, o.Chain)
		}
		for i := in.From; i < in.To; i++ {
			if in.Role == activities.RoleTeacher {
				f.tried[i]++
			}
			if in.Role == activities.RoleTeacher || passes(i) {
				o.Kept++
			}
			o.Rows++
		}
		if in.Role == activities.RoleTeacher && teacher != "local" {
			o.Lanes = slots
		}
		return o, nil
	}
	f.OnActivity("Generate", mock.Anything, mock.Anything).AfterFn(takes).Return(chunk)
	f.OnActivity("AskTeacher", mock.Anything, mock.Anything).AfterFn(takes).Return(chunk)
	f.OnActivity("LinkChunks", mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.LinkInput) (activities.LinkOutput, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.linked++
		var out activities.LinkOutput
		for _, l := range in.Chains {
			last := l.Previous
			for _, c := range l.Chunks {
				r := f.joined(last, c)
				last = &r
			}
			out.Chains = append(out.Chains, *last)
		}
		return out, nil
	})
	f.OnActivity("JoinPairs", mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.JoinPairsInput) (activities.Stage, error) {
		f.end = in
		return activities.Stage{Kind: activities.KindPreferences, Key: "p", Rows: int64(enough()), Kept: wanted}, nil
	})
	return f
}

// run runs the stage and checks what it joins: no gap, no prompt twice, all that is wanted.
func (f *fleet) run(in string) {
	f.t.Helper()
	f.ExecuteWorkflow(workflows.GeneratePreferences, input(in))
	if err := f.GetWorkflowError(); err != nil {
		f.t.Fatal(err)
	}
	f.checkEnd()
}

func (f *fleet) checkEnd() {
	f.t.Helper()
	if f.end.Teacher == nil || f.end.Student == nil {
		f.t.Fatal("nothing was joined")
	}
	for i, r := range []store.Ref{*f.end.Teacher, *f.end.Student} {
		role, from, to := covers(f.t, r)
		if role != []string{activities.RoleTeacher, activities.RoleStudent}[i] || from != 0 || to < enough() {
			f.t.Errorf("%s is joined, the wanted pairs need %d prompts", r.Key, enough())
		}
		if to != len(f.tried) {
			f.t.Errorf("%d prompts are joined, %d were tried", to, len(f.tried))
		}
	}
	for i, n := range f.tried {
		if n != 1 {
			f.t.Errorf("prompt %d was tried %d times", i, n)
		}
	}
}

func TestFanOut(t *testing.T) {
	alone := 0
	for _, n := range []int{1, 2, 4, 7} {
		for seed := range uint64(5) {
			f := newFleet(t, seed, func() int { return n })
			f.run(`{"spec":{}}`)
			if f.most != n {
				t.Errorf("%d workers made at most %d chunks at once", n, f.most)
			}
			if n == 1 {
				alone = len(f.tried)
				if f.linked != 0 {
					t.Errorf("one worker's chunks were linked %d times: it appends them itself", f.linked)
				}
			}
			// What is tried beyond one worker's work is at most what the lanes had in flight when the last pair came.
			if len(f.tried) > alone+16*n {
				t.Errorf("%d workers tried %d prompts, one tried %d", n, len(f.tried), alone)
			}
			v, err := f.QueryWorkflow(workflows.QueryProgress)
			if err != nil {
				t.Fatal(err)
			}
			var p workflows.StageProgress
			if err := v.Get(&p); err != nil || p.State != workflows.Completed || p.Kept != wanted || p.Done != wanted || p.Rows != int64(len(f.tried)) {
				t.Errorf("progress %+v %v", p, err)
			}
		}
	}
}

// TestTeachersOfOtherKinds: an endpoint answers as many chunks at once as it has slots, whatever the engines are;
// recorded answers wait for the engines.
func TestTeachersOfOtherKinds(t *testing.T) {
	for teacher, want := range map[string]int{"openai": slots, "recorded": 2} {
		f := newFleetOf(t, teacher, 9, func() int { return 2 })
		f.run(`{"spec":{}}`)
		if f.most != want {
			t.Errorf("teacher %s: at most %d chunks at once, want %d", teacher, f.most, want)
		}
	}
}

// TestWorkersComeAndGo: the number changes with every chunk, to none that are seen at all.
func TestWorkersComeAndGo(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		newFleet(t, seed, func() int { return r.IntN(6) }).run(`{"spec":{}}`)
	}
}

// TestFanOutPauses: chunks in flight end, none begins before the run is resumed.
func TestFanOutPauses(t *testing.T) {
	f := newFleet(t, 3, func() int { return 4 })
	var before int
	f.RegisterDelayedCallback(func() { f.UpdateWorkflowNoRejection(workflows.UpdatePause, "1", t) }, 10*time.Minute)
	count := func() int { f.mu.Lock(); defer f.mu.Unlock(); return f.starts }
	f.RegisterDelayedCallback(func() {
		before = count()
		if f.now != 0 {
			t.Errorf("%d chunks are in flight an hour after the pause", f.now)
		}
		v, err := f.QueryWorkflow(workflows.QueryProgress)
		var p workflows.StageProgress
		if err != nil || v.Get(&p) != nil || p.State != workflows.Paused {
			t.Errorf("progress %+v %v", p, err)
		}
	}, time.Hour)
	f.RegisterDelayedCallback(func() {
		if n := count(); n != before || n == 0 {
			t.Errorf("%d chunks ran, %d in the first hour", n, before)
		}
		f.UpdateWorkflowNoRejection(workflows.UpdateResume, "2", t)
	}, 24*time.Hour)
	f.run(`{"spec":{}}`)
	if count() == before {
		t.Error("the pause came too late to test anything")
	}
}

// TestFanOutGoesOnInANewHistory: once in the middle, with what was made.
func TestFanOutGoesOnInANewHistory(t *testing.T) {
	f := newFleet(t, 4, func() int { return 3 })
	f.RegisterDelayedCallback(func() { f.SetCurrentHistoryLength(1500) }, 12*time.Minute)
	f.ExecuteWorkflow(workflows.GeneratePreferences, input(`{"spec":{}}`))
	var next *workflow.ContinueAsNewError
	if err := f.GetWorkflowError(); !errors.As(err, &next) {
		t.Fatalf("error %v", err)
	}
	raw := next.Input.Payloads[0].Data
	if len(f.tried) == 0 || len(f.tried) >= enough() || len(raw) > 10_000 {
		t.Fatalf("%d prompts were tried before it goes on with %d bytes", len(f.tried), len(raw))
	}
	again := newFleet(t, 5, func() int { return 2 })
	again.tried = f.tried
	again.run(string(raw))
	if again.calls["ResolveSpec"] != 0 {
		t.Error("the spec was resolved again")
	}
	v, err := again.QueryWorkflow(workflows.QueryProgress)
	var p workflows.StageProgress
	if err != nil || v.Get(&p) != nil || p.Rows != int64(len(f.tried)) || p.Kept != wanted {
		t.Errorf("progress %+v %v", p, err)
	}
}

// TestFanOutFails: the others are not waited for in vain, none begins, and the error is the one that happened.
func TestFanOutFails(t *testing.T) {
	f := newFleet(t, 6, func() int { return 4 })
	after := 0
	f.fail = func(in activities.ChunkInput) error {
		if after > 0 {
			after++
		}
		if in.Role == activities.RoleStudent && after == 0 {
			after = 1
			return temporal.NewNonRetryableApplicationError("the disk is full", activities.StageFailed, nil)
		}
		return nil
	}
	f.ExecuteWorkflow(workflows.GeneratePreferences, input(`{"spec":{}}`))
	if err := f.GetWorkflowError(); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("error %v", err)
	}
	if after > 4 {
		t.Errorf("%d chunks ended after the failure of one", after-1)
	}
	if f.end.Teacher != nil {
		t.Error("a failed stage was joined")
	}
}

// TestFanOutCancels: a cancelled stage ends as cancelled.
func TestFanOutCancels(t *testing.T) {
	f := newFleet(t, 7, func() int { return 4 })
	f.RegisterDelayedCallback(f.CancelWorkflow, 10*time.Minute)
	f.ExecuteWorkflow(workflows.GeneratePreferences, input(`{"spec":{}}`))
	if err := f.GetWorkflowError(); !temporal.IsCanceledError(err) {
		t.Errorf("error %v", err)
	}
}

// TestRunGoesOnInANewHistory: between two stages, with all it knows; finished stages are not run again.
func TestRunGoesOnInANewHistory(t *testing.T) {
	s := newSuite(t)
	s.SetCurrentHistoryLength(900) // short enough: it goes on after the change below
	s.RegisterDelayedCallback(func() { s.UpdateWorkflowNoRejection(workflows.UpdatePause, "1", t) }, 0)
	s.RegisterDelayedCallback(func() {
		s.SetCurrentHistoryLength(1001)
		s.UpdateWorkflowNoRejection(workflows.UpdateResume, "2", t)
	}, time.Hour)
	s.ExecuteWorkflow(workflows.CharacterTraining, input(`{"constitution":"captain"}`))
	var next *workflow.ContinueAsNewError
	if err := s.GetWorkflowError(); !errors.As(err, &next) {
		t.Fatalf("error %v", err)
	}
	raw := next.Input.Payloads[0].Data
	before := progress(t, s)
	if len(raw) > 10_000 || before.State != workflows.Running || before.Stages[0].State != workflows.Completed || before.Stages[1].State != workflows.Pending {
		t.Errorf("it goes on with %d bytes, progress %+v", len(raw), before)
	}
	again := newSuite(t, "ResolveSpec", "InspectModel")
	again.ExecuteWorkflow(workflows.CharacterTraining, input(string(raw)))
	if err := again.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	p := progress(t, again)
	if p.State != workflows.Completed || p.Constitution != "captain" || len(p.Stages) != 5 {
		t.Errorf("progress %+v", p)
	}
	for _, st := range p.Stages {
		if st.State != workflows.Completed || st.Kept == 0 {
			t.Errorf("stage %+v", st)
		}
	}
	last := again.records[len(again.records)-1]
	if last.State != workflows.Completed || len(last.Stages) != 5 {
		t.Errorf("last record %+v", last)
	}
	for _, c := range again.chunks {
		if c.Role == activities.RoleTeacher {
			t.Error("a finished stage was run again")
		}
	}
}
