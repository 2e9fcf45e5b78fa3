package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
)

// temporal is a client of the machine's own server.
func (m *machine) temporal() client.Client {
	m.t.Helper()
	var info struct {
		Temporal string `json:"temporal"`
	}
	b, err := os.ReadFile(filepath.Join(m.data, "stack.json"))
	if err == nil {
		err = json.Unmarshal(b, &info)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	c, err := client.NewLazyClient(client.Options{HostPort: info.Temporal})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(c.Close)
	return c
}

// makeCurrent sends new runs to a build. The server takes it once it has seen the build's workers on every queue.
func makeCurrent(t *testing.T, c client.Client, build string) {
	t.Helper()
	var err error
	for range 240 {
		if _, err = c.WorkerDeploymentClient().GetHandle("character").SetCurrentVersion(t.Context(), client.WorkerDeploymentSetCurrentVersionOptions{BuildID: build}); err == nil {
			return
		}
		time.Sleep(250 * time.Millisecond)
	}
	t.Fatalf("build %s does not become the current one: %v", build, err)
}

// builds lists the builds that worked on a run, in the order of their first work: by its workflows' histories, and by the processes
// that did the activities. processes are the builds of workers by the numbers of their processes.
func builds(t *testing.T, c client.Client, run string, processes map[int]string) (workflows, activities []string) {
	t.Helper()
	for _, id := range parts(run) {
		h := c.GetWorkflowHistory(t.Context(), id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for h.HasNext() {
			e, err := h.Next()
			if err != nil {
				t.Fatal(err)
			}
			if a := e.GetWorkflowTaskCompletedEventAttributes(); a != nil {
				workflows = add(workflows, a.GetDeploymentVersion().GetBuildId())
				if got := a.GetVersioningBehavior(); got != enums.VERSIONING_BEHAVIOR_PINNED {
					t.Errorf("workflow %s is %v", id, got)
				}
			}
			if a := e.GetActivityTaskStartedEventAttributes(); a != nil {
				var pid int
				if f := strings.Split(a.GetIdentity(), "/"); len(f) == 4 { // local-worker/HOST/PID/START
					_, _ = fmt.Sscan(f[2], &pid) // else it is nobody's, which the comparison shows
				}
				activities = add(activities, processes[pid])
			}
		}
	}
	return workflows, activities
}

// parts are the workflows of a run.
func parts(run string) []string {
	return []string{run, run + "/preferences", run + "/dpo", run + "/introspection", run + "/sft", run + "/evaluation"}
}

func add(list []string, s string) []string {
	if !slices.Contains(list, s) {
		list = append(list, s)
	}
	return list
}

// TestWorkerVersions: a run stays on the build that it began on, while new runs go to the build that is the current one; and a run
// whose build is gone is moved to another by hand, with the same bytes.
func TestWorkerVersions(t *testing.T) {
	t.Parallel()
	quiet := newMachine(t)
	quiet.must(quiet.runArgs("tiny")...)
	want := quiet.sums("tiny")
	m := newMachine(t)
	m.model = quiet.model // its path is a part of the spec
	m.servers()
	c := m.temporal()
	processes := map[int]string{}
	start := func(build string) *exec.Cmd {
		w := m.worker("--deployment", "character", "--build-id", build)
		processes[w.Process.Pid] = build
		return w
	}

	start("one")
	const lost = "no build of deployment character is the current one"
	for i := 0; ; i++ {
		out, err := m.command("doctor").CombinedOutput() // it knows of a worker when that has polled
		if err != nil && strings.Contains(string(out), lost) {
			break
		}
		if i == 60 {
			t.Fatalf("doctor, before a build is the current one: %v\n%s", err, out)
		}
		time.Sleep(500 * time.Millisecond)
	}
	makeCurrent(t, c, "one")
	out, ended := m.background(m.runArgs("old")...)
	m.until(out, ended, func(s string) bool { return hasRunning(s, "preferences") })
	two := []*exec.Cmd{start("two"), start("two")}
	makeCurrent(t, c, "two")
	if out := m.must(m.runArgs("new", "--set", "seed=2")...); !strings.Contains(out, "chunks at once") {
		t.Errorf("two workers of one build made no chunks beside each other:\n%s", out)
	}
	m.wait(out, ended)
	for run, build := range map[string]string{"old": "one", "new": "two"} {
		if w, a := builds(t, c, run, processes); !slices.Equal(w, []string{build}) || !slices.Equal(a, []string{build}) {
			t.Errorf("run %s: workflows by %v, activities by %v, want build %s alone", run, w, a, build)
		}
	}
	if got := m.sums("old"); got != want {
		t.Errorf("the export of the old build's run differs:\n--- want\n%s--- got\n%s", want, got)
	}

	// The build is gone in the middle of a run: the run waits for it, and another does not take it by itself.
	out, ended = m.background(m.runArgs("moved", "--set", "seed=3")...)
	m.until(out, ended, func(s string) bool { return hasRunning(s, "dpo") })
	for _, w := range two {
		killAll(t, w)
	}
	start("three")
	makeCurrent(t, c, "three")
	for _, id := range []string{"moved", "moved/dpo"} {
		d, err := c.DescribeWorkflowExecution(t.Context(), id, "")
		if err != nil {
			t.Fatal(err)
		}
		x := d.GetWorkflowExecutionInfo()
		if v := x.GetVersioningInfo().GetDeploymentVersion(); v.GetBuildId() != "two" || x.GetStatus() != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
			t.Errorf("%s is %v on build %q, want it to wait for two", id, x.GetStatus(), v.GetBuildId())
		}
	}
	move(t, c, "moved", "three")
	m.wait(out, ended)
	if w, a := builds(t, c, "moved", processes); !slices.Equal(w, []string{"two", "three"}) || !slices.Equal(a, []string{"two", "three"}) {
		t.Errorf("a moved run: workflows by %v, activities by %v", w, a)
	}
	quiet.must(quiet.runArgs("third", "--set", "seed=3")...)
	if got, want := m.sums("moved"), quiet.sums("third"); got != want {
		t.Errorf("the export of a moved run differs:\n--- want\n%s--- got\n%s", want, got)
	}

	// What cannot be a version is refused before anything is asked.
	for _, bad := range [][]string{{"--build-id", "one"}, {"--deployment", "a.b", "--build-id", "one"}, {"--deployment", "character", "--build-id", "one\ntwo"}} {
		if out, err := m.command(append([]string{"worker"}, bad...)...).CombinedOutput(); err == nil || !strings.Contains(string(out), "deployment") {
			t.Errorf("%q: %v\n%s", bad, err, out)
		}
	}
}

// hasRunning says whether a run's output says that a stage has done something.
func hasRunning(out, stage string) bool {
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) > 3 && f[1] == stage && f[2] == "running" && !strings.HasPrefix(f[3], "0/") {
			return true
		}
	}
	return false
}

// move does what docs/workers.md says: a run and its stage under way are pinned to another build, whose workers replay them.
func move(t *testing.T, c client.Client, run, build string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	to := &client.PinnedVersioningOverride{Version: worker.WorkerDeploymentVersion{DeploymentName: "character", BuildID: build}}
	moved := 0
	for _, id := range parts(run) {
		d, err := c.DescribeWorkflowExecution(ctx, id, "")
		if err != nil || d.GetWorkflowExecutionInfo().GetStatus() != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
			continue // not begun, or over
		}
		if _, err := c.UpdateWorkflowExecutionOptions(ctx, client.UpdateWorkflowExecutionOptionsRequest{WorkflowId: id,
			WorkflowExecutionOptionsChanges: client.WorkflowExecutionOptionsChanges{VersioningOverride: &client.VersioningOverrideChange{Value: to}}}); err != nil {
			t.Fatal(fmt.Errorf("move %s: %w", id, err))
		}
		moved++
	}
	if moved != 2 {
		t.Errorf("moved %d workflows, want the run and its stage", moved)
	}
}
