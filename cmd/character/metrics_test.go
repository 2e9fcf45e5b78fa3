package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/tensorboard"
	"github.com/opencharacter/opencharacter/testenv/scrape"
)

// metricsURL is where a process says that its metrics are.
var metricsURL = regexp.MustCompile(`http://127\.0\.0\.1:\d+`)

// upMeasured starts a stack whose worker shows its metrics, and returns it and their address.
func (m *machine) upMeasured(more ...string) (up *exec.Cmd, url string) {
	m.t.Helper()
	up = m.startUntil(append(append([]string{"up", "--metrics-address", "127.0.0.1:0"}, ports(m.t)...), more...), func(line string) bool {
		if strings.HasPrefix(line, "  Metrics ") { // the name of the test is in paths
			url = metricsURL.FindString(line)
		}
		return strings.Contains(line, "Ctrl-C stops it")
	})
	if url == "" {
		m.t.Fatal("it does not say where its metrics are")
	}
	return up, url
}

// ready waits until a process says that it can work.
func (m *machine) ready(address string) {
	m.t.Helper()
	for deadline := time.Now().Add(time.Minute); m.command("ready", "--address", address).Run() != nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("the worker is not ready: %s\n%s", m.must("ready", "--address", address), m.workerLog())
		}
	}
}

// rowsOf reads lines of JSON.
func rowsOf(t *testing.T, path string) []map[string]any {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]any
	for line := range bytes.Lines(b) {
		var row map[string]any
		if err := json.Unmarshal(line, &row); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		out = append(out, row)
	}
	return out
}

