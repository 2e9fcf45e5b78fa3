package serve_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/opencharacter/opencharacter/serve"
)

// endless is a request whose answer goes on up to the context unless an end token is drawn; the seed is one whose answer is long.
func (s *server) endless() object {
	s.t.Helper()
	for seed := uint64(1); seed < 500; seed++ {
		if r := s.expect("base", "Hello!", 0, seed, 300); len(r.Tokens) == 300 {
			return object{"model": "base", "messages": user("Hello!"), "seed": seed}
		}
	}
	s.t.Fatal("no seed gives a long answer")
	return nil
}

// TestQueue: what is too much is refused with 429 and a time, and room comes back.
func TestQueue(t *testing.T) {
	s := start(t, func(o *serve.Options) { o.Rows, o.Queue = 1, 2 })
	release := s.Hold()
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			r := s.request("/v1/chat/completions", object{"model": "base", "messages": user("I wait"), "max_tokens": 2})
			if resp, err := http.DefaultClient.Do(r.WithContext(ctx)); err == nil {
				_ = resp.Body.Close()
			}
		})
	}
	await(t, "two wait", func() bool { h := s.Health(); return h.Active+h.Waiting == 3 })
	status, header, got := s.post("/v1/chat/completions", object{"model": "base", "messages": user("x")})
	if status != 429 || header.Get("Retry-After") == "" || at(got, "error", "code") != "queue_full" {
		t.Errorf("%d %v %v", status, header, got)
	}
	if status, _, got := s.post("/v1/chat/completions", object{"model": "base", "messages": user("x"), "n": 4}); status != 400 {
		t.Errorf("more answers than ever fit: %d %v", status, got)
	}
	cancel() // clients that go away leave their places
	wg.Wait()
	release()
	await(t, "nobody waits", func() bool { h := s.Health(); return h.Waiting+h.Active == 0 })
	if status, _, got := s.post("/v1/chat/completions", object{"model": "base", "messages": user("x"), "max_tokens": 2}); status != 200 {
		t.Errorf("%d %v", status, got)
	}
}

// stuck is a client that reads nothing.
type stuck struct {
	header  http.Header
	mu      sync.Mutex
	written bytes.Buffer
	writes  int
	free    chan struct{}
}

func (w *stuck) Header() http.Header { return w.header }
func (w *stuck) WriteHeader(int)     {}
func (w *stuck) Flush()              {}
func (w *stuck) Write(b []byte) (int, error) {
	w.mu.Lock()
	w.writes++
	second := w.writes == 2
	w.written.Write(b)
	w.mu.Unlock()
	if second { // the first tokens
		<-w.free
	}
	return len(b), nil
}

// TestSlowReader: a client that does not read does not hold its row, and learns that its answer was ended.
func TestSlowReader(t *testing.T) {
	s := start(t, func(o *serve.Options) { o.StreamBuffer = 8 })
	body := s.endless()
	body["stream"] = true
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	w := &stuck{header: http.Header{}, free: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := s.request("/v1/chat/completions", string(text))
		r.Host = "localhost"
		s.ServeHTTP(w, r)
	}()
	await(t, "the client is stuck", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.writes == 2 })
	await(t, "its row ended", func() bool { h := s.Health(); return h.Active+h.Waiting == 0 })
	select {
	case <-done:
		t.Fatal("the handler ended although its client is stuck")
	default:
	}
	if status, _, got := s.post("/v1/chat/completions", object{"model": "base", "messages": user("x"), "max_tokens": 2}); status != 200 {
		t.Errorf("another client: %d %v", status, got)
	}
	close(w.free)
	<-done
	if out := w.written.String(); !strings.Contains(out, "did not read its stream") || strings.Contains(out, "[DONE]") {
		t.Errorf("%q", out)
	}
}

// TestGone: an answer whose client went away ends, before its turn and in the middle.
func TestGone(t *testing.T) {
	s := start(t, nil)
	body := s.endless()
	for _, streamed := range []bool{true, false} {
		body["stream"] = streamed
		release := s.Hold()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if resp, err := http.DefaultClient.Do(s.request("/v1/chat/completions", body).WithContext(ctx)); err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if err == nil {
					t.Error("the answer came to its end")
				}
			}
		})
		await(t, "the row is there", func() bool { h := s.Health(); return h.Active+h.Waiting == 2 })
		cancel()
		wg.Wait()
		await(t, "the server knows", func() bool { return s.InFlight() == 0 })
		release()
		await(t, "the row ended", func() bool { h := s.Health(); return h.Active+h.Waiting == 0 })
	}
}

// TestClose: answers in work end with an error that says why, and nothing is taken any more.
func TestClose(t *testing.T) {
	s := start(t, nil)
	body := s.endless()
	body["stream"] = true
	resp, err := http.DefaultClient.Do(s.request("/v1/chat/completions", body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	s.Drain()
	s.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || !(strings.Contains(string(b), "The server is stopping") || strings.Contains(string(b), "[DONE]")) {
		t.Errorf("%v %q", err, b)
	}
	if status, _, got := s.post("/v1/chat/completions", body); status != 503 {
		t.Errorf("%d %v", status, got)
	}
	if h := s.Health(); h.Active+h.Waiting+h.CachePages != 0 {
		t.Errorf("%+v", h)
	}
}

func TestOptions(t *testing.T) {
	m, stack := model(t)
	good := serve.Options{Weights: m.Model, Tokens: m.Tokens, Chat: m.Chat, Models: []serve.Model{{Name: "a"}, {Name: "b", Stack: stack}}}
	for want, change := range map[string]func(o *serve.Options){
		"needed":       func(o *serve.Options) { o.Tokens = nil },
		"at least one": func(o *serve.Options) { o.Models = nil },
		"twice":        func(o *serve.Options) { o.Models = []serve.Model{{Name: "a"}, {Name: "a"}} },
		"negative":     func(o *serve.Options) { o.Rows = -1 },
		"context":      func(o *serve.Options) { o.Context = 1 << 20 },
		"cache":        func(o *serve.Options) { o.CacheBytes = 1 << 10 },
	} {
		o := good
		change(&o)
		if s, err := serve.New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
			if s != nil {
				s.Close()
			}
		}
	}
}
