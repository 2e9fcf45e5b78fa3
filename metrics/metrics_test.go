package metrics_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/metrics"
	"github.com/opencharacter/opencharacter/testenv/scrape"
)

func get(t *testing.T, h http.Handler, host, path string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Host = host
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func shown(t *testing.T, s *metrics.Set) scrape.Metrics {
	t.Helper()
	code, text := get(t, s.Handler(&metrics.Health{}, true), "127.0.0.1", "/metrics")
	if code != http.StatusOK {
		t.Fatalf("status %d: %s", code, text)
	}
	m, err := scrape.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestDefinitions(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`^character_[a-z_]+[a-z]$`)
	for i, d := range metrics.Definitions() {
		if !name.MatchString(d.Name) || !strings.HasSuffix(d.Help, ".") || (d.Kind == "counter") != strings.HasSuffix(d.Name, "_total") || (d.Kind == "histogram") != strings.HasSuffix(d.Name, "_seconds") {
			t.Errorf("%+v", d)
		}
		for _, l := range d.Labels {
			if l == "run" || l == "row" || l == "id" || l == "workflow" {
				t.Errorf("%s: label %s has no bound", d.Name, l)
			}
		}
		if i > 0 && d.Name <= metrics.Definitions()[i-1].Name {
			t.Errorf("%s is out of order", d.Name)
		}
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	s := metrics.New(metrics.Build{Program: "test", Version: "1", Kernels: "go"})
	s.Drawn("teacher", 7)
	s.Drawn("teacher", 5)
	s.Scored("reference", 100)
	s.Trained("dpo", 3, 10, 50, 2*time.Second, map[string]float64{"loss": .5, "accuracy": .75, "grad_norm": 2, "nobody knows": 9})
	s.Trained("dpo", 4, 10, 50, 2*time.Second, map[string]float64{"loss": .25})
	s.Loaded("llama", "gguf", time.Second, nil)
	s.Loaded("", "", time.Second, errors.New("no"))
	s.Chunk("teacher", 5, map[string]int64{"too short": 2}, 3)
	s.Segment("dpo", 60)
	s.Stage("dpo", false)
	s.Asked("throttled", time.Second, 0, 0)
	s.Asked("ok", time.Second, 11, -1)
	s.Stored("ask for the time", "ok", time.Millisecond)
	s.Served("base", 3, 4)
	end := s.Activity("q", "Generate", time.Second)
	m := shown(t, s)
	want := func(v float64, name string, labels ...string) {
		t.Helper()
		if got, ok := m.Sum(name, labels...); !ok || got != v {
			t.Errorf("%s%v is %v (%v), want %v", name, labels, got, ok, v)
		}
	}
	want(12, "character_tokens_total", "work=generated", "kind=teacher")
	want(2, "character_answers_total", "kind=teacher")
	want(100, "character_tokens_total", "work=scored", "kind=reference")
	want(100, "character_tokens_total", "work=trained", "kind=dpo")
	want(2, "character_training_steps_total", "stage=dpo")
	want(4, "character_training_step", "stage=dpo")
	want(10, "character_training_planned_steps", "stage=dpo")
	want(.25, "character_training_loss", "stage=dpo")
	want(.75, "character_training_accuracy", "stage=dpo")
	want(2, "character_training_gradient_norm", "stage=dpo")
	want(2, "character_training_step_seconds", "stage=dpo")
	want(1, "character_model_load_seconds", "architecture=llama", "format=gguf")
	want(1, "character_model_load_failures_total")
	want(5, "character_rows_kept_total", "role=teacher")
	want(2, "character_rows_dropped_total", "role=teacher", "reason=too short")
	want(1, "character_chunk_seconds", "role=teacher")
	want(1, "character_segment_seconds", "stage=dpo")
	want(1, "character_stages_total", "stage=dpo", "reused=false")
	want(1, "character_teacher_requests_total", "outcome=throttled")
	want(11, "character_teacher_tokens_total", "direction=prompt")
	want(0, "character_teacher_tokens_total", "direction=completion")
	want(1, "character_store_requests_total", "operation=ask_for_the_time", "outcome=ok")
	want(4, "character_serve_tokens_total", "model=base", "direction=completion")
	want(1, "character_activities_running", "queue=q")
	want(1, "character_queue_wait_seconds", "queue=q")
	want(1, "character_build_info", "program=test", "kernels=go")
	for _, name := range []string{"go_goroutines", "go_memstats_heap_inuse_bytes", "process_start_time_seconds", "process_resident_memory_bytes"} {
		if v, ok := m.Sum(name); !ok || v <= 0 {
			t.Errorf("%s is %v", name, v)
		}
	}
	end("ok", time.Second)
	m = shown(t, s)
	want(0, "character_activities_running", "queue=q")
	want(1, "character_activity_seconds", "activity=Generate", "outcome=ok")
}

// TestNobodyCounts: every method of a nil Set does nothing.
func TestNobodyCounts(t *testing.T) {
	t.Parallel()
	var s *metrics.Set
	s.Drawn("x", 1)
	s.Scored("x", 1)
	s.Trained("x", 1, 1, 1, 1, map[string]float64{"loss": 1})
	s.Loaded("x", "x", 1, nil)
	s.Chunk("x", 1, map[string]int64{"r": 1}, 1)
	s.Segment("x", 1)
	s.Stage("x", true)
	s.Activity("x", "x", 1)("ok", 1)
	s.Asked("ok", 1, 1, 1)
	s.Stored("x", "ok", 1)
	s.Served("x", 1, 1)
	if h, err := s.Temporal(); h != nil || err != nil {
		t.Errorf("a handler of nobody: %v, %v", h, err)
	}
	next := http.NotFoundHandler()
	if code, _ := get(t, s.API(next, nil), "h", "/"); code != http.StatusNotFound {
		t.Errorf("status %d", code)
	}
}

// TestReasonsAreBounded: a filter of somebody's own may give any reason.
func TestReasonsAreBounded(t *testing.T) {
	t.Parallel()
	s := metrics.Define()
	for i := range 500 {
		s.Chunk("teacher", 0, map[string]int64{fmt.Sprintf("reason %d of %s\xff", i, strings.Repeat("ä", 100)): 1}, 1)
	}
	s.Chunk("teacher", 0, map[string]int64{"reason 3 of " + strings.Repeat("ä", 100): 1}, 1) // known
	m := shown(t, s)
	f := m["character_rows_dropped_total"]
	if n := len(f.Metric); n > 51 {
		t.Errorf("%d series", n)
	}
	if v, _ := m.Sum("character_rows_dropped_total"); v != 501 {
		t.Errorf("%v rows in all", v)
	}
	if v, _ := m.Sum("character_rows_dropped_total", "reason=other"); v != 450 {
		t.Errorf("%v others", v)
	}
}

func TestTemporal(t *testing.T) {
	t.Parallel()
	s := metrics.Define()
	h, err := s.Temporal()
	if err != nil {
		t.Fatal(err)
	}
	h = h.WithTags(map[string]string{"task_queue": "character"})
	h.Counter("temporal_request").Inc(3)
	h.Gauge("temporal_worker_task_slots_used").Update(2)
	h.Timer("temporal_activity_schedule_to_start_latency").Record(90 * time.Second)
	m := shown(t, s)
	for name, want := range map[string]float64{"temporal_request_total": 3, "temporal_worker_task_slots_used": 2, "temporal_activity_schedule_to_start_latency_seconds": 1} {
		if v, ok := m.Sum(name, "task_queue=character"); !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
		}
	}
	for _, b := range m["temporal_activity_schedule_to_start_latency_seconds"].Metric[0].Histogram.Bucket {
		if want := uint64(0); b.GetUpperBound() < 90 && b.GetCumulativeCount() != want {
			t.Errorf("90 s are in the bucket of %v s", b.GetUpperBound())
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	var h metrics.Health
	s := metrics.Define()
	local := s.Handler(&h, true)
	ready := func(wantCode int, want string) {
		t.Helper()
		if code, text := get(t, local, "localhost:9464", "/readyz"); code != wantCode || !strings.Contains(text, want) {
			t.Errorf("%d %q, want %d %q", code, text, wantCode, want)
		}
	}
	ready(503, "starting")
	if code, _ := get(t, local, "[::1]:9464", "/healthz"); code != 200 {
		t.Errorf("not alive: %d", code)
	}
	var asked atomic.Int32
	began := time.Now()
	h.Ready(func(context.Context) error { asked.Add(1); return nil })
	ready(200, "ready")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { ready(200, "ready") })
	}
	wg.Wait()
	if n, most := asked.Load(), 1+int32(time.Since(began)/(2*time.Second)); n > most { // one in two seconds, however many ask
		t.Errorf("asked %d times, want %d at most", n, most)
	}
	h.Ready(func(context.Context) error { return errors.New("the bucket\nis gone") })
	ready(503, "not ready: the bucket is gone")
	h.Ready(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	ready(503, "deadline")
	h.Stopping()
	ready(503, "stopping")
	for _, path := range []string{"/", "/metrics/x", "/debug/pprof/"} {
		if code, _ := get(t, local, "localhost", path); code != 404 {
			t.Errorf("%s: %d", path, code)
		}
	}
	if code, _ := get(t, local, "evil.example", "/metrics"); code != http.StatusMisdirectedRequest {
		t.Errorf("another host name: %d", code)
	}
	if code, _ := get(t, s.Handler(&h, false), "worker:9464", "/metrics"); code != 200 {
		t.Errorf("on a network: %d", code)
	}
	w := httptest.NewRecorder()
	local.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "http://localhost/metrics", bytes.NewReader(nil)))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{"9464": "want HOST:PORT", "nowhere": "want HOST:PORT", ":9464": "not a loopback address", "0.0.0.0:9464": "--metrics-remote", "[::]:1": "--metrics-remote", "example.com:1": "--metrics-remote"} {
		if l, err := metrics.Listen(address, false, metrics.Define(), &metrics.Health{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", address, l, err)
		}
	}
	l, err := metrics.Listen("127.0.0.1:0", false, metrics.Define(), &metrics.Health{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := metrics.Listen(strings.TrimPrefix(l.URL, "http://"), false, metrics.Define(), &metrics.Health{}); err == nil || !strings.Contains(err.Error(), "choose another") {
		t.Errorf("a port in use: %v", err)
	}
	resp, err := http.Get(l.URL + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if _ = resp.Body.Close(); err != nil || string(b) != "ok\n" {
		t.Errorf("%q, %v", b, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	var none *metrics.Listener
	if err := none.Close(); err != nil {
		t.Error(err)
	}
}

// TestAPI: answers pass through with their streaming, and are counted by route and status.
func TestAPI(t *testing.T) {
	t.Parallel()
	s := metrics.Define()
	h := s.API(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/secret") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		c := http.NewResponseController(w)
		if err := errors.Join(c.SetReadDeadline(time.Now().Add(time.Minute)), c.SetWriteDeadline(time.Now().Add(time.Minute))); err != nil {
			t.Error(err)
		}
		_, _ = w.Write([]byte("one"))
		if err := c.Flush(); err != nil {
			t.Error(err)
		}
	}), func() (int, int) { return 2, 3 })
	server := httptest.NewServer(h)
	defer server.Close()
	for _, path := range []string{"/v1/chat/completions", "/v1/chat/completions", "/secret/1", "/secret/2"} {
		resp, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	server.Close() // every handler has ended
	m := shown(t, s)
	for labels, want := range map[string]float64{"route=/v1/chat/completions code=200": 2, "route=other code=404": 2} {
		if v, _ := m.Sum("character_serve_requests_total", strings.Fields(labels)...); v != want {
			t.Errorf("%s: %v, want %v", labels, v, want)
		}
	}
	if v, _ := m.Sum("character_serve_answers", "state=waiting"); v != 3 {
		t.Errorf("%v answers wait", v)
	}
}
