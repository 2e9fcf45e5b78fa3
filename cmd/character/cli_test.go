package main_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// into runs a command and reads its JSON.
func (m *machine) into(v any, args ...string) {
	m.t.Helper()
	out := m.must(args...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		m.t.Fatalf("character %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

type listedSet struct {
	Name               string
	Rows, Tried, Bytes int64
	Dropped            map[string]int64
	Columns            []string
	Stage, Run, Folder string
	Summary            struct{ Rows int }
}

// TestDataCommands reads a finished run's data sets without any server.
func TestDataCommands(t *testing.T) {
	t.Parallel()
	d := killedRun(t)
	m := copyOf(t, d, d.finished)
	var ls, stats struct{ DataSets []listedSet }
	m.into(&ls, "data", "ls", "--json")
	if len(ls.DataSets) != 2 || ls.DataSets[0].Name != "tiny/dpo" || ls.DataSets[1].Name != "tiny/introspection" {
		t.Fatalf("data ls: %+v", ls)
	}
	m.into(&stats, "data", "stats", "tiny", "--json")
	for i, s := range ls.DataSets {
		if s.Rows == 0 || s.Bytes == 0 || s.Tried < s.Rows || len(s.Columns) < 8 || int64(stats.DataSets[i].Summary.Rows) != s.Rows {
			t.Errorf("data set %+v, stats %+v", s, stats.DataSets[i])
		}
		var all struct {
			Found int64
			Rows  []map[string]any
		}
		m.into(&all, "data", "show", s.Name, "--n", "0", "--json")
		if int64(len(all.Rows)) != s.Rows || all.Found != s.Rows {
			t.Errorf("%s: %d rows shown of %d", s.Name, len(all.Rows), s.Rows)
		}
		var dropped struct{ Rows []struct{ ID, Reason string } }
		m.into(&dropped, "data", "show", s.Name, "--dropped", "--n", "0", "--json")
		counts := map[string]int64{}
		for _, r := range dropped.Rows {
			counts[r.Reason]++
		}
		for reason, n := range s.Dropped {
			if counts[reason] != n {
				t.Errorf("%s: %d rows dropped for %s shown, %d counted", s.Name, counts[reason], reason, n)
			}
			var one struct{ Rows []struct{ Reason string } }
			m.into(&one, "data", "show", s.Name, "--reason", reason, "--n", "0", "--json")
			if int64(len(one.Rows)) != n {
				t.Errorf("--reason %q: %d rows, want %d", reason, len(one.Rows), n)
			}
		}
		if len(counts) != len(s.Dropped) {
			t.Errorf("%s: reasons %v, counted %v", s.Name, counts, s.Dropped)
		}
	}
	text := m.must("data", "show", "tiny", "--n", "2")
	if strings.Count(text, "prompt    ") != 2 || strings.Contains(text, "\x1b") || !strings.Contains(text, "2 of ") {
		t.Errorf("data show:\n%s", text)
	}
	var one struct {
		Found int
		Rows  []struct{ ID string }
	}
	m.into(&one, "data", "show", "tiny/dpo", "--json")
	want := one.Rows[0].ID
	m.into(&one, "data", "show", "tiny/dpo", "--json", "--grep", strings.ToUpper(want))
	if one.Found != 1 || one.Rows[0].ID != want {
		t.Errorf("--grep of an id: %+v", one)
	}
	if _, err := os.Stat(filepath.Join(m.data, "temporal")); err != nil {
		t.Fatal(err)
	}

	// The files are those of an export.
	export, dir := filepath.Join(t.TempDir(), "export"), t.TempDir()
	m.must("export", "tiny", "--out", export)
	for _, c := range []struct{ set, file, like string }{
		{"tiny/dpo", "pairs.jsonl", "captain_dpo.jsonl"}, {"tiny/introspection", "talks.jsonl", "captain_introspection.jsonl"},
		{"tiny/dpo", "pairs.parquet", "data/dpo/train-00000-of-00001.parquet"}, {"tiny/introspection", "talks.parquet", "data/introspection/train-00000-of-00001.parquet"},
	} {
		m.must("data", "export", c.set, "--out", filepath.Join(dir, c.file))
		got, err := os.ReadFile(filepath.Join(dir, c.file))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(export, filepath.FromSlash(c.like))); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s differs from %s: %v", c.file, c.like, err)
		}
	}
	m.must("data", "export", "tiny", "--format", "csv", "--out", filepath.Join(dir, "pairs"))
	if b, err := os.ReadFile(filepath.Join(dir, "pairs")); err != nil || !bytes.HasPrefix(b, []byte("id,prompt,chosen,rejected,")) {
		t.Errorf("csv: %v\n%.200s", err, b)
	}
	var cmp struct {
		Spec    []any
		Metrics []struct{ Stage, Name string }
	}
	m.into(&cmp, "runs", "compare", "tiny", "tiny", "--json")
	if len(cmp.Spec) != 0 || !slices.ContainsFunc(cmp.Metrics, func(x struct{ Stage, Name string }) bool { return x.Stage == "evaluation" }) {
		t.Errorf("runs compare of a run with itself: %+v", cmp)
	}

	// A bucket whose part is damaged says so, and nothing is written.
	truncate(t, m.bucket("parts/pairs/*.parquet")...)
	bad := filepath.Join(dir, "bad.jsonl")
	if out := m.fails("data", "export", "tiny/dpo", "--out", bad); !strings.Contains(out, "parts/pairs/") {
		t.Errorf("a damaged part:\n%s", out)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*bad*")); len(left) != 0 {
		t.Errorf("a half-written file: %v", left)
	}
}

// TestCLIMistakes: one line that says what, where and what to do.
func TestCLIMistakes(t *testing.T) {
	d := killedRun(t)
	m := copyOf(t, d, d.finished)
	there := filepath.Join(t.TempDir(), "there.jsonl")
	if err := os.WriteFile(there, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("name: bad\ntraits:\n  - I am.\n  - I am.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"data", "show", "ghost"}, `no run "ghost" is recorded: there are tiny`, 1},
		{[]string{"data", "show", "tiny/sft"}, "stands dpo or introspection", 2},
		{[]string{"data", "show", "../../etc"}, "stands dpo or introspection", 2},
		{[]string{"data", "show", ".."}, "run id", 2},
		{[]string{"data", "show", "tiny", "--n", "-1"}, "--n -1", 2},
		{[]string{"data", "show", "tiny", "--reason", "boredom"}, `--reason "boredom"`, 2},
		{[]string{"data", "show"}, "accepts 1 arg", 2},
		{[]string{"data", "export", "tiny/dpo"}, "--out is missing", 2},
		{[]string{"data", "export", "tiny/dpo", "--out", "x"}, "says no format", 2},
		{[]string{"data", "export", "tiny/dpo", "--out", "x", "--format", "xml"}, `--format "xml"`, 2},
		{[]string{"data", "export", "tiny/dpo", "--out", there}, "is there already", 1},
		{[]string{"data", "export", "tiny/dpo", "--out", "/nowhere/x.csv"}, "folder that exists", 1},
		{[]string{"--data", empty, "data", "ls"}, "there are no runs in", 1},
		{[]string{"chat"}, "--id is missing", 2},
		{[]string{"chat", "tiny", "--id", "other"}, "give one", 2},
		{[]string{"chat", "tiny", "--compare", "--model", "base"}, "leave --model out", 2},
		{[]string{"chat", "tiny", "--model", "best"}, `--model "best"`, 2},
		{[]string{"chat", "tiny", "--temperature", "-1"}, "--temperature -1", 2},
		{[]string{"chat", "tiny", "--weights", "tiny"}, `--weights "tiny"`, 2},
		{[]string{"runs", "compare", "tiny"}, "accepts 2 arg", 2},
		{[]string{"runs", "compare", "tiny", "ghost"}, `no run "ghost"`, 1},
		{[]string{"runs", "remove", "a/b"}, "run id", 2},
		{[]string{"constitution", "new", "Bad Name"}, "use 1 to 64", 2},
		{[]string{"constitution", "new", "good", "--out", there}, "must end in .yaml", 2},
		{[]string{"constitution", "check", bad}, "line 4: trait 2: says the same", 1},
		{[]string{"constitution", "check", "captain", "--prompts", "--model", "/nowhere.gguf"}, "nowhere", 1},
		{[]string{"completion", "tcsh"}, `shell "tcsh"`, 2},
		{[]string{"plan", "nobody"}, "nobody", 1},
		{[]string{"plan", "captain", "--rows", "0"}, "--rows 0", 2},
		{[]string{"plan", "captain", "--budget", "1ms"}, "--budget 1ms", 2},
		{[]string{"plan", "captain", "--price-in", "-1"}, "--price-in", 2},
		{[]string{"plan", "captain", "--set", "dpo.epoch=3"}, "unknown field", 1},
		{[]string{"plan", "captain", "--preset", "grand"}, `preset "grand"`, 1},
		{[]string{"plan", "captain", "--model", m.model, "--set", "dpo.max_length=100000", "--no-measure=false"}, "dpo.max_length", 1},
	} {
		out, err := m.command(c.args...).CombinedOutput()
		code := 0
		if x, ok := err.(*exec.ExitError); ok {
			code = x.ExitCode()
		}
		if code != c.code || !strings.Contains(string(out), c.want) || strings.Count(string(out), "\n") != 1 {
			t.Errorf("character %s: exit code %d, want %d and %q in one line:\n%s", strings.Join(c.args, " "), code, c.code, c.want, out)
		}
	}
	if b, err := os.ReadFile(there); err != nil || string(b) != "mine" {
		t.Errorf("a file that was there has changed: %q %v", b, err)
	}
}

// TestChatCompare asks all three models through a pipe, beside each other what they say alone.
func TestChatCompare(t *testing.T) {
	d := killedRun(t)
	m := copyOf(t, d, d.finished)
	talk := func(args ...string) string {
		c := m.command(append([]string{"chat", "tiny", "--temperature", "1", "--max-tokens", "30", "--seed", "5"}, args...)...)
		c.Stdin = strings.NewReader("Hello!\n/reset\nHello!\n")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("chat: %v\n%s", err, out)
		}
		return string(out)
	}
	answers := func(out, name string) (list []string) {
		for _, line := range strings.Split(out, "\n") {
			if _, a, ok := strings.Cut(line, name+"> "); ok {
				list = append(list, a)
			}
		}
		return list
	}
	all := talk("--compare")
	for _, name := range []string{"base", "dpo", "character"} {
		got, alone := answers(all, name), answers(talk("--model", name), name)
		if len(got) != 2 || got[0] != got[1] || !slices.Equal(got, alone) {
			t.Errorf("%s says %q, alone %q", name, got, alone)
		}
	}
	if strings.Contains(all, "\x1b") {
		t.Errorf("a terminal's codes in a pipe: %q", all)
	}
}

// TestConstitutionCommands begins, checks and lists.
func TestConstitutionCommands(t *testing.T) {
	m := newMachine(t)
	file := filepath.Join(t.TempDir(), "lamp.yaml")
	m.must("constitution", "new", "lamp", "--out", file)
	if out := m.fails("constitution", "new", "lamp", "--out", file); !strings.Contains(out, "is there already") {
		t.Errorf("a second new:\n%s", out)
	}
	b, err := os.ReadFile(file)
	if err != nil || m.must("constitution", "new", "lamp") != string(b) {
		t.Errorf("what is printed is not what is written: %v", err)
	}
	out := m.must("constitution", "check", file, "--prompts", "--model", m.model)
	for _, want := range []string{"5 traits, 3 examples: usable", "teacher, short (", "tokens more for", "conversation, as it is trained on"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	short := filepath.Join(t.TempDir(), "short.txt")
	if err := os.WriteFile(short, []byte("I like lamps.\nThe sea is wide.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var check struct {
		Usable bool
		Notes  []struct {
			Code, Why, Instead string
			Line               int
		}
		Prompts []struct {
			Name   string
			Tokens int
		}
	}
	m.into(&check, "constitution", "check", short, "--json", "--model", m.model)
	found := false
	for _, n := range check.Notes {
		found = found || n.Code == "not_first_person" && n.Line == 2
		if n.Why == "" || n.Instead == "" {
			t.Errorf("note %+v explains nothing", n)
		}
	}
	if !check.Usable || !found || len(check.Prompts) < 7 || check.Prompts[0].Tokens <= check.Prompts[1].Tokens {
		t.Errorf("check --json: %+v", check)
	}
	if out := m.must("constitution", "check", short); !strings.Contains(out, "  why ") || !strings.Contains(out, "  instead ") || !strings.Contains(out, "line 2: ") {
		t.Errorf("check:\n%s", out)
	}
	var list struct {
		Constitutions []struct {
			Name             string
			Traits, Recorded int
		}
	}
	m.into(&list, "constitution", "list", "--json")
	if len(list.Constitutions) < 5 || list.Constitutions[0].Name != "captain" || list.Constitutions[0].Traits == 0 || list.Constitutions[0].Recorded == 0 {
		t.Errorf("list --json: %+v", list)
	}
}

// TestPlanCommand measures with the tiny model, and counts without one.
func TestPlanCommand(t *testing.T) {
	m := newMachine(t)
	var p struct {
		Measured                                 bool
		Seconds, MemoryBytes, CalibrationSeconds float64
		Memory                                   int64 `json:"memory_bytes"`
		Storage                                  int64 `json:"storage_bytes"`
		Stages                                   []struct {
			Name   string
			Rows   int
			Target int
		}
		Teacher *struct {
			Requests int
			Cost     float64
		}
		Basis []string
	}
	args := append([]string{"plan", "captain", "--model", m.model, "--rows", "8", "--json"}, m.runArgs("x")[6:]...)
	m.into(&p, args...)
	if !p.Measured || p.Seconds <= 0 || p.Storage <= 0 || len(p.Stages) != 5 || p.Stages[0].Target != 24 || p.Teacher != nil || len(p.Basis) < 3 {
		t.Errorf("plan: %+v", p)
	}
	if _, err := os.Stat(m.data); err == nil {
		t.Error("plan has made a data directory")
	}
	m.into(&p, "plan", "captain", "--preset", "paper-scale", "--models", t.TempDir(), "--price-in", "1", "--price-out", "2", "--json")
	if p.Measured || p.Seconds != 0 || p.Teacher == nil || p.Teacher.Requests < 1500 || p.Teacher.Cost <= 0 || !strings.Contains(strings.Join(p.Basis, "\n"), "not on this machine") {
		t.Errorf("plan without the model: %+v", p)
	}
	if out := m.must("plan", "captain", "--model", m.model, "--no-measure"); !strings.Contains(out, "time     not measured") || !strings.Contains(out, "memory ") {
		t.Errorf("--no-measure:\n%s", out)
	}
}

type listed struct {
	Runs []struct {
		ID, State, Stage, Constitution, Preset string
		Seconds                                float64
		InTemporal                             bool `json:"in_temporal"`
	}
}

// TestRunsRemove lists a run, refuses what must not go, and removes it to the last object.
func TestRunsRemove(t *testing.T) {
	t.Parallel()
	d := killedRun(t)
	open := copyOf(t, d, d.data) // in the middle of its DPO training
	var l listed
	open.into(&l, "runs", "list", "--json")
	if len(l.Runs) != 1 || l.Runs[0].State != "running" || l.Runs[0].Stage != "dpo" || l.Runs[0].Constitution != "captain" || l.Runs[0].Preset != "demo" || l.Runs[0].Seconds <= 0 {
		t.Errorf("runs list of an unfinished run: %+v", l)
	}
	if out := open.fails("runs", "remove", "tiny", "--yes"); !strings.Contains(out, "has not ended") {
		t.Errorf("an unfinished run:\n%s", out)
	}
	db := filepath.Join(open.data, "temporal", "temporal.db")
	remove(t, db, db+"-wal", db+"-shm")
	open.into(&l, "runs", "list", "--json")
	if len(l.Runs) != 1 || l.Runs[0].State != "lost" || l.Runs[0].Stage != "dpo" || l.Runs[0].InTemporal || l.Runs[0].Constitution != "captain" {
		t.Errorf("runs list without Temporal's file: %+v", l)
	}
	if out := open.fails("runs", "remove", "tiny", "--yes"); !strings.Contains(out, "character repair tiny") {
		t.Errorf("a lost run:\n%s", out)
	}

	m := copyOf(t, d, d.finished)
	m.into(&l, "runs", "list", "--json")
	if len(l.Runs) != 1 || l.Runs[0].State != "completed" || l.Runs[0].Stage != "" || !l.Runs[0].InTemporal {
		t.Errorf("runs list: %+v", l)
	}
	if out := m.fails("runs", "remove", "tiny"); !strings.Contains(out, "--yes") {
		t.Errorf("nobody to ask:\n%s", out)
	}
	if out := m.fails("runs", "remove", "ghost", "--yes"); !strings.Contains(out, `no run "ghost"`) {
		t.Errorf("a run that is not there:\n%s", out)
	}
	if out := m.must("runs", "remove", "tiny", "--yes"); !strings.Contains(out, "preferences, dpo, introspection, sft, evaluation") || !strings.Contains(out, "is removed") {
		t.Errorf("runs remove:\n%s", out)
	}
	up := m.session("up", "--no-worker")
	up.said("it is up", has("Temporal UI"))
	for deadline := time.Now().Add(8 * time.Minute); ; { // Temporal deletes in its own time, while it runs
		if m.into(&l, "runs", "list", "--json"); len(l.Runs) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still listed: %+v", l)
		}
		time.Sleep(time.Second)
	}
	if err := up.c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	up.finished()
	for _, pattern := range []string{"runs/*", "stages/*/*", "datasets/*", "train/*", "adapters/*", "evaluations/*", "parts/pairs/*"} {
		left, err := filepath.Glob(filepath.Join(m.data, "s3", "character", filepath.FromSlash(pattern)))
		if err != nil || len(left) != 0 {
			t.Errorf("left of the run: %v", left)
		}
	}
	if out := m.must("repair", "--check"); !strings.Contains(out, "Every object is whole.") {
		t.Errorf("after the removal:\n%s", out)
	}
	m.must(m.runArgs("tiny")...) // the name is free again
	if got := m.sums("tiny"); got != d.want {
		t.Errorf("a run of the same name ends otherwise:\n%s", got)
	}
}
