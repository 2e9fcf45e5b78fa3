//go:build !noserver

// Package examples_test builds the three examples and runs them on a tiny model against the servers of `character up`.
package examples_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/examples/internal/local"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

// patience is how long anything may take on a busy machine.
const patience = 5 * time.Minute

// built is one program, compiled once.
func built(t *testing.T, dir, pkg string) string {
	t.Helper()
	out := filepath.Join(dir, filepath.Base(pkg))
	if b, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", out, pkg).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, b)
	}
	return out
}

// output is what a program has said so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start starts a program, which ends with the test, and waits until it has said a word.
func start(t *testing.T, word, exe string, args ...string) (stop func() string) {
	t.Helper()
	var said output
	c := exec.Command(exe, args...)
	c.Stdout, c.Stderr = &said, &said
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	var once sync.Once
	stop = func() string {
		once.Do(func() {
			_ = c.Process.Signal(syscall.SIGINT) // one that has ended is told below
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("%s ends with %v:\n%s", filepath.Base(exe), err, said.String())
				}
			case <-time.After(patience):
				_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // it hangs
				t.Errorf("%s does not end:\n%s", filepath.Base(exe), said.String())
			}
		})
		return said.String()
	}
	t.Cleanup(func() { stop() })
	for deadline := time.Now().Add(patience); !strings.Contains(said.String(), word); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not say %q:\n%s", filepath.Base(exe), word, said.String())
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended (%v) before it said %q:\n%s", filepath.Base(exe), err, word, said.String())
		default:
		}
	}
	return stop
}

func TestExamples(t *testing.T) {
	dir := t.TempDir()
	character := os.Getenv("CHARACTER_TEST_BINARY")
	if character == "" {
		character = built(t, dir, "github.com/opencharacter/opencharacter/cmd/character")
	}
	data, models := filepath.Join(dir, "data"), filepath.Join(dir, "models")
	model := filepath.Join(models, "tiny")
	if err := tinymodel.Write(model, 1); err != nil {
		t.Fatal(err)
	}
	start(t, "character is up", character, "--data", data, "up", "--no-worker")
	stack, err := local.Find(data)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := store.Open(t.Context(), stack.Store())
	if err != nil {
		t.Fatal(err)
	}
	// train runs `character run` and gives the run's record.
	train := func(t *testing.T, id string, set ...string) activities.Record {
		t.Helper()
		args := append([]string{"--data", data}, tinymodel.RunArgs(model, id)...)
		for _, s := range set {
			args = append(args, "--set", s)
		}
		if b, err := exec.Command(character, args...).CombinedOutput(); err != nil {
			t.Fatalf("character %s: %v\n%s", strings.Join(args, " "), err, b)
		}
		r, _, err := activities.ReadRecord(t.Context(), objects, id)
		if err != nil {
			t.Fatal(err)
		}
		if r.State != "completed" {
			t.Errorf("run %s is %s: %s", id, r.State, r.Error)
		}
		return r
	}

	t.Run("worker", func(t *testing.T) {
		start(t, "serving", built(t, dir, "./worker"), "-data", data, "-models", models)
		if r := train(t, "by-worker"); len(r.Stages) != 5 {
			t.Errorf("%d stages", len(r.Stages))
		}
	})
	t.Run("own", func(t *testing.T) {
		start(t, "serving", built(t, dir, "./own"), "-data", data, "-models", models)
		r := train(t, "by-own", "teacher=own:phrasebook", `preferences.filter.own=["salty"]`, `evaluation.own=["sea-share","style"]`)
		st, _ := r.Stage(activities.KindPreferences)
		if st.Kept == 0 || st.Dropped["chosen: salty/no_sea"] == 0 {
			t.Errorf("%d pairs, dropped: %v", st.Kept, st.Dropped)
		}
		st, _ = r.Stage(activities.KindEvaluation)
		for _, model := range activities.WhichModels() {
			for _, name := range []string{"sea-share.share.", "style.chars.", "style.finished."} {
				if v, ok := st.Values[name+model]; !ok || v < 0 {
					t.Errorf("%s%s is %v, %v", name, model, v, ok)
				}
			}
		}
		args := append([]string{"--data", data}, tinymodel.RunArgs(model, "unknown")...)
		b, err := exec.Command(character, append(args, "--set", "teacher=own:parrot")...).CombinedOutput()
		if err == nil || !strings.Contains(string(b), "this worker has phrasebook") {
			t.Errorf("an unknown teacher: %v\n%s", err, b)
		}
	})
	t.Run("pipeline", func(t *testing.T) {
		raw := []byte("{}")
		for _, s := range append(tinymodel.Settings(), "constitution=captain", "model="+model, "seed=2") {
			k, v, _ := strings.Cut(s, "=")
			if raw, err = spec.Set(raw, k, v); err != nil {
				t.Fatal(err)
			}
		}
		exe := built(t, dir, "./pipeline")
		b, err := exec.Command(exe, "-data", data, "-models", models, "-id", "by-pipeline", "-spec", string(raw), "-least", "-100").CombinedOutput()
		if err != nil || !strings.Contains(string(b), "run by-pipeline-training: good true") || !strings.Contains(string(b), "(measured true), 24 pairs") {
			t.Errorf("%v\n%s", err, b)
		}
		// A spec that cannot be is the child's error, and this program's.
		bad, err := json.Marshal(map[string]any{"constitution": "captain", "teacher": "nobody"})
		if err != nil {
			t.Fatal(err)
		}
		b, err = exec.Command(exe, "-data", data, "-models", models, "-id", "bad", "-spec", string(bad)).CombinedOutput()
		if err == nil || !strings.Contains(string(b), fmt.Sprintf("teacher is %q", "nobody")) {
			t.Errorf("%v\n%s", err, b)
		}
	})
}
