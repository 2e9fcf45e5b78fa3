package workers

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"

	"github.com/opencharacter/opencharacter/activities"
)

const (
	// quiet is how long a worker that reports by itself, once a minute, may be silent before it is taken for gone.
	quiet = 150 * time.Second
	// polled is how long ago an idle worker asked for work at most: a poll lasts a minute.
	polled = 75 * time.Second
)

// lanes counts how many chunks the live workers of a queue can make at once: processes times slots. Two sources are
// joined, because each is blind in its own way: the workers' own reports come once a minute, and polls come only from
// workers that are not busy. Only workers of version d count: a run gets no others. 0 means that the cluster does not tell.
func lanes(c workflowservice.WorkflowServiceClient, namespace string, slots int, d Deployment) func(context.Context, string) int {
	return func(ctx context.Context, queue string) int {
		each := 1 // one slot a device
		if queue == activities.TeacherQueue {
			each = slots
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		q, err := c.DescribeTaskQueue(ctx, &workflowservice.DescribeTaskQueueRequest{Namespace: namespace,
			TaskQueue: &taskqueue.TaskQueue{Name: queue}, TaskQueueType: enums.TASK_QUEUE_TYPE_ACTIVITY})
		if err != nil { // the chunk is made; how many are made at once is a matter of speed
			if ctx.Err() == nil {
				activity.GetLogger(ctx).Warn("cannot count the workers of a queue: chunks go on as before", "queue", queue, "error", err)
			}
			return 0
		}
		live, reported := reporting(ctx, c, namespace, queue, d)
		for _, p := range q.GetPollers() {
			if !d.polls(p.GetDeploymentOptions()) {
				continue
			}
			// Where workers do not report, a busy one is known by its last poll only: the server keeps it for minutes.
			if !reported || time.Since(p.GetLastAccessTime().AsTime()) < polled {
				live[p.GetIdentity()] = true
			}
		}
		return len(live) * each
	}
}

// reporting lists the workers of a queue and of version d that said within [quiet] that they run; ok is false where none reports, as
// with an older server.
func reporting(ctx context.Context, c workflowservice.WorkflowServiceClient, namespace, queue string, d Deployment) (live map[string]bool, ok bool) {
	live = map[string]bool{}
	since := time.Now().Add(-quiet).UTC().Format(time.RFC3339)
	req := &workflowservice.ListWorkersRequest{Namespace: namespace, PageSize: 1000, Query: fmt.Sprintf("TaskQueue = '%s' AND HeartbeatTime > '%s'", queue, since)}
	for {
		r, err := c.ListWorkers(ctx, req)
		if err != nil {
			return live, ok
		}
		for _, w := range r.GetWorkers() {
			ok = ok || w.GetStatus() == enums.WORKER_STATUS_RUNNING
			if w.GetStatus() == enums.WORKER_STATUS_RUNNING && d.reports(w.GetDeploymentVersion()) {
				live[w.GetWorkerIdentity()] = true
			}
		}
		if req.NextPageToken = r.GetNextPageToken(); len(req.NextPageToken) == 0 {
			return live, ok
		}
	}
}
