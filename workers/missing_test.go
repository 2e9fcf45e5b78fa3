package workers

import (
	"testing"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiactivity "go.temporal.io/api/activity/v1"
)

// TestJudge: what looks say of a pending activity, by who has it and when it was heard.
func TestJudge(t *testing.T) {
	x := &common.WorkflowExecution{WorkflowId: "w", RunId: "r"}
	start := time.Unix(1e9, 0)
	beat := func(who string, n int32, heard time.Duration) *workflow.PendingActivityInfo {
		return &workflow.PendingActivityInfo{ActivityId: "5", ActivityType: &common.ActivityType{Name: "Generate"}, Attempt: n, State: enums.PENDING_ACTIVITY_STATE_STARTED, LastWorkerIdentity: who,
			LastStartedTime: timestamppb.New(start), LastHeartbeatTime: timestamppb.New(start.Add(heard)),
			ActivityOptions: &apiactivity.ActivityOptions{HeartbeatTimeout: durationpb.New(15 * time.Minute)}}
	}
	fresh := func() *watcher {
		return &watcher{identity: "me", held: newHeld(), seen: map[attempt]*sign{}}
	}
	look := func(w *watcher, a *workflow.PendingActivityInfo) string {
		kind, _ := w.judge(x, a, start, every)
		return kind
	}

	t.Run("silent", func(t *testing.T) {
		w := fresh()
		for i := range 1 + Silence/every {
			if k := look(w, beat("other", 1, 0)); k != "" {
				t.Fatalf("look %d says %s", i, k)
			}
		}
		if k := look(w, beat("other", 1, time.Second)); k != "" {
			t.Errorf("one that was heard again is %s", k)
		}
		for range Silence / every {
			look(w, beat("other", 1, time.Second))
		}
		if k := look(w, beat("other", 2, time.Second)); k != "" {
			t.Errorf("the next attempt is %s", k)
		}
		if k := look(w, beat("other", 1, time.Second)); k != "WorkerSilent" {
			t.Errorf("after %v of silence it is %q", Silence, k)
		}
		a := beat("other", 1, time.Second)
		a.State = enums.PENDING_ACTIVITY_STATE_SCHEDULED
		if k := look(w, a); k != "" {
			t.Errorf("one that nobody has is %s", k)
		}
		a = beat("other", 1, time.Second)
		a.ActivityOptions.HeartbeatTimeout = nil
		if k := look(w, a); k != "" {
			t.Errorf("one that does not beat is %s", k)
		}
	})
	t.Run("of a program's own", func(t *testing.T) { // it beats as it likes, and may run on other queues
		w := fresh()
		for i := range 2 + Silence/every {
			for _, who := range []string{"other", "me"} {
				a := beat(who, 1, 0)
				a.ActivityType.Name = "Work"
				if k := look(w, a); k != "" {
					t.Fatalf("look %d says %s of what %s has", i, k, who)
				}
			}
		}
	})
	t.Run("lost", func(t *testing.T) {
		w := fresh()
		k := attempt{"r", "5", 1}
		if got := look(w, beat("me", 1, 0)); got != "" {
			t.Errorf("one that may be on its way is %s", got)
		}
		w.held.begin(k)
		for range 3 {
			if got := look(w, beat("me", 1, 0)); got != "" {
				t.Errorf("one that is here is %s", got)
			}
		}
		w.held.end(k)
		look(w, beat("me", 1, 0))
		if got := look(w, beat("me", 1, 0)); got != "" {
			t.Errorf("one whose outcome is on its way is %s", got)
		}
		w.held.at[k] = time.Now().Add(-2 * answering)
		look(w, beat("me", 1, 0))
		if got := look(w, beat("me", 1, 0)); got != "TaskLost" {
			t.Errorf("one whose outcome was lost is %q", got)
		}
		look(w, beat("me", 2, 0))
		if got := look(w, beat("me", 2, 0)); got != "TaskLost" {
			t.Errorf("one that never came is %q", got)
		}
		w.identity = ""
		look(w, beat("me", 2, 0))
		if got := look(w, beat("me", 2, 0)); got != "" {
			t.Errorf("without an identity one is %s", got)
		}
	})
	t.Run("old", func(t *testing.T) { // what is over is forgotten
		h := newHeld()
		h.at[attempt{"r", "1", 1}] = time.Now().Add(-2 * answering)
		h.begin(attempt{"r", "2", 1})
		h.end(attempt{"r", "3", 1})
		if len(h.at) != 2 || h.has(attempt{"r", "1", 1}) || !h.has(attempt{"r", "2", 1}) || !h.has(attempt{"r", "3", 1}) {
			t.Errorf("held: %v", h.at)
		}
	})
}
