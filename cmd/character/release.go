package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/workers"
)

// A worker of the local stack says which process of which machine it is, so that the next one can tell that it is dead.
const localWorker = "local-worker"

// localIdentity names this process. A number alone may belong to another process by tomorrow: its start time tells.
func localIdentity() string {
	host, _ := os.Hostname() // without a name all are on one machine
	start, _ := startTime(os.Getpid())
	return fmt.Sprintf("%s/%s/%d/%s", localWorker, host, os.Getpid(), start)
}

// isDead says that an identity is of a worker of this machine whose process is over.
func isDead(identity string) bool {
	name, _, _ := strings.Cut(identity, " ") // its build follows
	f := strings.Split(name, "/")
	host, _ := os.Hostname()
	var pid int
	if len(f) != 4 || f[0] != localWorker || f[1] != host {
		return false
	}
	if _, err := fmt.Sscan(f[2], &pid); err != nil || pid <= 0 {
		return false
	}
	if err := syscall.Kill(pid, 0); err != nil {
		return err == syscall.ESRCH
	}
	start, over := startTime(pid)
	return over || start != f[3]
}

// startTime is when a process started, in ticks since boot, and whether it has ended but not been buried. Linux only;
// elsewhere "".
func startTime(pid int) (start string, over bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false
	}
	// The name, in parentheses, may hold anything; the state is the third field, the start time the 22nd.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 {
		return "", false
	}
	return f[19], f[0] == "Z"
}

// release gives back what dead workers of this machine held, so that it is done again at once instead of when their
// silence is noticed (workers.Silence). It returns how many activities it gave back.
func release(ctx context.Context, c client.Client, namespace string) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var page []byte
	for {
		r, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: namespace, Query: `ExecutionStatus = 'Running'`, NextPageToken: page})
		if err != nil {
			return n, fmt.Errorf("list open workflows: %w", err)
		}
		for _, x := range r.Executions {
			k, err := releaseOf(ctx, c, namespace, x.Execution)
			if err != nil {
				return n, fmt.Errorf("workflow %s: %w", x.Execution.WorkflowId, err)
			}
			n += k
		}
		if page = r.NextPageToken; len(page) == 0 {
			return n, nil
		}
	}
}

func releaseOf(ctx context.Context, c client.Client, namespace string, x *common.WorkflowExecution) (n int, err error) {
	d, err := c.DescribeWorkflowExecution(ctx, x.WorkflowId, x.RunId)
	if err != nil {
		return 0, fmt.Errorf("describe: %w", err)
	}
	for _, a := range d.PendingActivities {
		if !isDead(a.GetLastWorkerIdentity()) {
			continue
		}
		ok, err := workers.GiveBack(ctx, c, namespace, localIdentity(), x, a, "WorkerEnded", "its worker's process ended without a word")
		if err != nil {
			return n, err
		}
		if ok {
			n++
		}
	}
	return n, nil
}
