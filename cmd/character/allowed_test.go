package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	fake "github.com/opencharacter/opencharacter/testenv/teacher"
)

// TestSpecsReachOnlyWhatIsAllowed starts runs as the UI does, by somebody who is not the worker's operator.
func TestSpecsReachOnlyWhatIsAllowed(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	server := fake.Start(t, fake.Options{Key: "planted-key-of-the-worker"})
	link := filepath.Join(filepath.Dir(m.model), "link")
	if err := os.Symlink(filepath.Dir(m.model), link); err != nil {
		t.Fatal(err)
	}
	shelf := filepath.Join(t.TempDir(), "shelf")
	if err := os.MkdirAll(filepath.Join(shelf, "tiny"), 0o700); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(m.model)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(m.model, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(shelf, "tiny", e.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(m.model, filepath.Join(shelf, "away")); err != nil {
		t.Fatal(err)
	}
	up := m.up([]string{"SECRET_OF_THE_WORKER=" + server.Key}, "--allow-path", shelf)
	c, err := client.Dial(client.Options{HostPort: m.info().Temporal})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := func(id string, spec map[string]any) client.WorkflowRun {
		t.Helper()
		r, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: "character"}, "CharacterTraining", spec)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	openai := map[string]any{"base_url": server.URL, "model": "test-model", "key_env": "SECRET_OF_THE_WORKER"}
	for i, c := range []struct {
		id   string
		spec map[string]any
		want string
	}{
		{"", map[string]any{"model": m.model}, "--allow-path"},
		{"", map[string]any{"model": "/etc/passwd"}, "--allow-path"},
		{"", map[string]any{"model": "../../etc/passwd"}, "may not be in it"},
		{"", map[string]any{"model": "away"}, "leads out of the allowed folders"},
		{"", map[string]any{"model": "file:///etc/passwd"}, "addresses are not read"},
		{"", map[string]any{"model": `C:\x`}, "forward slashes"},
		{"", map[string]any{"constitution": "ref:runs/captain/HEAD.json"}, "ref:uploads/"},
		{"", map[string]any{"constitution": "/etc/passwd"}, "is not built in"},
		{"", map[string]any{"preferences": map[string]any{"prompts": "ref:uploads/../codec/k"}}, "ref:uploads/"},
		{"", map[string]any{"model": filepath.Join(shelf, "tiny"), "teacher": "openai", "teacher_options": openai}, "--allow-url"},
		{"", map[string]any{"model": filepath.Join(shelf, "tiny"), "teacher": "openai", "teacher_options": map[string]any{"base_url": "https://api.deepseek.com", "model": "m", "key_env": "SECRET_OF_THE_WORKER"}}, "--allow-url"},
		{"", map[string]any{"teacher": "openai", "teacher_options": map[string]any{"base_url": "file:///etc/passwd", "model": "m"}}, "base_url"},
		{"captain/HEAD.json", map[string]any{}, "slash"},
	} {
		id := c.id
		if id == "" {
			id = fmt.Sprintf("bad-%d", i)
		}
		err := start(id, c.spec).Get(t.Context(), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.spec, err, c.want)
		}
	}
	if n := len(server.Requests()); n > 0 {
		t.Errorf("the endpoint that is not allowed was asked %d times", n)
	}
	// What is allowed goes, also by a name relative to the allowed folder. A prompt of one stage is enough to see it.
	spec := map[string]any{"model": "tiny", "preferences": map[string]any{"pairs": 1, "min_pairs": 1, "max_candidates": 4, "chunk": 4}, "evaluation": map[string]any{"held_out": 0}}
	r := start("good", spec)
	deadline := time.Now().Add(2 * time.Minute)
	for {
		var p struct {
			Error  string
			Stages []struct{ State string }
		}
		if v, err := c.QueryWorkflow(t.Context(), "good", "", "progress"); err == nil && v.Get(&p) == nil && len(p.Stages) > 0 && p.Stages[0].State != "pending" {
			if p.Error != "" {
				t.Errorf("the allowed model: %s", p.Error)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the allowed run does not begin\n%s", m.workerLog())
		}
		time.Sleep(200 * time.Millisecond)
	}
	if err := c.CancelWorkflow(t.Context(), r.GetID(), ""); err != nil {
		t.Error(err)
	}
	killAll(t, up)
}
