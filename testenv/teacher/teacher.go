// Package teacher is a small OpenAI-compatible endpoint on loopback for tests of its clients: it answers by a function of the messages, and misbehaves as
// scripted. It holds no model. Start reading at Start; script.go has the ways to misbehave.
package teacher

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Message is one turn of a request.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Request is a chat completion that was asked for.
type Request struct {
	Model       string    `json:"model"`
	Messages    []Message `json:"messages"`
	Temperature *float64  `json:"temperature"`
	TopP        *float64  `json:"top_p"`
	MaxTokens   int       `json:"max_tokens"`
	Seed        *int64    `json:"seed"`
	Stop        []string  `json:"stop"`
	Stream      bool      `json:"stream"`
	Thinking    *struct {
		Type string `json:"type"`
	} `json:"thinking"`
}

// Options of a server.
type Options struct {
	Key    string                          // required in "Authorization: Bearer KEY"; "" = "test-key"
	Models []string                        // nil = {"test-model"}
	Answer func(messages []Message) string // nil = repeats the last message in capitals
	Script []Behaviour                     // for the first requests, in order; then Normal
}

// Server is a running endpoint.
type Server struct {
	URL string // base URL, with /v1
	Key string

	o      Options
	mu     sync.Mutex
	script []Behaviour
	seen   []Request
	done   chan struct{} // closed at the end, so that no handler hangs for ever
}

// Start runs a server until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	o.Key = cmp.Or(o.Key, "test-key")
	if o.Models == nil {
		o.Models = []string{"test-model"}
	}
	if o.Answer == nil {
		o.Answer = func(messages []Message) string { return strings.ToUpper(messages[len(messages)-1].Content) }
	}
	s := &Server{Key: o.Key, o: o, script: slices.Clone(o.Script), done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", s.authorized(s.models))
	mux.HandleFunc("POST /v1/chat/completions", s.authorized(s.complete))
	h := httptest.NewServer(mux)
	s.URL = h.URL + "/v1"
	t.Cleanup(func() {
		close(s.done)
		h.Close()
	})
	return s
}

// Then adds behaviours for the next requests.
func (s *Server) Then(b ...Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = append(s.script, b...)
}

// Requests returns all chat completions that were asked for, in order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

func (s *Server) authorized(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+s.Key {
			writeError(w, http.StatusUnauthorized, "Incorrect API key provided: "+r.Header.Get("Authorization"))
			return
		}
		next(w, r)
	}
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	type model struct {
		ID     string `json:"id"`
		Object string `json:"object"`
	}
	list := struct {
		Object string  `json:"object"`
		Data   []model `json:"data"`
	}{Object: "list"}
	for _, id := range s.o.Models {
		list.Data = append(list.Data, model{id, "model"})
	}
	writeJSON(w, http.StatusOK, list)
}

func (s *Server) complete(w http.ResponseWriter, r *http.Request) {
	var req Request
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		writeError(w, http.StatusBadRequest, "the body is not JSON: "+err.Error())
		return
	}
	switch {
	case !slices.Contains(s.o.Models, req.Model):
		writeError(w, http.StatusNotFound, fmt.Sprintf("The model `%s` does not exist", req.Model))
		return
	case len(req.Messages) == 0:
		writeError(w, http.StatusBadRequest, "messages must not be empty")
		return
	case req.Stream:
		writeError(w, http.StatusUnprocessableEntity, "this server does not stream")
		return
	}
	s.mu.Lock()
	s.seen = append(s.seen, req)
	behave := Normal
	if len(s.script) > 0 {
		behave, s.script = s.script[0], s.script[1:]
	}
	s.mu.Unlock()
	behave(s, w, r, req)
}

// completion is the body of a good answer.
func (s *Server) completion(req Request, text, finish string) map[string]any {
	prompt := 0
	for _, m := range req.Messages {
		prompt += len(strings.Fields(m.Content))
	}
	tokens := len(strings.Fields(text))
	return map[string]any{
		"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": req.Model,
		"choices": []any{map[string]any{
			"index": 0, "finish_reason": finish, "message": map[string]any{"role": "assistant", "content": text},
		}},
		"usage": map[string]any{"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens},
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

func writeError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, map[string]any{"error": map[string]any{"message": message, "type": "test_error", "code": nil}})
}
