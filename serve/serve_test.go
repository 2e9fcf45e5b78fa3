package serve_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/lm/sample"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/serve"
	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

// model is the tiny model with an adapter whose effect is seen.
func model(t testing.TB) (*activities.Loaded, []*transformer.Adapter) {
	t.Helper()
	dir := t.TempDir()
	if err := tinymodel.Write(dir, 1); err != nil {
		t.Fatal(err)
	}
	m, err := activities.LoadModel(dir, "", hub.Options{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	a := transformer.NewAdapter(m.Config, 3, 6, 5)
	r := rand.New(rand.NewPCG(3, 4))
	for i, x := range a.Matrices() {
		if i%2 == 1 {
			for j := range x.T.Data() {
				x.T.Data()[j] = float32(r.NormFloat64() * .1)
			}
		}
	}
	return m, []*transformer.Adapter{a}
}

type server struct {
	*serve.Server
	url   string
	m     *activities.Loaded
	stack []*transformer.Adapter
	t     testing.TB
}

func start(t testing.TB, change func(o *serve.Options)) *server {
	t.Helper()
	m, stack := model(t)
	o := serve.Options{Weights: m.Model, Tokens: m.Tokens, Chat: m.Chat, Fingerprint: "fp_test", Models: []serve.Model{{Name: "base"}, {Name: "character", Stack: stack}}, Hosts: serve.Loopback()}
	if change != nil {
		change(&o)
	}
	s, err := serve.New(o)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	t.Cleanup(func() { s.Close(); h.Close() })
	return &server{s, h.URL, m, stack, t}
}

type object = map[string]any

func (s *server) request(path string, body any) *http.Request {
	s.t.Helper()
	var text []byte
	switch b := body.(type) {
	case string:
		text = []byte(b)
	default:
		var err error
		if text, err = json.Marshal(b); err != nil {
			s.t.Fatal(err)
		}
	}
	r, err := http.NewRequest(http.MethodPost, s.url+path, bytes.NewReader(text))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return r
}

// post returns the status, the header and the JSON of an answer.
func (s *server) post(path string, body any) (int, http.Header, object) {
	return s.do(s.request(path, body))
}

func (s *server) do(r *http.Request) (int, http.Header, object) {
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Error(err)
		return 0, nil, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var out object
	b, err := io.ReadAll(resp.Body)
	if err != nil || json.Unmarshal(b, &out) != nil {
		s.t.Errorf("status %d, %v: %q", resp.StatusCode, err, b)
	}
	return resp.StatusCode, resp.Header, out
}

// at walks into JSON by names and indices.
func at(v any, path ...any) any {
	for _, p := range path {
		switch k := p.(type) {
		case string:
			m, _ := v.(object)
			v = m[k]
		case int:
			l, _ := v.([]any)
			if k >= len(l) {
				return nil
			}
			v = l[k]
		}
	}
	return v
}

// events reads a stream to its end.
func (s *server) events(path string, body any) []object {
	s.t.Helper()
	resp, err := http.DefaultClient.Do(s.request(path, body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || !strings.HasPrefix(ct, "text/event-stream") {
		s.t.Fatalf("status %d, %s", resp.StatusCode, ct)
	}
	return readEvents(s.t, resp.Body)
}

func readEvents(t testing.TB, r io.Reader) []object {
	t.Helper()
	var out []object
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<22)
	done := false
	for sc.Scan() {
		line := sc.Text()
		data, ok := strings.CutPrefix(line, "data: ")
		switch {
		case line == "":
		case done || !ok:
			t.Errorf("line %q", line)
		case data == "[DONE]":
			done = true
		default:
			var o object
			if err := json.Unmarshal([]byte(data), &o); err != nil {
				t.Errorf("%q: %v", data, err)
			}
			out = append(out, o)
		}
	}
	if !done {
		t.Errorf("the stream has no [DONE]: %v, %v", out, sc.Err())
	}
	return out
}

func user(text string) []object { return []object{{"role": "user", "content": text}} }

// expect is what the batch generator says to one conversation.
func (s *server) expect(which, text string, key, seed uint64, maxTokens int) sample.Result {
	s.t.Helper()
	ids, err := s.m.Chat.Prompt([]chat.Message{{Role: "user", Content: text}})
	if err != nil {
		s.t.Fatal(err)
	}
	var stack []*transformer.Adapter
	if which == "character" {
		stack = s.stack
	}
	var out sample.Result
	req := sample.Request{Key: key, Prompt: ids, Params: sample.Params{Temperature: 1, Seed: seed, MaxTokens: maxTokens, StopTokens: s.m.Chat.EndTokens()}}
	if err := sample.Generate(context.Background(), s.m.Model, stack, []sample.Request{req}, sample.Options{}, func(_ int, r sample.Result) error { out = r; return nil }); err != nil {
		s.t.Fatal(err)
	}
	out.Text = s.m.Text(out)
	return out
}

// TestChat: the answers are the batch generator's, with its log-probs, whole and streamed.
func TestChat(t *testing.T) {
	s := start(t, nil)
	for _, which := range []string{"base", "character"} {
		body := object{"model": which, "messages": user("Hello!"), "seed": 7, "max_tokens": 24, "n": 2, "logprobs": true, "top_logprobs": 2}
		status, _, got := s.post("/v1/chat/completions", body)
		if status != 200 || got["object"] != "chat.completion" || got["model"] != which || got["system_fingerprint"] != "fp_test" || !strings.HasPrefix(got["id"].(string), "chatcmpl-") {
			t.Fatalf("%d %v", status, got)
		}
		body["stream"], body["stream_options"] = true, object{"include_usage": true}
		events := s.events("/v1/chat/completions", body)
		completion := 0
		for i := range 2 {
			want := s.expect(which, "Hello!", uint64(i), 7, 24)
			finish := want.Finish
			c := at(got, "choices", i)
			if at(c, "message", "content") != want.Text || at(c, "finish_reason") != finish || at(c, "message", "role") != "assistant" {
				t.Errorf("%s %d: %v, want %q (%s)", which, i, c, want.Text, finish)
			}
			checkLogProbs(t, s, at(c, "logprobs", "content"), want)
			completion += len(want.Tokens)
			text, end := "", ""
			var content []any
			for k, e := range events {
				if k == len(events)-1 {
					break
				}
				if e["object"] != "chat.completion.chunk" || e["id"] != events[0]["id"] || e["usage"] != nil {
					t.Errorf("event %v", e)
				}
				if at(e, "choices", 0, "index") != float64(i) {
					continue
				}
				if x, ok := at(e, "choices", 0, "delta", "content").(string); ok {
					text += x
				}
				if x, ok := at(e, "choices", 0, "logprobs", "content").([]any); ok {
					content = append(content, x...)
				}
				if x, ok := at(e, "choices", 0, "finish_reason").(string); ok {
					end += x
				}
			}
			if text != want.Text || end != finish {
				t.Errorf("%s %d streamed: %q (%s), want %q (%s)", which, i, text, end, want.Text, finish)
			}
			checkLogProbs(t, s, content, want)
		}
		last := events[len(events)-1]
		for name, u := range map[string]any{"whole": got["usage"], "streamed": last["usage"]} {
			prompt, _ := at(u, "prompt_tokens").(float64)
			if at(u, "completion_tokens") != float64(completion) || prompt < 6 || at(u, "total_tokens") != prompt+float64(completion) {
				t.Errorf("%s usage %v, want %d tokens of answers", name, u, completion)
			}
		}
		if len(at(last, "choices").([]any)) != 0 {
			t.Errorf("last event %v", last)
		}
	}
}

func checkLogProbs(t *testing.T, s *server, content any, want sample.Result) {
	t.Helper()
	list, _ := content.([]any)
	if len(list) != len(want.Tokens) {
		t.Fatalf("%d log-probs for %d tokens", len(list), len(want.Tokens))
	}
	for k, e := range list {
		p, _ := at(e, "logprob").(float64)
		if float32(p) != want.LogProbs[k] || p > 0 {
			t.Errorf("token %d: log-prob %v, want %v", k, p, want.LogProbs[k])
		}
		var b []byte
		for _, x := range at(e, "bytes").([]any) {
			b = append(b, byte(x.(float64)))
		}
		if string(b) != string(s.m.Tokens.TokenBytes(want.Tokens[k])) {
			t.Errorf("token %d: bytes %q", k, b)
		}
		first, _ := at(e, "top_logprobs", 0, "logprob").(float64)
		second, _ := at(e, "top_logprobs", 1, "logprob").(float64)
		if at(e, "top_logprobs", 2) != nil || first < second || first < p || math.Exp(first)+math.Exp(second) > 1.0001 {
			t.Errorf("token %d: alternatives %v", k, e)
		}
	}
}

// TestRowLaw: what many clients get at once, in a queue and with little memory, is what each gets alone.
func TestRowLaw(t *testing.T) {
	s := start(t, func(o *serve.Options) {
		o.Rows, o.Queue, o.Context = 6, 100, 400
		o.CacheBytes = 20 * o.Weights.PageBytes()
	})
	ask := func(i int) (string, object) {
		m := []string{"base", "character"}[i%2]
		body := object{"model": m, "seed": i, "max_tokens": 20 + i%30, "temperature": .5 + .1*float64(i%8), "logprobs": i%3 == 0}
		if i%5 == 4 {
			body["logprobs"] = nil
			body["prompt"] = strings.Repeat("Once upon a time ", 1+i%9)
			return "/v1/completions", body
		}
		body["messages"] = user(strings.Repeat("Tell me of the sea. ", 1+i%7))
		return "/v1/chat/completions", body
	}
	const n = 40
	one := func(i int, streamed bool) string {
		path, body := ask(i)
		if !streamed {
			status, _, got := s.post(path, body)
			if status != 200 {
				t.Errorf("request %d: %d %v", i, status, got)
			}
			text, _ := at(got, "choices", 0, "message", "content").(string)
			if path == "/v1/completions" {
				text, _ = at(got, "choices", 0, "text").(string)
			}
			b, _ := json.Marshal(at(got, "choices", 0, "logprobs", "content"))
			return text + string(b)
		}
		body["stream"] = true
		text := ""
		var content []any
		if body["logprobs"] == true {
			content = []any{}
		}
		for _, e := range s.events(path, body) {
			for _, p := range [][]any{{"choices", 0, "text"}, {"choices", 0, "delta", "content"}} {
				if x, ok := at(e, p...).(string); ok {
					text += x
				}
			}
			if x, ok := at(e, "choices", 0, "logprobs", "content").([]any); ok {
				content = append(content, x...)
			}
		}
		b, _ := json.Marshal(content)
		return text + string(b)
	}
	want := make([]string, n)
	for i := range n {
		want[i] = one(i, false)
	}
	for round := range 2 {
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				if got := one(i, (i+round)%2 == 0); got != want[i] {
					t.Errorf("round %d: request %d among others\n got %q\nwant %q", round, i, got, want[i])
				}
			})
		}
		wg.Wait()
	}
	if h := s.Health(); h.Active != 0 || h.Waiting != 0 || h.CachePages > 20 {
		t.Errorf("afterwards %+v", h)
	}
}

