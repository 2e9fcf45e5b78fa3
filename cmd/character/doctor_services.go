package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	taskqueue "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/tensor"
	"github.com/opencharacter/opencharacter/workflows"
)

const errNotDir = syscall.ENOTDIR

// checkRights checks the bucket's conditions, and that these credentials may list, write, read and delete.
func checkRights(ctx context.Context, s *store.Store) []finding {
	out := []finding{verdict("S3", true, "conditional writes on "+s.Where()+" work", "")}
	if err := s.Probe(ctx); err != nil {
		out[0] = finding{"S3", levelFail, err.Error(), "runs need a bucket that honours If-None-Match and If-Match, and keys that may write and read"}
	}
	if _, err := s.List(ctx, "runs/"); err != nil {
		return append(out, finding{"S3 rights", levelFail, err.Error(), "allow s3:ListBucket to these keys"})
	}
	key := fmt.Sprintf("_probe/doctor-%d-%d", os.Getpid(), time.Now().UnixNano())
	if _, err := s.PutKey(ctx, key, []byte("doctor")); err != nil {
		return append(out, finding{"S3 rights", levelFail, err.Error(), "allow s3:PutObject and s3:GetObject to these keys"})
	}
	o, _, err := s.Stat(ctx, key)
	if err == nil {
		err = s.Remove(ctx, o)
	}
	if err != nil {
		return append(out, finding{"S3 rights", levelNote, err.Error(), "runs work; allow s3:DeleteObject for `character gc` and `character repair`"})
	}
	return append(out, finding{"S3 rights", levelOK, "list, write, read and delete are allowed", ""})
}

// maxSkew is what S3 servers tolerate, with room: they refuse requests that are 15 minutes off.
const maxSkew = 2 * time.Minute

func checkS3Clock(_ time.Time, ahead time.Duration, err error) finding {
	if err != nil {
		return finding{"clocks", levelFail, err.Error(), "check that the S3 server runs"}
	}
	return checkSkew("the S3 server", ahead)
}

func checkSkew(who string, ahead time.Duration) finding {
	dir := "before"
	if ahead < 0 {
		dir = "behind"
	}
	return verdict("clocks", ahead.Abs() <= maxSkew, fmt.Sprintf("the clock of %s is %s %s ours", who, ahead.Abs().Round(time.Second), dir),
		"set the clocks by NTP: S3 refuses requests that are a quarter of an hour off, and timeouts of runs go by Temporal's clock")
}

// checkTemporalClock goes by the times at which Temporal saw workers poll, which are at most a long poll (a minute) old.
func checkTemporalClock(polled map[string][]*taskqueue.PollerInfo, now time.Time) finding {
	var newest time.Time
	for _, ps := range polled {
		for _, p := range ps {
			if at := p.GetLastAccessTime().AsTime(); at.After(newest) {
				newest = at
			}
		}
	}
	if newest.IsZero() {
		return finding{"clocks", levelNote, "Temporal's clock is not known: no worker has polled", ""}
	}
	ahead := newest.Sub(now)
	if ahead < 0 { // a worker may have polled up to a minute ago
		ahead = min(0, ahead+time.Minute)
	}
	return checkSkew("Temporal", ahead)
}

// queues asks who polls.
func queues(ctx context.Context, c client.Client) (map[string][]*taskqueue.PollerInfo, []finding) {
	polled := map[string][]*taskqueue.PollerInfo{}
	var out []finding
	for _, q := range []struct {
		name string
		kind enums.TaskQueueType
	}{{activities.DataQueue, enums.TASK_QUEUE_TYPE_WORKFLOW}, {activities.TeacherQueue, enums.TASK_QUEUE_TYPE_ACTIVITY}, {activities.EngineQueue, enums.TASK_QUEUE_TYPE_ACTIVITY}} {
		r, err := c.DescribeTaskQueue(ctx, q.name, q.kind)
		if _, denied := errors.AsType[*serviceerror.PermissionDenied](err); denied {
			out = append(out, finding{"workers", levelFail, err.Error(), "these Temporal credentials may not read the namespace: ask for the right to it"})
			continue
		}
		if err != nil {
			out = append(out, finding{"workers", levelFail, fmt.Sprintf("task queue %s: %v", q.name, err), "check the Temporal server"})
			continue
		}
		polled[q.name] = r.Pollers
		out = append(out, verdict("workers", len(r.Pollers) > 0, fmt.Sprintf("task queue %s: %d", q.name, len(r.Pollers)), "start one: `character worker` (see logs/worker.log in the data directory)"))
	}
	return polled, out
}

