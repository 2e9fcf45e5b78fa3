// Package serve answers the OpenAI API with one model and several stacks of adapters on it.
//
// New gives an http.Handler. All clients share one batch (engine.go): a request's rows join it
// between two decoding steps, so many clients are answered at once, and an answer still depends
// on its request, the weights and the seed only. Everything that a client can make large is
// bounded: bodies, messages, tokens, waiting rows, the cache, and what a slow reader has not
// taken yet.
//
// The package knows nothing of runs, stores or flags. Start reading at Options, then
// Server.complete; request.go says what is accepted and what is refused.
package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/sample"
	"github.com/opencharacter/opencharacter/lm/tokenizer"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// Model is a name that clients may ask for, with the adapters that it stands for.
type Model struct {
	Name  string
	Stack []*transformer.Adapter // none: the weights as they are
}

// Options of New. Weights, Tokens, Chat and Models are needed.
type Options struct {
	Weights *transformer.Model
	Tokens  *tokenizer.Tokenizer
	Chat    *chat.Format
	Models  []Model
	// Fingerprint names weights and adapters in every answer ("system_fingerprint").
	Fingerprint string
	// Rows bounds the answers in work at once; 0 is 16.
	Rows int
	// Queue bounds the answers that wait for their turn; what comes on top is refused with
	// status 429. 0 is 64, -1 none.
	Queue int
	// Context bounds prompt and answer together, in tokens; 0 is the model's own.
	Context int
	// CacheBytes bounds the memory for keys and values; 0 is 1 GiB. A row of full length must
	// fit.
	CacheBytes int64
	// MaxBody bounds a request's bytes; 0 is 1 MiB.
	MaxBody int64
	// MaxMessages bounds the messages of one conversation; 0 is 512.
	MaxMessages int
	// MaxChoices bounds the answers that one request may ask for; 0 is 16.
	MaxChoices int
	// StreamBuffer is how many tokens may wait for a client that reads its stream slowly; its
	// answer then ends. 0 is 1024.
	StreamBuffer int
	// WriteTimeout is how long one write to a client may take, and BodyTimeout how long its
	// body; 0 is 30 s.
	WriteTimeout, BodyTimeout time.Duration
	// APIKey is asked of every request under /v1, as "Authorization: Bearer KEY"; "" asks for none.
	APIKey string
	// Answered is told of the tokens of every request that was answered, whole or in part; nil tells nobody. It must be quick.
	Answered func(model string, prompt, completion int)
	// Hosts are the names under which a request may address the server, without a port; nil is
	// any. A server on loopback without a key names those of loopback, so that no web page can
	// reach it by a name of its own that leads there.
	Hosts []string
}

// Loopback are the Hosts of a server that only this machine reaches.
func Loopback() []string { return []string{"localhost", "127.0.0.1", "::1"} }

// Server is the handler.
type Server struct {
	o        Options
	models   map[string]int // index in o.Models by name
	created  int64
	start    []int32 // what every plain text begins with
	engine   *engine
	inFlight atomic.Int64 // requests whose body is read or that wait for an answer
	draining atomic.Bool
}

