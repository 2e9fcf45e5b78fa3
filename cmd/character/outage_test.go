package main_test

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/activities"
)

// TestTemporalAway: Temporal is stopped, or killed, while a training goes on, for longer than a worker may be silent. The
// attempt at the training is unbroken: it is the first one, no step is made twice, and the bytes are the same. S3 has a
// data directory of its own and stays. CHARACTER_AWAY=10m is the goal; CHARACTER_AWAY_EPOCHS=N makes the training
// longer, so that it lasts as long, and CHARACTER_AWAY_HOW=stopped or killed does only that.
func TestTemporalAway(t *testing.T) {
	t.Parallel()
	away := 26 * time.Second
	if s := os.Getenv("CHARACTER_AWAY"); s != "" {
		var err error
		if away, err = time.ParseDuration(s); err != nil {
			t.Fatalf("CHARACTER_AWAY: %v", err)
		}
	}
	epochs := "16" // of 8 steps
	if s := os.Getenv("CHARACTER_AWAY_EPOCHS"); s != "" {
		epochs = s
	}
	quiet := newMachine(t)
	long := []string{"--set", "dpo.epochs=" + epochs, "--set", "dpo.segment_steps=0", "--set", "dpo.segment_seconds=3600"}
	began := time.Now()
	quiet.must(quiet.runArgs("tiny", long...)...)
	want := quiet.sums("tiny")
	t.Logf("undisturbed: %v", time.Since(began).Round(time.Second))
	for _, how := range []string{"stopped", "killed"} {
		if only := os.Getenv("CHARACTER_AWAY_HOW"); only != "" && only != how {
			continue
		}
		t.Run(how, func(t *testing.T) {
			objects, temporal := newMachine(t), newMachine(t)
			objects.servers()
			up := temporal.startUntil([]string{"up", "--no-worker"}, isUp)
			flags := temporal.elsewhere(objects)
			temporal.model = quiet.model
			log := filepath.Join(t.TempDir(), "work.jsonl")
			temporal.env = append(temporal.env, "CHARACTER_WORK_LOG="+log)
			temporal.worker(append(flags, "--allow-path", quiet.model)...)
			temporal.must(append(temporal.runArgs("tiny", append(long, "--detach")...), flags...)...)
			awaitWork(t, log, 3)

			left := time.Now()
			if how == "stopped" {
				if err := syscall.Kill(up.Process.Pid, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				time.Sleep(away)
				if err := syscall.Kill(up.Process.Pid, syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
			} else {
				_, port, err := net.SplitHostPort(flags[1])
				if err != nil {
					t.Fatal(err)
				}
				killAll(t, up)
				time.Sleep(away)
				temporal.startUntil([]string{"up", "--no-worker", "--temporal-port", port}, isUp)
			}
			back := time.Now()
			temporal.must(append([]string{"run", "--id", "tiny"}, flags...)...)

			meanwhile, next := 0, time.Time{}
			seen := map[string]bool{}
			for _, w := range readWork(t, log) {
				if w.At.After(left) && w.At.Before(back) {
					meanwhile++
				}
				if next.IsZero() && w.At.After(back) {
					next = w.At
				}
				if w.Attempt != 1 {
					t.Errorf("%s %s of %s was done by attempt %d", w.Kind, w.Unit, w.Workflow, w.Attempt)
				}
				if k := w.Workflow + w.Kind + w.Unit; seen[k] {
					t.Errorf("%s %s of %s was done twice", w.Kind, w.Unit, w.Workflow)
				} else {
					seen[k] = true
				}
			}
			t.Logf("away for %v: %d units of work meanwhile, the next %v after it", back.Sub(left).Round(time.Second), meanwhile, next.Sub(back).Round(time.Millisecond))
			if meanwhile == 0 {
				t.Error("no work was done while Temporal was away")
			}
			var h struct {
				Events []struct {
					Started *struct {
						Attempt int `json:"attempt"`
					} `json:"activityTaskStartedEventAttributes"`
				} `json:"events"`
			}
			if err := json.Unmarshal([]byte(temporal.must(append([]string{"_history", "tiny/dpo"}, flags...)...)), &h); err != nil {
				t.Fatal(err)
			}
			started := 0
			for _, e := range h.Events {
				if e.Started == nil {
					continue
				}
				if started++; e.Started.Attempt != 1 {
					t.Errorf("an activity of the training ended with attempt %d", e.Started.Attempt)
				}
			}
			if started == 0 {
				t.Error("the history of the training has no activity")
			}
			dir := filepath.Join(t.TempDir(), "export")
			temporal.must(append([]string{"export", "tiny", "--out", dir}, flags...)...)
			if got, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS")); err != nil || string(got) != want {
				t.Errorf("the export differs, %v:\n--- want\n%s--- got\n%s", err, want, got)
			}
		})
	}
}

func isUp(line string) bool { return strings.Contains(line, "Temporal UI") }

// elsewhere are flags with which a command works on the Temporal server of one data directory and the S3 server of
// another; the keys come into the environment.
func (m *machine) elsewhere(objects *machine) []string {
	m.t.Helper()
	read := func(data, name string, v any) {
		b, err := os.ReadFile(filepath.Join(data, name))
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
	var here, there struct{ Temporal, S3, Bucket string }
	var keys struct {
		AccessKey string `json:"access_key"`
		SecretKey string `json:"secret_key"`
	}
	read(m.data, "stack.json", &here)
	read(objects.data, "stack.json", &there)
	read(objects.data, "credentials.json", &keys)
	m.env = append(m.env, "AWS_ACCESS_KEY_ID="+keys.AccessKey, "AWS_SECRET_ACCESS_KEY="+keys.SecretKey, "AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true")
	return []string{"--temporal", here.Temporal, "--s3-endpoint", there.S3, "--s3-bucket", there.Bucket}
}

// readWork reads the log that workers write of what they did.
func readWork(t *testing.T, path string) (out []activities.Work) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b[:bytes.LastIndexByte(b, '\n')+1]) {
		var w activities.Work
		if err := json.Unmarshal(line, &w); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, w)
	}
	return out
}

// awaitWork waits until the log has n steps of the DPO training.
func awaitWork(t *testing.T, path string, n int) {
	t.Helper()
	steps := 0
	for range 6000 {
		steps = 0
		for _, w := range readWork(t, path) {
			if strings.HasSuffix(w.Workflow, "/dpo") && w.Kind == "dpo" {
				steps++
			}
		}
		if steps >= n {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("the training has made %d steps after five minutes, want %d", steps, n)
}

// TestSilentWorker: a worker is stopped in the middle of its work and stays so. Another one does it.
func TestSilentWorker(t *testing.T) {
	t.Parallel()
	d := killedRun(t)
	m := newMachine(t)
	m.model = d.model
	m.servers()
	log := filepath.Join(t.TempDir(), "work.jsonl")
	m.env = append(m.env, "CHARACTER_WORK_LOG="+log)
	victim := m.worker()
	out, ended := m.background(m.runArgs("tiny")...)
	awaitWork(t, log, 1)
	if err := syscall.Kill(victim.Process.Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	m.worker()
	m.wait(out, ended)
	if got := m.sums("tiny"); got != d.want {
		t.Errorf("the export differs:\n--- want\n%s--- got\n%s", d.want, got)
	}
}