func TestCompletions(t *testing.T) {
	s := start(t, nil)
	ids := s.m.Tokens.Encode("Once upon")
	status, _, text := s.post("/v1/completions", object{"model": "base", "prompt": "Once upon", "seed": 3, "max_tokens": 12, "logprobs": 2})
	if status != 200 || text["object"] != "text_completion" {
		t.Fatalf("%d %v", status, text)
	}
	_, _, tokens := s.post("/v1/completions", object{"model": "base", "prompt": ids, "seed": 3, "max_tokens": 12, "logprobs": 2})
	_, _, lists := s.post("/v1/completions", object{"model": "base", "prompt": [][]int32{ids, ids}, "seed": 3, "max_tokens": 12, "logprobs": 2})
	_, _, many := s.post("/v1/completions", object{"model": "base", "prompt": []string{"Once upon", "Twice"}, "seed": 3, "max_tokens": 12, "n": 2})
	said := at(text, "choices", 0, "text").(string)
	if fmt.Sprint(at(text, "choices")) != fmt.Sprint(at(tokens, "choices")) || at(lists, "choices", 0, "text") != said || at(lists, "choices", 1, "text") == nil {
		t.Errorf("text %v, tokens %v, lists %v", text, tokens, lists)
	}
	if at(many, "choices", 0, "text") != said || at(many, "choices", 3, "index") != 3.0 || at(many, "choices", 4) != nil {
		t.Errorf("many: %v", many)
	}
	names := at(text, "choices", 0, "logprobs", "tokens").([]any)
	joined := ""
	for k, n := range names {
		if at(text, "choices", 0, "logprobs", "text_offset", k) != float64(len([]rune(joined))) {
			t.Errorf("offset of token %d: %v", k, at(text, "choices", 0, "logprobs"))
		}
		joined += n.(string)
	}
	if joined != said {
		t.Errorf("tokens say %q, the text is %q", joined, said)
	}
	_, _, other := s.post("/v1/completions", object{"model": "base", "prompt": "Once upon", "seed": 4, "max_tokens": 12})
	_, _, cold := s.post("/v1/completions", object{"model": "base", "prompt": "Once upon", "seed": 4, "max_tokens": 12, "temperature": 0})
	_, _, narrow := s.post("/v1/completions", object{"model": "base", "prompt": "Once upon", "seed": 5, "max_tokens": 12, "top_p": 0})
	if at(other, "choices", 0, "text") == said || at(cold, "choices", 0, "text") != at(narrow, "choices", 0, "text") {
		t.Errorf("seed 4 %v, temperature 0 %v, top_p 0 %v", other, cold, narrow)
	}
}