// New checks the options and starts the engine; Close ends it.
func New(o Options) (*Server, error) {
	if o.Weights == nil || o.Tokens == nil || o.Chat == nil || len(o.Models) == 0 {
		return nil, errors.New("serve: weights, tokenizer, chat format and at least one model are needed")
	}
	if o.Rows < 0 || o.Queue < -1 || o.Context < 0 || o.CacheBytes < 0 || o.MaxBody < 0 || o.MaxMessages < 0 || o.MaxChoices < 0 || o.StreamBuffer < 0 || o.WriteTimeout < 0 || o.BodyTimeout < 0 {
		return nil, errors.New("serve: a limit is negative; leave it out for its default")
	}
	o.Rows, o.Context = cmp.Or(o.Rows, 16), cmp.Or(o.Context, o.Weights.Context)
	o.Queue = max(0, cmp.Or(o.Queue, 64))
	o.CacheBytes, o.MaxBody, o.MaxMessages = cmp.Or(o.CacheBytes, 1<<30), cmp.Or(o.MaxBody, 1<<20), cmp.Or(o.MaxMessages, 512)
	o.MaxChoices = min(cmp.Or(o.MaxChoices, 16), o.Rows+o.Queue)
	o.StreamBuffer = cmp.Or(o.StreamBuffer, 1024)
	o.WriteTimeout, o.BodyTimeout = cmp.Or(o.WriteTimeout, 30*time.Second), cmp.Or(o.BodyTimeout, 30*time.Second)
	if o.Context > o.Weights.Context || o.Context < 2 {
		return nil, fmt.Errorf("serve: a context of %d tokens; choose 2 to %d, which is the model's", o.Context, o.Weights.Context)
	}
	// No row needs more than its own full length.
	pages := min(int(min(o.CacheBytes/o.Weights.PageBytes(), 1<<30)), o.Rows*sample.PagesFor(o.Context))
	if need := sample.PagesFor(o.Context); pages < need {
		return nil, fmt.Errorf("serve: one answer of %d tokens takes %d MB of cache, more than the %d MB allowed; allow more, or a smaller context",
			o.Context, (int64(need)*o.Weights.PageBytes()+1e6-1)/1e6, o.CacheBytes/1e6)
	}
	s := &Server{o: o, models: map[string]int{}, created: time.Now().Unix(), start: documentStart(o)}
	var stacks [][]*transformer.Adapter
	for i, m := range o.Models {
		if _, twice := s.models[m.Name]; twice || m.Name == "" {
			return nil, fmt.Errorf("serve: model name %q is empty or there twice", m.Name)
		}
		s.models[m.Name] = i
		stacks = append(stacks, m.Stack)
	}
	live, err := sample.NewLive(o.Weights, stacks, sample.LiveOptions{MaxRows: o.Rows, Context: o.Context, Pages: pages})
	if err != nil {
		return nil, err
	}
	s.engine = startEngine(live, o.Rows+o.Queue)
	return s, nil
}

// Drain refuses new requests from now on; those that are there go on.
func (s *Server) Drain() { s.draining.Store(true) }

// Close ends all answers that are in work, with an error to their clients, and the engine.
func (s *Server) Close() {
	s.Drain()
	s.engine.stop()
}

// ServeHTTP answers one request. Every error has the API's own shape.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Also for the body of a request that is refused: the connection is held until it was read.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.o.BodyTimeout)) // not every ResponseWriter has one
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	if err := s.route(w, r); err != nil {
		s.fail(w, err)
	}
}

func (s *Server) route(w http.ResponseWriter, r *http.Request) *apiError {
	if err := s.checkHost(r); err != nil {
		return err
	}
	if r.URL.Path == "/healthz" {
		return s.only(w, r, http.MethodGet, s.health)
	}
	if !strings.HasPrefix(r.URL.Path, "/v1/") {
		return unknownURL(r)
	}
	if err := s.checkKey(r); err != nil {
		return err
	}
	name, one := strings.CutPrefix(r.URL.Path, "/v1/models/")
	switch {
	case r.URL.Path == "/v1/models":
		return s.only(w, r, http.MethodGet, s.listModels)
	case one:
		return s.only(w, r, http.MethodGet, func(w http.ResponseWriter, _ *http.Request) *apiError { return s.showModel(w, name) })
	case r.URL.Path == "/v1/chat/completions":
		return s.only(w, r, http.MethodPost, func(w http.ResponseWriter, r *http.Request) *apiError { return s.complete(w, r, true) })
	case r.URL.Path == "/v1/completions":
		return s.only(w, r, http.MethodPost, func(w http.ResponseWriter, r *http.Request) *apiError { return s.complete(w, r, false) })
	}
	return unknownURL(r)
}

