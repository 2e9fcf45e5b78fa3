package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	taskqueue "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/opencharacter/opencharacter/activities"
)

// pollAge is how long ago a living worker polled at most: a poll lasts a minute.
const pollAge = 75 * time.Second

// versioned is what Temporal tells of worker deployments. Builds are keys of the form "deployment:build".
type versioned struct {
	polled  map[string]map[string]bool // queue -> builds whose workers poll it; "" = workers without a version
	current map[string]string          // deployment -> build that gets new runs; "" = none does
	pinned  map[string][]string        // build -> unfinished workflows that stay on it
}

// versions asks for it.
func versions(ctx context.Context, c client.Client, namespace string, polled map[string][]*taskqueue.PollerInfo) (v versioned, err error) {
	v = versioned{polled: map[string]map[string]bool{}, current: map[string]string{}, pinned: map[string][]string{}}
	for q, ps := range polled {
		v.polled[q] = map[string]bool{}
		for _, p := range ps {
			if q == activities.DataQueue && time.Since(p.GetLastAccessTime().AsTime()) > pollAge {
				continue // gone: workers of this queue always poll, and the server remembers them for minutes
			}
			o, key := p.GetDeploymentOptions(), ""
			if o.GetWorkerVersioningMode() == enums.WORKER_VERSIONING_MODE_VERSIONED {
				key = o.GetDeploymentName() + ":" + o.GetBuildId()
				v.current[o.GetDeploymentName()] = ""
			}
			v.polled[q][key] = true
		}
	}
	for name := range v.current {
		r, err := c.WorkerDeploymentClient().GetHandle(name).Describe(ctx, client.WorkerDeploymentDescribeOptions{})
		if err != nil {
			return v, fmt.Errorf("worker deployment %s: %w", name, err)
		}
		if now := r.Info.RoutingConfig.CurrentVersion; now != nil {
			v.current[name] = now.BuildID
		}
	}
	req := &workflowservice.ListWorkflowExecutionsRequest{Namespace: namespace, Query: `ExecutionStatus = 'Running' AND TemporalWorkflowVersioningBehavior = 'Pinned'`}
	for {
		r, err := c.ListWorkflow(ctx, req)
		if err != nil {
			return v, fmt.Errorf("list pinned runs: %w", err)
		}
		for _, x := range r.Executions {
			key := ""
			if err := converter.GetDefaultDataConverter().FromPayload(x.GetSearchAttributes().GetIndexedFields()["TemporalWorkerDeploymentVersion"], &key); err != nil {
				return v, fmt.Errorf("version of %s: %w", x.GetExecution().GetWorkflowId(), err)
			}
			v.pinned[key] = append(v.pinned[key], x.GetExecution().GetWorkflowId())
		}
		if req.NextPageToken = r.NextPageToken; len(req.NextPageToken) == 0 {
			return v, nil
		}
	}
}

// checkVersions finds what makes runs wait although workers are there: a build that nobody made the current one, and runs
// that stay on a build of which no worker is left.
func checkVersions(v versioned) []finding {
	var out []finding
	const check = "worker versions"
	for _, name := range slices.Sorted(maps.Keys(v.current)) {
		build := v.current[name]
		if build == "" {
			if !v.polled[activities.DataQueue][""] {
				out = append(out, finding{check, levelFail, "no build of deployment " + name + " is the current one, and all workers are of builds: new runs wait",
					fmt.Sprintf("`temporal worker deployment set-current-version --deployment-name %s --build-id BUILD`", name)})
			}
			continue
		}
		for _, q := range []string{activities.DataQueue, activities.TeacherQueue, activities.EngineQueue} {
			if !v.polled[q][name+":"+build] {
				out = append(out, finding{check, levelFail, fmt.Sprintf("build %s of deployment %s is the current one, and no worker of it serves task queue %s: new runs wait", build, name, q),
					fmt.Sprintf("`character worker --deployment %s --build-id %s`, or make another build the current one", name, build)})
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(v.pinned)) {
		if v.polled[activities.DataQueue][key] {
			continue
		}
		name, build, _ := strings.Cut(key, ":")
		out = append(out, finding{check, levelFail, fmt.Sprintf("build %s of deployment %s has no worker, and %s stay on it", build, name, strings.Join(v.pinned[key], ", ")),
			fmt.Sprintf("`character worker --deployment %s --build-id %s`, or move them to another build: docs/workers.md, Moving a run", name, build)})
	}
	return out
}

// versions checks the worker deployments, if there are any.
func (d *doctor) versions(ctx context.Context, e *env, polled map[string][]*taskqueue.PollerInfo) {
	v, err := versions(ctx, e.client, e.info.Namespace, polled)
	if err != nil { // an old cluster has neither
		d.add(finding{"worker versions", levelNote, err.Error(), "fine where no worker is started with --deployment"})
		return
	}
	d.add(checkVersions(v)...)
}