// TestStop: the text ends before the stop text, whole and streamed, and its tokens with it.
func TestStop(t *testing.T) {
	s := start(t, nil)
	free := s.expect("base", "Hello!", 0, 11, 60)
	if len(free.Text) < 12 {
		t.Fatalf("the answer is too short for this test: %q", free.Text)
	}
	stop := free.Text[6:9]
	want := free.Text[:strings.Index(free.Text, stop)]
	body := object{"model": "base", "messages": user("Hello!"), "seed": 11, "max_tokens": 60, "stop": []string{"never said", stop}, "logprobs": true}
	_, _, got := s.post("/v1/chat/completions", body)
	c := at(got, "choices", 0)
	if at(c, "message", "content") != want || at(c, "finish_reason") != "stop" || len(at(c, "logprobs", "content").([]any)) != len(want) {
		t.Errorf("%v, want %q", c, want)
	}
	body["stream"] = true
	text := ""
	for _, e := range s.events("/v1/chat/completions", body) {
		x, _ := at(e, "choices", 0, "delta", "content").(string)
		text += x
	}
	if text != want {
		t.Errorf("streamed %q, want %q", text, want)
	}
	// A stop text that never comes whole holds nothing back in the end.
	body["stop"], body["stream"] = free.Text[len(free.Text)-2:]+"x", false
	if _, _, got = s.post("/v1/chat/completions", body); at(got, "choices", 0, "message", "content") != free.Text {
		t.Errorf("%v, want %q", got, free.Text)
	}
}