// TestMetrics runs a character and compares what the worker shows with what the run itself wrote down.
func TestMetrics(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	work := filepath.Join(t.TempDir(), "work.jsonl")
	m.env = append(m.env, "CHARACTER_WORK_LOG="+work)
	up, url := m.upMeasured()
	address := strings.TrimPrefix(url, "http://")
	m.ready(address)
	m.must(m.runArgs("tiny")...)
	seen, err := scrape.Get(t.Context(), url+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	dir, board := filepath.Join(t.TempDir(), "export"), filepath.Join(t.TempDir(), "board")
	m.must("export", "tiny", "--out", dir, "--tensorboard", board)
	want := func(v float64, name string, labels ...string) {
		t.Helper()
		if got, _ := seen.Sum(name, labels...); got != v {
			t.Errorf("%s%v is %v, want %v", name, labels, got, v)
		}
	}
	some := func(name string, labels ...string) float64 {
		t.Helper()
		v, ok := seen.Sum(name, labels...)
		if !ok || v <= 0 {
			t.Errorf("%s%v is %v", name, labels, v)
		}
		return v
	}

	// The training: steps, the last values, tokens.
	last, steps := map[string]map[string]any{}, map[string]float64{}
	metrics := rowsOf(t, filepath.Join(dir, "metrics.jsonl"))
	for _, row := range metrics {
		if row["step"] != nil {
			stage := row["stage"].(string)
			last[stage] = row
			steps[stage]++
		}
	}
	tokens := map[string]float64{}
	for _, row := range rowsOf(t, filepath.Join(dir, "timings.jsonl")) {
		tokens[row["stage"].(string)] += row["tokens"].(float64)
	}
	for _, stage := range []string{"dpo", "sft"} {
		want(steps[stage], "character_training_steps_total", "stage="+stage)
		want(steps[stage], "character_training_step_seconds", "stage="+stage)
		want(steps[stage], "character_training_step", "stage="+stage)
		want(steps[stage], "character_training_planned_steps", "stage="+stage)
		want(tokens[stage], "character_tokens_total", "work=trained", "kind="+stage)
		for name, metric := range map[string]string{"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "gradient_norm", "margin": "margin", "accuracy": "accuracy", "preference_loss": "preference_loss",
			"chosen_reward": "chosen_reward", "rejected_reward": "rejected_reward", "perplexity": "perplexity"} {
			if v, ok := last[stage][name].(float64); ok {
				want(v, "character_training_"+metric, "stage="+stage)
			}
		}
		some("character_segment_seconds", "stage="+stage)
	}
	segments := some("character_activity_seconds", "activity=TrainSegment", "outcome=ok")
	want(segments, "character_segment_seconds")

	// The rows: every answer that the engine drew is kept or dropped for a reason.
	drawn := map[string]float64{}
	for _, row := range rowsOf(t, work) {
		drawn[row["kind"].(string)]++
	}
	for _, kind := range []string{"teacher", "student", "reflection", "interaction", "evaluation"} {
		want(drawn[kind], "character_answers_total", "kind="+kind)
		some("character_tokens_total", "work=generated", "kind="+kind)
	}
	for _, role := range []string{"teacher", "student", "reflection"} {
		kept := some("character_rows_kept_total", "role="+role)
		dropped, _ := seen.Sum("character_rows_dropped_total", "role="+role)
		if kept+dropped != drawn[role] {
			t.Errorf("%s: %v kept and %v dropped of %v", role, kept, dropped, drawn[role])
		}
		some("character_chunk_seconds", "role="+role)
	}
	if n := some("character_rows_dropped_total"); n < 1 {
		t.Error("nothing was dropped: the test shows nothing")
	}
	want(drawn["reference"], "character_rows_kept_total", "role=reference")
	some("character_tokens_total", "work=scored", "kind=reference")
	some("character_tokens_total", "work=scored", "kind=evaluation")

	// Stages, queues, the model, S3, Temporal's SDK, the process.
	want(5, "character_stages_total", "reused=false")
	for _, q := range []string{"character", "character-engine"} {
		some("character_queue_wait_seconds", "queue="+q)
		want(0, "character_activities_running", "queue="+q)
		some("temporal_worker_task_slots_available", "task_queue="+q)
	}
	some("character_model_load_seconds", "architecture=llama")
	for _, op := range []string{"get", "put"} {
		some("character_store_requests_total", "operation="+op, "outcome=ok")
		some("character_store_request_seconds", "operation="+op)
	}
	for _, name := range []string{"temporal_request_total", "temporal_activity_schedule_to_start_latency_seconds", "process_resident_memory_bytes", "go_memstats_heap_inuse_bytes", "character_build_info"} {
		some(name)
	}
	for _, name := range []string{"temporal_worker_task_slots_used"} { // the dashboard has it
		if _, ok := seen[name]; !ok {
			t.Errorf("there is no %s", name)
		}
	}
	if v := seen["process_resident_memory_bytes"].Metric[0].Gauge.GetValue(); v < 20e6 || v > 4e9 {
		t.Errorf("resident memory %v", v)
	}
	// Labels say what kind of thing, never which.
	for _, l := range seen.Labels("") {
		if strings.Contains(l, "tiny") || strings.Contains(l, m.model) || len(l) > 120 {
			t.Errorf("label %s", l)
		}
	}
	if n := len(seen.Labels("character_")); n > 200 {
		t.Errorf("%d label values", n)
	}

	t.Run("a run that does the same work again", func(t *testing.T) {
		m.must(m.runArgs("again")...)
		if seen, err = scrape.Get(t.Context(), url+"/metrics"); err != nil {
			t.Fatal(err)
		}
		want(steps["dpo"], "character_training_steps_total", "stage=dpo") // nothing was trained
		want(5, "character_stages_total", "reused=true")
	})
	t.Run("who may read", func(t *testing.T) {
		for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/": 404} {
			if got := status(t, url+path, ""); got != want {
				t.Errorf("%s: %d, want %d", path, got, want)
			}
		}
		if got := status(t, url+"/metrics", "evil.example"); got != http.StatusMisdirectedRequest {
			t.Errorf("another host name: %d", got)
		}
	})
	t.Run("a worker that is killed", func(t *testing.T) { // its successor has the same address, and counts anew
		for _, pid := range children(up.Process.Pid) {
			if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); bytes.Contains(b, []byte("\x00worker\x00")) {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
			if seen, err = scrape.Get(t.Context(), url+"/metrics"); err == nil {
				if _, old := seen.Sum("character_stages_total"); !old {
					break
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("no other worker: %v\n%s", err, m.workerLog())
			}
		}
		m.ready(address)
	})
	t.Run("tensorboard", func(t *testing.T) { eventsAre(t, filepath.Join(board, "tiny"), metrics) })
	t.Run("tensorboard again", func(t *testing.T) {
		if out, err := m.command("export", "tiny", "--tensorboard", board).CombinedOutput(); err == nil || !strings.Contains(string(out), "is not empty") {
			t.Errorf("over what is there: %v\n%s", err, out)
		}
		other := filepath.Join(t.TempDir(), "other")
		m.must("export", "tiny", "--tensorboard", other)
		for _, f := range eventFiles(t, filepath.Join(board, "tiny")) {
			rel, err := filepath.Rel(board, f)
			if err != nil {
				t.Fatal(err)
			}
			a, aerr := os.ReadFile(f)
			b, berr := os.ReadFile(filepath.Join(other, rel))
			if aerr != nil || berr != nil || !bytes.Equal(a, b) {
				t.Errorf("%s: other bytes, %v, %v", rel, aerr, berr)
			}
		}
	})
}

func status(t *testing.T, url, host string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func eventFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "events.out.tfevents.*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("event files: %v, %v", files, err)
	}
	return files
}