func (s *Server) only(w http.ResponseWriter, r *http.Request, method string, next func(http.ResponseWriter, *http.Request) *apiError) *apiError {
	if r.Method == method || method == http.MethodGet && r.Method == http.MethodHead {
		return next(w, r)
	}
	w.Header().Set("Allow", method)
	return &apiError{Status: http.StatusMethodNotAllowed, Message: fmt.Sprintf("%s takes %s, not %.20q.", r.URL.Path, method, r.Method), Code: "method_not_allowed"}
}

// complete answers a chat or a text completion.
func (s *Server) complete(w http.ResponseWriter, r *http.Request, isChat bool) *apiError {
	if s.draining.Load() {
		return stopping()
	}
	// Bodies are in memory before they are counted as rows, so they are counted too.
	defer s.inFlight.Add(-1)
	if s.inFlight.Add(1) > int64(s.o.Rows+s.o.Queue+16) {
		return s.busy()
	}
	body, err := s.read(w, r)
	if err != nil {
		return err
	}
	a, err := parse(body, isChat, s.o.MaxChoices, s.o.MaxMessages)
	if err != nil {
		return err
	}
	stack, ok := s.models[a.model]
	if !ok {
		return s.noModel(a.model)
	}
	if err := s.encode(a); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context()) // ends what is left of the rows when this returns
	defer cancel()
	p := newReply(s, a)
	switch err := s.engine.submit(p.rows(ctx, stack)); {
	case errors.Is(err, errFull):
		return s.busy()
	case errors.Is(err, errStopped):
		return stopping()
	case err != nil:
		return broken(err)
	}
	if s.o.Answered != nil {
		defer func() { s.o.Answered(a.model, p.counted("prompt_tokens"), p.counted("completion_tokens")) }()
	}
	if a.stream {
		return p.stream(ctx, w)
	}
	return p.whole(ctx, w)
}

// Answers are those that are in work and those that wait.
func (s *Server) Answers() (active, waiting int) {
	active, waiting, _ = s.engine.counts()
	return active, waiting
}

// Err says why there will be no more answers; nil while there will.
func (s *Server) Err() error {
	if s.draining.Load() {
		return errStopped
	}
	_, _, err := s.engine.counts()
	return err
}

// encode turns the request's texts into tokens and checks that they leave room for an answer.
func (s *Server) encode(a *ask) *apiError {
	param := "prompt"
	if a.chat {
		param = "messages"
		ids, err := s.o.Chat.Prompt(a.messages)
		if err != nil {
			return bad(param, "", "%s.", strings.TrimPrefix(err.Error(), "chat: "))
		}
		a.prompts = [][]int32{ids}
	}
	for _, text := range a.texts {
		ids := s.o.Tokens.Encode(text)
		if len(s.start) > 0 && (len(ids) == 0 || ids[0] != s.start[0]) {
			ids = slices.Concat(s.start, ids)
		}
		a.prompts = append(a.prompts, ids)
	}
	for _, p := range a.prompts {
		if len(p) == 0 {
			return bad(param, "", "The prompt has no tokens; give at least one character.")
		}
		if len(p) >= s.o.Context {
			return bad(param, "context_length_exceeded", "This model's context is %d tokens, and the prompt alone has %d. Shorten it, or start the server with a larger --context if the model has one.", s.o.Context, len(p))
		}
		for i, id := range p {
			if id < 0 || int(id) >= s.o.Weights.Vocab {
				return bad(param, "", "Token %d at place %d of the prompt is not in the vocabulary of %d.", id, i, s.o.Weights.Vocab)
			}
		}
	}
	a.params.StopTokens = s.o.Chat.EndTokens()
	return nil
}

// documentStart is the token that a plain text begins with: the model's begin token, if a
// conversation has it once, at its start. Where it opens every turn, as in ChatML, a plain text
// does not have it.
func documentStart(o Options) []int32 {
	bos, ok := o.Tokens.BOS()
	if !ok {
		return nil
	}
	ids, err := o.Chat.Prompt([]chat.Message{{Role: "user", Content: "Hello"}})
	if err != nil || len(ids) == 0 || ids[0] != bos || slices.Contains(ids[1:], bos) {
		return nil // a template that wants other roles: it then says so to every request
	}
	return []int32{bos}
}