func TestModelsAndHealth(t *testing.T) {
	s := start(t, nil)
	get := func(path string) (int, object) {
		r, err := http.NewRequest(http.MethodGet, s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		status, _, o := s.do(r)
		return status, o
	}
	status, list := get("/v1/models")
	if status != 200 || list["object"] != "list" || at(list, "data", 0, "id") != "base" || at(list, "data", 1, "id") != "character" || at(list, "data", 1, "object") != "model" {
		t.Errorf("%d %v", status, list)
	}
	if status, one := get("/v1/models/character"); status != 200 || one["id"] != "character" {
		t.Errorf("%d %v", status, one)
	}
	if status, one := get("/v1/models/gpt-4o"); status != 404 || at(one, "error", "code") != "model_not_found" {
		t.Errorf("%d %v", status, one)
	}
	if status, h := get("/healthz"); status != 200 || h["status"] != "ok" {
		t.Errorf("%d %v", status, h)
	}
	s.Drain()
	if status, h := get("/healthz"); status != 503 || h["status"] != "stopping" {
		t.Errorf("%d %v", status, h)
	}
	if status, _, e := s.post("/v1/chat/completions", object{"model": "base", "messages": user("x")}); status != 503 || at(e, "error", "code") != "stopping" {
		t.Errorf("%d %v", status, e)
	}
}

// await asks until something holds.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}