// eventsAre compares event files with the values of metrics.jsonl.
func eventsAre(t *testing.T, dir string, metrics []map[string]any) {
	t.Helper()
	got := map[string]float64{}
	var times []time.Time
	for _, path := range eventFiles(t, dir) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		scalars, err := tensorboard.Read(f)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range scalars {
			got[fmt.Sprintf("%s %s %d", filepath.Base(filepath.Dir(path)), s.Tag, s.Step)] = s.Value
			times = append(times, s.At)
		}
	}
	values := 0
	for _, row := range metrics {
		step, tag := 0.0, "evaluation/"
		if row["step"] != nil {
			step, tag = row["step"].(float64), "train/"
		}
		for k, v := range row {
			x, ok := v.(float64)
			if !ok || k == "step" {
				continue
			}
			values++
			if g, ok := got[fmt.Sprintf("%s %s%s %d", row["stage"], tag, k, int64(step))]; !ok || float32(g) != float32(x) || math.IsNaN(g) {
				t.Errorf("%v %s of step %v is %v (%v), want %v", row["stage"], k, step, g, ok, x)
			}
		}
	}
	if values != len(got) || values < 100 {
		t.Errorf("%d values in metrics.jsonl, %d in the event files", values, len(got))
	}
	if earliest := slices.MinFunc(times, time.Time.Compare); time.Since(earliest) > time.Hour || time.Since(earliest) < 0 {
		t.Errorf("the first value is of %v", earliest)
	}
}

// TestObservedRefusals: wrong flags are one line, before anything is started.
func TestObservedRefusals(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for args, want := range map[string]string{
		"up --metrics-address 9464":                       "want HOST:PORT",
		"up --metrics-address 0.0.0.0:9464":               "not a loopback address",
		"up --no-worker --metrics-address 127.0.0.1:0":    "--no-worker starts none",
		"worker --metrics-address example.com:1":          "--metrics-remote",
		"worker --metrics-remote":                         "--metrics-remote needs --metrics-address",
		"worker --log-format xml":                         "want console or json",
		"worker --log-level loud":                         "want debug, info, warn or error",
		"serve --id x --log-format yaml":                  "want console or json",
		"ready --address nowhere":                         "want HOST:PORT",
		"export x --tensorboard board --format gguf-q8_0": "--format needs --out",
		"up --log-format json --log-level fatal":          "want debug, info, warn or error",
	} {
		out, err := m.command(strings.Fields(args)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) || strings.Count(strings.TrimSpace(string(out)), "\n") > 0 {
			t.Errorf("character %s: %v\n%s", args, err, out)
		}
	}
	if out, err := m.command("ready", "--address", "127.0.0.1:1").CombinedOutput(); err == nil || !strings.Contains(string(out), "--metrics-address of a worker") {
		t.Errorf("nobody there: %v\n%s", err, out)
	}
}

// TestJSONLogs: with --log-format json all that a stack and its worker say is JSON, one object a line.
func TestJSONLogs(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	up := m.session(append([]string{"up", "--log-format", "json", "--log-level", "debug"}, ports(t)...)...)
	up.said("it is up", func(line string) bool { return strings.Contains(line, `"msg":"character is up"`) })
	m.must(m.runArgs("tiny", "--set", "preferences.teacher.max_tokens=8")...)
	for deadline := time.Now().Add(time.Minute); !strings.Contains(m.workerLog(), "Serving"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			break // said below
		}
	}
	b, err := os.ReadFile(filepath.Join(m.data, "logs", "worker.log"))
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for where, text := range map[string]string{"up": up.output(), "worker": string(b)} {
		n := 0
		for line := range strings.Lines(text) {
			var x map[string]any
			if err := json.Unmarshal([]byte(line), &x); err != nil || x["time"] == nil || x["level"] == nil || x["msg"] == nil {
				t.Errorf("%s: %v: %s", where, err, line)
			}
			if _, err := time.Parse(time.RFC3339Nano, fmt.Sprint(x["time"])); err != nil {
				t.Errorf("%s: %v", where, err)
			}
			said[where+" "+fmt.Sprint(x["level"])] = true
			n++
		}
		if n == 0 {
			t.Errorf("%s says nothing", where)
		}
	}
	for _, want := range []string{"up info", "worker info", "worker debug"} { // the SDK's own words among them
		if !said[want] {
			t.Errorf("there is no %s: %v", want, said)
		}
	}
	// The last words of a command that fails are JSON too.
	out, err := m.command("up", "--log-format", "json").CombinedOutput()
	var x struct{ Level, Msg string }
	if err == nil || json.Unmarshal(out, &x) != nil || x.Level != "error" || x.Msg == "" {
		t.Errorf("a second stack on the same folder: %v\n%s", err, out)
	}
}
