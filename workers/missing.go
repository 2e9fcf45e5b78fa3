package workers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/opencharacter/opencharacter/activities"
)

// Silence is how long a worker may be unheard while Temporal answers; then another worker gives its work away. It takes
// the place of a short heartbeat timeout, which would end every attempt when Temporal itself was away.
const Silence = 20 * time.Second

const (
	// every is the time between two looks at what is under way.
	every = 2 * time.Second
	// seldom is that time where the server does not let us look.
	seldom = 10 * time.Minute
	// lists and describes are what all workers together ask in a second at most, so that a large fleet looks less often.
	lists, describes = 5, 200
)

// watcher gives back what nobody works on: activities that this process was given and never got (the answer to its poll
// was lost) or whose outcome it could not deliver, and those whose worker, anywhere, has gone silent.
type watcher struct {
	c         workflowservice.WorkflowServiceClient
	namespace string
	identity  string // of this process; "" is not known, and then nothing is its own
	held      *held
	last      time.Time // of the last look
	period    time.Duration
	seen      map[attempt]*sign
}

// sign is what looks have found of an attempt.
type sign struct {
	heard  time.Time     // its newest heartbeat, or its start, by the server's clock
	silent time.Duration // for how long of time in which the server answered
	lost   int           // looks in a row at which it was ours and not here
	round  time.Time     // the last look that saw it
}

// watch looks until ctx ends. While the server is away there is nothing to do but to look again; one that does not let
// us look is told of once.
func (w *watcher) watch(ctx context.Context) {
	w.seen = map[attempt]*sign{}
	w.period = every
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.period):
		}
		err := w.look(ctx)
		var denied *serviceerror.PermissionDenied
		var invalid *serviceerror.InvalidArgument
		var unknown *serviceerror.Unimplemented
		if (errors.As(err, &denied) || errors.As(err, &invalid) || errors.As(err, &unknown)) && w.period != seldom {
			w.period = seldom
			slog.Warn("cannot look for work whose worker is gone: it is done again after its heartbeat timeout; let workers list and describe workflows", "error", err)
		}
	}
}

// look is one round over the open workflows.
func (w *watcher) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	now := time.Now()
	// Silence grows by this. The server's absence, or that of this process, is not the silence of others.
	gap := now.Sub(w.last)
	if gap > 2*w.period {
		gap = min(gap, every)
	}
	described := 0
	req := &workflowservice.ListWorkflowExecutionsRequest{Namespace: w.namespace, Query: fmt.Sprintf("ExecutionStatus = 'Running' AND TaskQueue = '%s'", activities.DataQueue)}
	for {
		r, err := w.c.ListWorkflowExecutions(ctx, req)
		if err != nil {
			return err
		}
		for _, x := range r.Executions {
			d, err := w.c.DescribeWorkflowExecution(ctx, &workflowservice.DescribeWorkflowExecutionRequest{Namespace: w.namespace, Execution: x.Execution})
			var gone *serviceerror.NotFound
			if errors.As(err, &gone) {
				continue
			}
			if err != nil {
				return err
			}
			described++
			for _, a := range d.PendingActivities {
				if kind, why := w.judge(x.Execution, a, now, gap); kind != "" {
					if _, err := giveBack(ctx, w.c, w.namespace, w.identity, x.Execution, a, kind, why); err != nil {
						return err
					}
				}
			}
		}
		if req.NextPageToken = r.NextPageToken; len(req.NextPageToken) == 0 {
			break
		}
	}
	for k, s := range w.seen {
		if s.round != now {
			delete(w.seen, k)
		}
	}
	n := time.Duration(w.watchers(ctx)) * time.Second
	w.period = max(every, n/lists, n*time.Duration(described)/describes)
	w.last = time.Now()
	return nil
}

// judge says whether a pending activity is to be given back, and why.
func (w *watcher) judge(x *common.WorkflowExecution, a *workflow.PendingActivityInfo, now time.Time, gap time.Duration) (kind, why string) {
	if !ours()[a.GetActivityType().GetName()] { // a program's own: it beats as it likes
		return "", ""
	}
	if s := a.GetState(); s != enums.PENDING_ACTIVITY_STATE_STARTED && s != enums.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED {
		return "", ""
	}
	k := attempt{x.GetRunId(), a.GetActivityId(), a.GetAttempt()}
	heard := a.GetLastStartedTime().AsTime()
	if b := a.GetLastHeartbeatTime().AsTime(); a.GetLastHeartbeatTime() != nil && b.After(heard) {
		heard = b
	}
	s := w.seen[k]
	if s == nil {
		s = &sign{heard: heard}
		w.seen[k] = s
	} else if s.heard.Equal(heard) {
		s.silent += gap
	} else {
		s.heard, s.silent = heard, 0
	}
	s.round = now
	switch {
	case w.identity != "" && a.GetLastWorkerIdentity() == w.identity && !w.held.has(k):
		if s.lost++; s.lost > 1 { // at the first look it may be on its way here
			return "TaskLost", "the task did not reach its worker, or the outcome did not reach the server"
		}
	default:
		s.lost = 0
	}
	// One that is expected to beat: all of ours but those that an old release has scheduled.
	if a.GetActivityOptions().GetHeartbeatTimeout().AsDuration() > 0 && s.silent > Silence {
		return "WorkerSilent", fmt.Sprintf("nothing was heard of its worker %s for %v", a.GetLastWorkerIdentity(), Silence)
	}
	return "", ""
}

// watchers is how many workers look, as far as the server tells.
func (w *watcher) watchers(ctx context.Context) int {
	d, err := w.c.DescribeTaskQueue(ctx, &workflowservice.DescribeTaskQueueRequest{Namespace: w.namespace,
		TaskQueue: &taskqueue.TaskQueue{Name: activities.DataQueue}, TaskQueueType: enums.TASK_QUEUE_TYPE_WORKFLOW})
	if err != nil {
		return 1
	}
	who := map[string]bool{}
	for _, p := range d.GetPollers() {
		who[p.GetIdentity()] = true
	}
	return max(1, len(who))
}

// watching is a watcher at work.
type watching struct {
	end  context.CancelFunc
	over chan struct{}
}

// watch looks until quiet.
func watch(w *watcher) *watching {
	ctx, end := context.WithCancel(context.Background())
	x := &watching{end, make(chan struct{})}
	go func() {
		defer close(x.over)
		w.watch(ctx)
	}()
	return x
}

func (x *watching) quiet() {
	x.end()
	<-x.over
}
