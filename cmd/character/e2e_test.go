package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

// binary is the program under test: a built one, or built here.
var binary = sync.OnceValues(func() (string, error) {
	if b := os.Getenv("CHARACTER_TEST_BINARY"); b != "" {
		return b, nil
	}
	dir, err := os.MkdirTemp("", "character")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "character")
	b, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", out, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, b)
	}
	return out, nil
})

type machine struct {
	t           *testing.T
	bin         string
	data, model string
	dir         string   // where its processes run; "" = here
	env         []string // added to the environment of its commands
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, bin: bin, data: filepath.Join(t.TempDir(), "data"), model: filepath.Join(t.TempDir(), "tiny")}
	if err := tinymodel.Write(m.model, 1); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) command(args ...string) *exec.Cmd {
	c := exec.Command(m.bin, append([]string{"--data", m.data}, args...)...)
	c.Env = append(os.Environ(), m.env...)
	c.SysProcAttr, c.Dir = &syscall.SysProcAttr{Setpgid: true}, m.dir
	return c
}

// must runs a command to its end and returns its standard output.
func (m *machine) must(args ...string) string {
	m.t.Helper()
	c := m.command(args...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		m.t.Fatalf("character %s: %v\n%s%s\n%s", strings.Join(args, " "), err, out, errs.String(), m.workerLog())
	}
	return string(out)
}

func (m *machine) workerLog() string {
	b, err := os.ReadFile(filepath.Join(m.data, "logs", "worker.log"))
	if err != nil {
		return ""
	}
	return "worker.log ends:\n" + string(b[max(0, len(b)-4000):])
}

func (m *machine) runArgs(id string, more ...string) []string {
	return append(tinymodel.RunArgs(m.model, id), more...)
}

// killAll ends the program and everything it started with -9, at once.
func killAll(t *testing.T, c *exec.Cmd) {
	t.Helper()
	for _, pid := range append(children(c.Process.Pid), c.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // one may be gone already: its parent's death ends it
	}
	_ = c.Wait() // killed
}

// children lists a process's descendants.
func children(pid int) []int {
	var all []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		for _, s := range strings.Fields(string(b)) {
			var p int
			if _, err := fmt.Sscan(s, &p); err == nil {
				all = append(all, append(children(p), p)...)
			}
		}
	}
	return all
}

// startUntil starts a run and returns when a line of its output satisfies the condition.
func (m *machine) startUntil(args []string, when func(line string) bool) *exec.Cmd {
	m.t.Helper()
	return m.await(m.command(args...), when)
}

// await starts a command and returns when a line of its output satisfies the condition.
func (m *machine) await(c *exec.Cmd, when func(line string) bool) *exec.Cmd {
	m.t.Helper()
	out, err := c.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	var errs bytes.Buffer
	c.Stderr = &errs
	if err := c.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { killAll(m.t, c) })
	hit := make(chan bool, 1)
	var seen bytes.Buffer
	go func() {
		sc := bufio.NewScanner(io.TeeReader(out, &seen))
		for sc.Scan() {
			if when(sc.Text()) {
				hit <- true
				break
			}
		}
		hit <- false
	}()
	select {
	case ok := <-hit:
		if !ok {
			killAll(m.t, c)
			m.t.Fatalf("the run ended before the wanted line:\n%s%s\n%s", seen.String(), errs.String(), m.workerLog())
		}
	case <-time.After(5 * time.Minute):
		killAll(m.t, c)
		m.t.Fatalf("the wanted line never came; %s", m.workerLog())
	}
	return c
}

