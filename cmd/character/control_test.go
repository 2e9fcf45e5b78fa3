package main_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runState is what `status --json` says of a run.
type runState struct {
	ID, State, Error string
	Stages           []struct {
		Name, State, Step string
		Done, Total, Kept int64
	}
	Adjusted []struct {
		Key, By  string
		From, To json.RawMessage
		At       time.Time
	}
}

func (m *machine) status(id string) runState {
	m.t.Helper()
	var s struct{ Runs []runState }
	if err := json.Unmarshal([]byte(m.must("status", id, "--json")), &s); err != nil || len(s.Runs) != 1 {
		m.t.Fatalf("status of %s: %v, %+v", id, err, s)
	}
	return s.Runs[0]
}

// waitFor waits for a state of a run.
func (m *machine) waitFor(id, what string, is func(runState) bool) runState {
	m.t.Helper()
	for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(30 * time.Millisecond) {
		s := m.status(id)
		if len(s.Stages) == 5 && is(s) { // of a run that does not answer in time the record must do
			return s
		}
		if time.Now().After(deadline) || s.State == "failed" || s.State == "cancelled" {
			m.t.Fatalf("%s: it never came; the run is %+v\n%s", what, s, m.workerLog())
		}
	}
}

// alone starts a stack on ports that no other stack has had: a worker of another one that was killed a moment ago may still
// ask the usual ports for work.
func (m *machine) alone(more ...string) *session {
	m.t.Helper()
	args := append([]string{"up"}, more...)
	var held []net.Listener // together, so that they differ
	for _, flag := range []string{"--temporal-port", "--http-port", "--ui-port", "--s3-port", "--report-port"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			m.t.Fatal(err)
		}
		held = append(held, l)
		_, port, _ := net.SplitHostPort(l.Addr().String())
		args = append(args, flag, port)
	}
	for _, l := range held {
		_ = l.Close()
	}
	s := m.session(args...)
	s.said("up", has("Ctrl-C stops it"))
	return s
}

// refused runs a command that must fail with what it says.
func (m *machine) refused(want string, args ...string) {
	m.t.Helper()
	out, err := m.command(args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), want) || strings.Count(strings.TrimSpace(string(out)), "\n") > 1 {
		m.t.Errorf("character %s: %v, want %q in\n%s", strings.Join(args, " "), err, want, out)
	}
}

// stands says that a paused run does nothing more.
func stands(s runState) bool {
	for _, st := range s.Stages {
		if st.State == "running" {
			return false
		}
	}
	return s.State == "paused"
}

// TestAdjustedRun changes a run in every stage, ends three stages early and kills everything with -9 in between: it ends
// with the bytes of a run that was started with what its spec says then.
func TestAdjustedRun(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	slow := []string{"--set", "preferences.chunk=2", "--set", "introspection.chunk=2", "--set", "dpo.segment_steps=1", "--set", "sft.segment_steps=1"}
	up := m.alone()
	m.must(m.runArgs("turned", append(slow, "--detach")...)...)
	m.refused("there is no field", "adjust", "turned", "dpo.epoch=3")
	m.refused("start another run", "adjust", "turned", "seed=3")
	m.refused("key=value", "adjust", "turned", "seed")
	m.refused("not one of preferences", "finish-early", "turned", "export")

	m.waitFor("turned", "a pair", func(s runState) bool { return s.Stages[0].Kept >= 1 })
	m.must("pause", "turned")
	m.refused("has begun", "adjust", "turned", "preferences.filter.min_chars=3", "sft.epochs=1")
	m.refused("dpo has not begun", "finish-early", "turned", "dpo")
	m.waitFor("turned", "standing still", stands)
	if out := m.must("adjust", "turned", "sft.epochs=1", "evaluation.scored=2", "preferences.min_pairs=2", "preferences.pairs=22", "introspection.oversample=14"); strings.Count(out, "\n") != 5 || !strings.Contains(out, "sft.epochs from 2 to 1, when sft begins") {
		t.Errorf("adjust says %s", out)
	}
	if out := m.must("adjust", "turned", "sft.epochs=1", "preferences.pairs=22"); !strings.Contains(out, "nothing changed") {
		t.Errorf("the same adjustment again says %s", out)
	}
	m.must("resume", "turned")
	m.waitFor("turned", "pairs over the floor", func(s runState) bool { return s.Stages[0].Kept >= 3 })
	m.must("finish-early", "turned", "preferences")
	m.must("finish-early", "turned", "preferences")
	up.kill()
	up = m.alone()

	m.waitFor("turned", "a step", func(s runState) bool { return s.Stages[1].Done >= 1 })
	if out := m.must("finish-early", "turned", "preferences"); !strings.Contains(out, "over") {
		t.Errorf("ending what is over says %s", out)
	}
	m.must("pause", "turned")
	s := m.waitFor("turned", "standing still", stands)
	m.refused("dpo.steps ends it sooner", "adjust", "turned", "dpo.epochs=1")
	m.refused("preferences is over", "adjust", "turned", "preferences.pairs=5")
	m.refused(fmt.Sprintf("%d steps are done", s.Stages[1].Done), "adjust", "turned", fmt.Sprint("dpo.steps=", s.Stages[1].Done-1))
	m.must("finish-early", "turned")
	m.must("resume", "turned")
	m.waitFor("turned", "a row", func(s runState) bool { return s.Stages[2].Kept >= 1 })
	m.refused("introspection cannot end", "finish-early", "turned", "introspection")
	m.must("adjust", "turned", "introspection.min_share=0")
	m.must("finish-early", "turned", "introspection")
	m.waitFor("turned", "the end", func(s runState) bool { return s.State == "completed" })
	m.refused("completed", "finish-early", "turned")

	done := m.status("turned")
	dir := filepath.Join(t.TempDir(), "export")
	m.must("export", "turned", "--out", dir)
	b, err := os.ReadFile(filepath.Join(dir, "spec.json"))
	if err != nil {
		t.Fatal(err)
	}
	var plan struct{ Spec map[string]map[string]any }
	_ = json.Unmarshal(b, &plan) // its plain values are no groups
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	if len(done.Adjusted) < 8 {
		t.Errorf("adjusted: %+v", done.Adjusted)
	}
	var sets []string
	now := map[string]string{}
	for _, a := range done.Adjusted {
		if a.At.IsZero() || a.By == "" || !strings.Contains(string(page), a.Key) {
			t.Errorf("the report does not say %+v", a)
		}
		now[a.Key] = string(a.To)
	}
	for k, v := range now {
		sets = append(sets, "--set", k+"="+v)
	}
	want, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	if dir := os.Getenv("CHARACTER_RECORD_HISTORIES"); dir != "" {
		for _, w := range append([]string{"turned"}, "turned/preferences", "turned/dpo", "turned/introspection", "turned/sft", "turned/evaluation") {
			name := "v3-" + map[bool]string{true: "character", false: strings.TrimPrefix(w, "turned/")}[w == "turned"] + ".json"
			if err := os.WriteFile(filepath.Join(dir, name), []byte(m.must("_history", w)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	up.kill()

	fresh := newMachine(t)
	fresh.model = m.model
	fresh.must(fresh.runArgs("fresh", append(slow, sets...)...)...)
	fresh.same(t, "fresh", string(want))
}
