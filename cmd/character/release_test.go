package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/cmd/internal/telemetry"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/temporalserver"
	"github.com/opencharacter/opencharacter/workers"
)

func TestIsDead(t *testing.T) {
	own := localIdentity()
	if isDead(own) {
		t.Errorf("this process is dead: %s", own)
	}
	child := exec.Command(os.Args[0], "-test.run=^$")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	f := strings.Split(own, "/")
	with := func(i int, s string) string {
		g := append([]string{}, f...)
		g[i] = s
		return strings.Join(g, "/")
	}
	if ended := with(2, strconv.Itoa(child.Process.Pid)); !isDead(ended) {
		t.Errorf("%s is alive", ended)
	}
	if before := with(3, "1"); runtime.GOOS == "linux" && !isDead(before) {
		t.Errorf("%s: a process that has the number of an older one is taken for it", before)
	}
	// Of these nobody here can tell.
	for _, s := range []string{"", "1234@host@", with(0, "worker"), with(1, "elsewhere"), with(2, "x"), with(2, "-1"), with(2, "0"), own + "/x"} {
		if isDead(s) {
			t.Errorf("%q is dead", s)
		}
	}
}

// hold is a workflow whose only activity, on a queue of the workflow's name, waits for whoever polls.
func hold(ctx workflow.Context) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{TaskQueue: workflow.GetInfo(ctx).WorkflowExecution.ID, StartToCloseTimeout: time.Hour,
		HeartbeatTimeout: 15 * time.Minute, WaitForCancellation: true})
	return workflow.ExecuteActivity(ctx, "Generate").Get(ctx, nil) // one of ours: a program's own are not watched
}

// take polls for the activity in the name of a worker, which then never says a word again.
func take(t *testing.T, c client.Client, queue, identity string) *workflowservice.PollActivityTaskQueueResponse {
	t.Helper()
	for range 4 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		r, err := c.WorkflowService().PollActivityTaskQueue(ctx, &workflowservice.PollActivityTaskQueueRequest{Namespace: "default", TaskQueue: &taskqueue.TaskQueue{Name: queue}, Identity: identity})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if len(r.TaskToken) > 0 {
			return r
		}
	}
	t.Fatal("the activity is not given to anybody")
	return nil
}

func temporalForTest(t *testing.T) client.Client {
	t.Helper()
	s, err := temporalserver.Start(t.Context(), temporalserver.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	c, err := client.Dial(client.Options{HostPort: s.Address, Logger: telemetry.Temporal()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestRelease: what a dead worker held is given back on a real server, what a living one holds is not.
func TestRelease(t *testing.T) {
	c := temporalForTest(t)
	child := exec.Command(os.Args[0], "-test.run=^$")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	own := strings.Split(localIdentity(), "/")
	own[2] = strconv.Itoa(child.Process.Pid)
	dead := strings.Join(own, "/") + " character=x"

	steps := worker.New(c, "steps", worker.Options{LocalActivityWorkerOnly: true})
	steps.RegisterWorkflow(hold)
	if err := steps.Start(); err != nil {
		t.Fatal(err)
	}
	defer steps.Stop()
	var end client.WorkflowRun
	for _, id := range []string{"dead", "alive", "cancelled"} {
		var err error
		if end, err = c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: "steps"}, hold); err != nil {
			t.Fatal(err)
		}
	}
	if r := take(t, c, "dead", dead); r.Attempt != 1 {
		t.Fatalf("attempt %d", r.Attempt)
	}
	take(t, c, "alive", localIdentity())
	take(t, c, "cancelled", dead)
	if err := c.CancelWorkflow(t.Context(), "cancelled", ""); err != nil {
		t.Fatal(err)
	}
	total := 0
	for i := 0; total < 2; i++ { // the list of open workflows, and the cancellation, come a moment later
		n, err := release(t.Context(), c, "default")
		if err != nil {
			t.Fatal(err)
		}
		if total += n; total > 2 || i == 600 {
			t.Fatalf("%d activities were given back, want 2", total)
		}
		time.Sleep(100 * time.Millisecond)
	}
	again := take(t, c, "dead", localIdentity())
	if again.Attempt < 2 {
		t.Errorf("attempt %d follows a lost one", again.Attempt)
	}
	if n, err := release(t.Context(), c, "default"); n != 0 || err != nil {
		t.Errorf("%d activities of living workers were given back, %v", n, err)
	}
	if d, err := c.DescribeWorkflowExecution(t.Context(), "alive", ""); err != nil || len(d.PendingActivities) != 1 || d.PendingActivities[0].Attempt != 1 {
		t.Errorf("what a living worker holds: %v, %v", d.GetPendingActivities(), err)
	}
	if err := end.Get(t.Context(), nil); err == nil {
		t.Error("the cancelled workflow ended well")
	}
}

// TestLostTask: an activity that the server gave to a worker, and that never came there, is given to it again.
func TestLostTask(t *testing.T) {
	c := temporalForTest(t)
	const me = "this worker"
	ws, err := workers.New(c, workers.Options{Queues: []string{"data"}, Store: &store.Store{}, Identity: me})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ws {
		w.RegisterWorkflow(hold)
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
	}
	if _, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "lost", TaskQueue: activities.DataQueue}, hold); err != nil {
		t.Fatal(err)
	}
	for want := range int32(2) {
		if r := take(t, c, "lost", me); r.Attempt != want+1 {
			t.Errorf("attempt %d, want %d", r.Attempt, want+1)
		}
	}
}