// identity is what a worker of this program tells about itself: who it is, which commit, which kernels.
func identity() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%d@%s %s", os.Getpid(), host, build())
}

// build is the part of an identity that says what the worker computes with.
func build() string {
	v := readVersion()
	commit := v.Commit
	if commit == "" {
		commit = v.Version
	}
	return fmt.Sprintf("character=%s kernels=%s", commit, tensor.Variant())
}

// part reads one value of an identity.
func part(identity, name string) string {
	for _, f := range strings.Fields(identity) {
		if v, ok := strings.CutPrefix(f, name+"="); ok {
			return v
		}
	}
	return ""
}

// checkWorkers finds workers of another release than this program, and kernels other than unfinished runs began with.
func checkWorkers(polled map[string][]*taskqueue.PollerInfo, ours string, v *activities.Inventory) []finding {
	var out []finding
	seen := map[string]bool{}
	for _, q := range []string{activities.DataQueue, activities.TeacherQueue, activities.EngineQueue} {
		for _, p := range polled[q] {
			id := p.Identity
			if c := part(id, "character"); !seen[id] && c != part(ours, "character") {
				if c == "" {
					c = "of another kind"
				}
				out = append(out, finding{"worker versions", levelNote, fmt.Sprintf("worker %q is release %s, this program is %s", id, c, part(ours, "character")),
					"let all workers be of one release: the same inputs then give the same bytes"})
			}
			seen[id] = true
			kernels := part(id, "kernels")
			if q != activities.EngineQueue || kernels == "" {
				continue
			}
			for _, r := range v.Roots {
				if r.Kind == activities.RootRun && r.Record.State == workflows.Running && r.Plan.Variant != "" && !strings.HasPrefix(r.Plan.Variant, kernels) {
					out = append(out, finding{"worker kernels", levelFail, fmt.Sprintf("run %s began with %s kernels, and worker %q has %s: its last bits differ", r.Name, r.Plan.Variant, id, kernels),
						"stop that worker, or accept that the run's bits follow the worker (the run says where they changed)"})
				}
			}
		}
	}
	if len(out) == 0 && len(seen) > 0 {
		out = append(out, finding{"worker versions", levelOK, fmt.Sprintf("%d workers of this release", len(seen)), ""})
	}
	return out
}

// checkLostRuns finds runs that the bucket knows as unfinished and Temporal does not know.
func checkLostRuns(runs []bucketRun) []finding {
	var lost []string
	for _, r := range runs {
		if r.Temporal == unknown && r.unfinished() {
			lost = append(lost, r.ID)
		}
	}
	if len(lost) == 0 {
		return []finding{{"runs", levelOK, fmt.Sprintf("%d in the bucket; Temporal knows all that are unfinished", len(runs)), ""}}
	}
	return []finding{{"runs", levelFail, "Temporal does not know " + strings.Join(lost, ", "), "`character repair` goes on with them from what they have committed"}}
}

// checkObjects reports what the look at the bucket found.
func (d *doctor) checkObjects(v *activities.Inventory, damage []activities.Damage) []finding {
	var out []finding
	for _, x := range damage {
		level := levelFail
		if x.Harmless {
			level = levelNote
		}
		out = append(out, finding{"objects", level, x.Key + ": " + x.What, x.Next})
	}
	if len(out) == 0 {
		how := "by size; --deep reads them"
		if d.deep {
			how = "read and hashed"
		}
		out = append(out, finding{"objects", levelOK, fmt.Sprintf("all %d are whole (%.1f MB, %s)", len(v.Objects), float64(v.Bytes())/1e6, how), ""})
	}
	return out
}