// sums finishes a run and returns the sums of its export.
func (m *machine) sums(id string) string {
	m.t.Helper()
	dir := filepath.Join(m.t.TempDir(), "export")
	m.must("export", id, "--out", dir)
	b, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

func TestWholeRun(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.must(m.runArgs("tiny")...)
	dir := filepath.Join(t.TempDir(), "export")
	m.must("export", "tiny", "--out", dir)
	for _, f := range []string{"spec.json", "dpo/adapter_config.json", "dpo/adapter_model.safetensors", "character/adapter_config.json", "character/adapter_model.safetensors",
		"data/dpo/train-00000-of-00001.parquet", "data/introspection/train-00000-of-00001.parquet", "captain_dpo.jsonl", "captain_introspection.jsonl",
		"metrics.jsonl", "timings.jsonl", "report.html", "SHA256SUMS"} {
		if st, err := os.Stat(filepath.Join(dir, f)); err != nil || st.Size() == 0 {
			t.Errorf("export lacks %s: %v", f, err)
		}
	}
	check := exec.Command("sha256sum", "--check", "--quiet", "SHA256SUMS")
	check.Dir = dir
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("SHA256SUMS: %v\n%s", err, out)
	}
	firstMetrics(t, filepath.Join(dir, "metrics.jsonl"))

	t.Run("status", func(t *testing.T) {
		var s struct {
			Runs []struct {
				ID, State string
				Stages    []struct {
					Name, State       string
					Done, Total, Kept int64
					Dropped           map[string]int64
				}
			}
		}
		if err := json.Unmarshal([]byte(m.must("status", "--json")), &s); err != nil {
			t.Fatal(err)
		}
		if len(s.Runs) != 1 || s.Runs[0].ID != "tiny" || s.Runs[0].State != "completed" || len(s.Runs[0].Stages) != 5 {
			t.Fatalf("status --json: %+v", s)
		}
		for _, st := range s.Runs[0].Stages {
			if st.State != "completed" || st.Kept == 0 || st.Dropped == nil {
				t.Errorf("stage %+v", st)
			}
		}
	})
	t.Run("finished", func(t *testing.T) {
		c := m.command(m.runArgs("tiny")...)
		out, err := c.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "is finished") {
			t.Errorf("a second run of a finished id: %v\n%s", err, out)
		}
	})
	t.Run("generate and score", func(t *testing.T) {
		in, out := filepath.Join(t.TempDir(), "in.jsonl"), filepath.Join(t.TempDir(), "out.jsonl")
		if err := os.WriteFile(in, []byte(`{"prompt":"Hello!"}`+"\n"+`{"messages":[{"role":"user","content":"Who are you?"}]}`+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		m.must("generate", "--id", "tiny", "--model", "character", "--in", in, "--out", out, "--temperature", "0", "--max-tokens", "8")
		b, err := os.ReadFile(out)
		if err != nil || bytes.Count(b, []byte("\n")) != 2 || !bytes.Contains(b, []byte(`"finish_reason"`)) {
			t.Fatalf("generate: %v\n%s", err, b)
		}
		if err := os.WriteFile(in, []byte(`{"prompt":"Hello!","response":"Arr"}`+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		score := func(model string) (s struct {
			LogProb float64
			Tokens  int
		}) {
			m.must("score", "--id", "tiny", "--model", model, "--in", in, "--out", out)
			b, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &s); err != nil {
				t.Fatal(err)
			}
			return s
		}
		base, dpo := score("base"), score("dpo")
		if base.Tokens != 4 || base.LogProb >= 0 || base.LogProb == dpo.LogProb { // three letters and the end token
			t.Errorf("score: base %+v, dpo %+v", base, dpo)
		}
	})
}

// TestOwnRows trains on rows of the user's own: those that another run exported. They are the same rows afterwards, and
// nobody was asked for others.
func TestOwnRows(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.must(m.runArgs("first")...)
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	m.must("export", "first", "--out", one)
	pairs, talks := filepath.Join(one, "captain_dpo.jsonl"), filepath.Join(one, "captain_introspection.jsonl")
	out := m.must(m.runArgs("second", "--pairs", pairs, "--introspection", talks)...)
	if strings.Contains(out, "teacher answers") || strings.Contains(out, "reflections 0") {
		t.Errorf("rows were generated beside those given:\n%s", out)
	}
	m.must("export", "second", "--out", two)
	for _, name := range []string{"captain_dpo.jsonl", "captain_introspection.jsonl"} {
		want, err := os.ReadFile(filepath.Join(one, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(two, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: other rows than those given, %v", name, err)
		}
	}
	bad := filepath.Join(t.TempDir(), "bad.jsonl")
	if err := os.WriteFile(bad, []byte(`{"prompt":"Hello!","chosen":"Arr"}`+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := m.command(m.runArgs("third", "--pairs", bad)...).CombinedOutput()
	if err == nil || !strings.Contains(string(b), "line 1") || !strings.Contains(string(b), "rejected") {
		t.Errorf("half a row: %v\n%s", err, b)
	}
}

// firstMetrics checks law 2 on the exported values: ln 2, no margin, accuracy one half at the first step.
func firstMetrics(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	var row map[string]any
	if err := json.Unmarshal(line, &row); err != nil {
		t.Fatal(err)
	}
	if row["stage"] != "dpo" || row["margin"] != 0.0 || row["accuracy"] != .5 || row["preference_loss"] != math.Ln2 {
		t.Errorf("first step: %s", line)
	}
}

// TestKilledRunsEqualUndisturbed kills everything with -9 inside each stage and compares every exported byte with an
// undisturbed run's, and with a second undisturbed one's.
func TestKilledRunsEqualUndisturbed(t *testing.T) {
	t.Parallel()
	quiet := newMachine(t)
	// The model's path is part of the spec, so all runs use one model folder.
	quiet.must(quiet.runArgs("tiny")...)
	want := quiet.sums("tiny")
	for _, stage := range []string{"", "preferences", "dpo", "introspection", "sft"} {
		name := stage
		if name == "" {
			name = "undisturbed"
		}
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.model = quiet.model
			if stage == "" {
				m.must(m.runArgs("tiny")...)
			} else {
				c := m.startUntil(m.runArgs("tiny"), func(line string) bool {
					f := strings.Fields(line)
					return len(f) > 3 && f[1] == stage && f[2] == "running" && !strings.HasPrefix(f[3], "0/")
				})
				killAll(t, c)
				m.must("run", "--id", "tiny")
			}
			if got := m.sums("tiny"); got != want {
				t.Errorf("the export differs from the undisturbed run's:\n--- want\n%s--- got\n%s", want, got)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	bad := filepath.Join(t.TempDir(), "none.yaml")
	if err := os.WriteFile(bad, []byte("name: none\ntraits: []\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.gguf")
	if err := os.WriteFile(cut, []byte("GGUF\x03\x00\x00\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty.txt")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	broken := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	folder := t.TempDir()
	for name, text := range map[string]string{"config.json": `{"model_type":"llama","num_hidden_layers":1e9}`, "tokenizer.json": "{}", "model.safetensors": "\xff\xff\xff\xff\xff\xff\xff\x7f{}"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"run", broken("deep.json", strings.Repeat("[", 1<<18))}, "nested too deep", 1},
		{[]string{"run", broken("alias.yaml", "name: x\ntraits: &a [*a]\n")}, "line 2", 1},
		{m.runArgs("x", "--pairs", broken("pairs.jsonl", `{"prompt":"p","chosen":"c"}`)), "line 1", 1},
		{m.runArgs("x", "--introspection", broken("talks.jsonl", "{}\n")), "line 1", 1},
		{m.runArgs("x", "--recorded", broken("answers.jsonl", "\x00")), "line 1", 1},
		{m.runArgs("x", "--prompts", "/dev/zero"), "more than", 1},
		{m.runArgs("x", "--set", "dpo.learning_rate=1e999"), "learning_rate", 1},
		{[]string{"run", "captain", "--model", folder}, "", 1},
		{[]string{"model", "inspect", folder}, "", 1},
		{[]string{"run", "nobody"}, "nobody", 1},
		{[]string{"run"}, "name a character", 2},
		{[]string{"run", bad}, "trait", 1},
		{m.runArgs("x", "--set", "dpo.epoch=3"), `unknown field`, 1},
		{m.runArgs("x", "--set", "dpo.epochs=-1"), "dpo.epochs is -1", 1},
		{m.runArgs("x", "--set", "dpo"), "key=value", 2},
		{[]string{"run", "captain", "--model", cut}, "gguf", 1},
		{[]string{"run", "captain", "--model", "/nowhere/model.gguf"}, "model", 1},
		{m.runArgs("x", "--prompts", empty), "no prompt", 1},
		{[]string{"status", "ghost"}, "character ", 1},
		{[]string{"pause", "ghost"}, "nothing is running", 1},
		{[]string{"export", "ghost"}, "--out", 2},
		{[]string{"export", "ghost", "--out", "x", "--format", "onnx"}, `--format "onnx" is not known; give safetensors, safetensors-f32, gguf-bf16`, 2},
		{[]string{"frobnicate"}, "frobnicate", 2},
	} {
		out, err := m.command(c.args...).CombinedOutput()
		code := 0
		if x, ok := err.(*exec.ExitError); ok {
			code = x.ExitCode()
		}
		if code != c.code || !strings.Contains(string(out), c.want) {
			t.Errorf("character %s: exit code %d, want %d and %q in:\n%s", strings.Join(c.args, " "), code, c.code, c.want, out)
		}
		if strings.Contains(string(out), "goroutine ") {
			t.Errorf("character %s panics:\n%s", strings.Join(c.args, " "), out)
		}
	}
}

// TestSecondUp checks that two stacks cannot share a data directory.
func TestSecondUp(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := m.startUntil([]string{"up"}, func(line string) bool { return strings.Contains(line, "Temporal UI") })
	out, err := m.command("up").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use") {
		t.Errorf("a second up: %v\n%s", err, out)
	}
	for i := 0; ; i++ { // the worker needs a moment to take its queues
		out, err := m.command("doctor").CombinedOutput()
		if err == nil && strings.Contains(string(out), "All well") {
			break
		}
		if i == 60 {
			t.Errorf("doctor: %v\n%s", err, out)
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	killAll(t, c)
}
