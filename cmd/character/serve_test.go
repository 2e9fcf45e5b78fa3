package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/teacher"
	"github.com/opencharacter/opencharacter/testenv/scrape"
)

// serving starts `character serve` and returns it with its base URL.
func (m *machine) serving(args ...string) (*exec.Cmd, string) {
	m.t.Helper()
	var ready struct {
		BaseURL string `json:"base_url"`
		Models  []string
	}
	c := m.startUntil(append([]string{"serve", "--json"}, args...), func(line string) bool {
		return json.Unmarshal([]byte(line), &ready) == nil && ready.BaseURL != ""
	})
	if strings.Join(ready.Models, " ") != "base dpo character" {
		m.t.Errorf("models %v", ready.Models)
	}
	return c, ready.BaseURL
}

// TestServe: a run's models answer as `character generate` does, its own teacher client understands them, a second run
// learns from them, and a signal lets running answers end.
func TestServe(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.must(m.runArgs("tiny")...)
	metricsAt := freeAddress(t)
	c, url := m.serving("--id", "tiny", "--rows", "4", "--metrics-address", metricsAt)

	in, out := filepath.Join(t.TempDir(), "in.jsonl"), filepath.Join(t.TempDir(), "out.jsonl")
	if err := os.WriteFile(in, []byte(`{"prompt":"Who are you?"}`+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	answers, seed := map[string]bool{}, int64(5)
	for _, which := range []string{"base", "dpo", "character"} {
		m.must("generate", "--id", "tiny", "--model", which, "--in", in, "--out", out, "--temperature", "1", "--top-p", "1", "--repetition-penalty", "1", "--seed", "5", "--max-tokens", "24")
		var want struct{ Response string }
		b, err := os.ReadFile(out)
		if err != nil || json.Unmarshal(b, &want) != nil {
			t.Fatalf("%v %s", err, b)
		}
		client, err := teacher.New(teacher.Options{BaseURL: url, Model: which, APIKey: "any"})
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Check(t.Context()); err != nil {
			t.Error(err)
		}
		got, err := client.Complete(t.Context(), teacher.Request{Messages: []teacher.Message{{Role: "user", Content: "Who are you?"}}, Temperature: 1, Seed: &seed, MaxTokens: 24})
		if err != nil || got.Text != want.Response {
			t.Errorf("%s says %+v (%v), generate %q", which, got, err, want.Response)
		}
		answers[got.Text] = true
	}
	if len(answers) != 3 {
		t.Errorf("all models say the same: %v", answers)
	}

	t.Run("teacher", func(t *testing.T) {
		pupil := newMachine(t)
		out := pupil.must(pupil.runArgs("pupil", "--set", "teacher=openai", "--set", "teacher_options.base_url="+url, "--set", "teacher_options.model=character", "--set", "teacher_options.system=short")...)
		if !strings.Contains(out, "pupil") {
			t.Errorf("%s", out)
		}
		var s struct {
			Runs []struct {
				State  string
				Stages []struct {
					Name string
					Kept int64
				}
			}
		}
		if err := json.Unmarshal([]byte(pupil.must("status", "--json")), &s); err != nil {
			t.Fatal(err)
		}
		if len(s.Runs) != 1 || s.Runs[0].State != "completed" || s.Runs[0].Stages[0].Kept < 8 {
			t.Errorf("%+v", s)
		}
	})

	t.Run("metrics", func(t *testing.T) {
		seen, err := scrape.Get(t.Context(), "http://"+metricsAt+"/metrics")
		if err != nil {
			t.Fatal(err)
		}
		for _, which := range []string{"base", "dpo", "character"} {
			if v, _ := seen.Sum("character_serve_tokens_total", "model="+which, "direction=completion"); v < 1 || v > 1e5 {
				t.Errorf("%v tokens of %s", v, which)
			}
		}
		chats, _ := seen.Sum("character_serve_requests_total", "route=/v1/chat/completions", "code=200")
		times, _ := seen.Sum("character_serve_request_seconds", "route=/v1/chat/completions")
		checks, _ := seen.Sum("character_serve_requests_total", "route=/v1/models", "code=200")
		active, ok := seen.Sum("character_serve_answers", "state=active")
		if chats < 27 || times < chats || checks < 3 || active != 0 || !ok { // three here, and 24 pairs of the pupil
			t.Errorf("%v chats in %v times, %v lists of models, %v active answers (%v)", chats, times, checks, active, ok)
		}
		if out := m.must("ready", "--address", metricsAt); out != "ready\n" {
			t.Errorf("%q", out)
		}
	})

	t.Run("signal", func(t *testing.T) {
		// An answer that is being read when the signal comes goes on to its end.
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/chat/completions", strings.NewReader(`{"model":"base","messages":[{"role":"user","content":"Hello!"}],"stream":true,"seed":3,"n":4}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.HasSuffix(b, []byte("data: [DONE]\n\n")) {
			t.Errorf("%v, the stream ends with %q", err, b[max(0, len(b)-200):])
		}
		if err := wait(c, time.Minute); err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	})
}

// wait waits for a process that should end.
func wait(c *exec.Cmd, most time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(most):
		return fmt.Errorf("still there after %s: %w", most, context.DeadlineExceeded)
	}
}

func TestServeRefusals(t *testing.T) {
	m := newMachine(t)
	m.env = []string{"SHORT_KEY=abc", "SPACED_KEY=0123456789 abcdefgh", "GOOD_KEY=0123456789abcdefgh"}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{nil, "--id is missing", 2},
		{[]string{"--id", "x", "--addr", "8080"}, "HOST:PORT", 2},
		{[]string{"--id", "x", "--addr", "0.0.0.0:0"}, "--api-key-env", 2},
		{[]string{"--id", "x", "--addr", ":0"}, "not a loopback address", 2},
		{[]string{"--id", "x", "--addr", "0.0.0.0:0", "--api-key-env", "NOT_SET"}, "no such environment variable", 2},
		{[]string{"--id", "x", "--api-key-env", "SHORT_KEY"}, "at least 16", 2},
		{[]string{"--id", "x", "--api-key-env", "SPACED_KEY"}, "no header can carry", 2},
		{[]string{"--id", "x", "--addr", taken.Addr().String()}, "already in use", 1},
		{[]string{"--id", "x", "--rows", "0"}, "--rows", 2},
		{[]string{"--id", "x", "--queue", "-1"}, "--queue", 2},
		{[]string{"--id", "x", "--context", "1"}, "--context", 2},
		{[]string{"--id", "x", "--cache-mb", "0"}, "--cache-mb", 2},
		{[]string{"--id", "x", "--tls-cert", "x"}, "belong together", 2},
		{[]string{"--id", "x", "--api-key-env", "GOOD_KEY"}, "no runs in", 1},
		{[]string{"--id", "x", "more"}, "more", 2},
	} {
		out, err := m.command(append([]string{"serve"}, c.args...)...).CombinedOutput()
		code := 0
		if x, ok := err.(*exec.ExitError); ok {
			code = x.ExitCode()
		}
		if code != c.code || !strings.Contains(string(out), c.want) {
			t.Errorf("serve %v: exit code %d, want %d with %q in %s", c.args, code, c.code, c.want, out)
		}
		if strings.Count(strings.TrimSpace(string(out)), "\n") > 0 || bytes.Contains(out, []byte("0123456789")) {
			t.Errorf("serve %v: %s", c.args, out)
		}
	}
}