// checkModelsOfRuns: the models of unfinished runs must be the files that they began with.
func checkModelsOfRuns(v *activities.Inventory, o hub.Options) []finding {
	var out []finding
	seen := map[string]bool{}
	for _, r := range v.Roots {
		if r.Kind != activities.RootRun || r.Record.State != workflows.Running {
			continue
		}
		for _, m := range []activities.ModelInfo{r.Plan.Model, r.Plan.Teacher} {
			if m.Name == "" || seen[r.Name+m.Name] {
				continue
			}
			seen[r.Name+m.Name] = true
			f, err := hub.Resolve(m.Name, o)
			switch {
			case errors.Is(err, hub.ErrNotPulled): // the engine gets it
			case err != nil:
				out = append(out, finding{"models", levelFail, fmt.Sprintf("run %s needs %s: %v", r.Name, m.Name, err), "put the file back that the run began with: it goes on by itself"})
			case f.SHA256 != m.SHA256:
				out = append(out, finding{"models", levelFail, fmt.Sprintf("run %s needs %s with sha256 %s, and the file here has %s: it has changed since the run began", r.Name, m.Name, m.SHA256, f.SHA256),
					"put the file back that the run began with: it goes on by itself"})
			}
		}
	}
	return out
}

// stuckAfter is how many attempts must fail before a run is called stuck: one or two are everyday life.
const stuckAfter = 3

// attempt is something that is tried again and again.
type attempt struct {
	Workflow, What, Failure string
	Attempt                 int32
}

func checkAttempts(open int, all []attempt) []finding {
	var out []finding
	for _, a := range all {
		if a.Attempt < stuckAfter {
			continue
		}
		f := finding{"stuck runs", levelFail, fmt.Sprintf("%s: %s is tried for the %dth time; the last attempt said: %s", a.Workflow, a.What, a.Attempt, a.Failure), "mend what it says: the next attempt goes on by itself"}
		if strings.Contains(a.Failure, store.ErrCorrupt.Error()) || strings.Contains(a.Failure, store.ErrConflict.Error()) {
			id, _, _ := strings.Cut(a.Workflow, "/")
			f.Todo = fmt.Sprintf("`character repair %s` sets the damaged object aside and starts the run again: finished stages are reused", id)
		}
		out = append(out, f)
	}
	if len(out) == 0 {
		out = append(out, finding{"stuck runs", levelOK, fmt.Sprintf("none of %d open workflows repeats itself", open), ""})
	}
	return out
}

// stuck looks for open workflows whose activities or own tasks fail again and again.
func stuck(ctx context.Context, c client.Client, namespace string) []finding {
	ids, err := openWorkflows(ctx, c, namespace)
	if err != nil {
		return []finding{{"stuck runs", levelFail, err.Error(), "check the Temporal server, and the right to list workflows"}}
	}
	slices.Sort(ids)
	var all []attempt
	for _, id := range ids {
		d, err := c.DescribeWorkflowExecution(ctx, id, "")
		if err != nil {
			continue // it has just ended
		}
		all = append(all, attemptsOf(id, d)...)
	}
	return checkAttempts(len(ids), all)
}

func attemptsOf(id string, d *workflowservice.DescribeWorkflowExecutionResponse) (out []attempt) {
	for _, a := range d.PendingActivities {
		out = append(out, attempt{Workflow: id, What: a.GetActivityType().GetName(), Attempt: a.GetAttempt(), Failure: a.GetLastFailure().GetMessage()})
	}
	if t := d.PendingWorkflowTask; t != nil {
		out = append(out, attempt{Workflow: id, What: "the workflow's own code", Attempt: t.GetAttempt(), Failure: "see logs/worker.log: a worker of another release may have taken it"})
	}
	return out
}
