package serve

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/opencharacter/opencharacter/lm/sample"
)

// errSlow ends an answer whose client does not read it.
var errSlow = errors.New("the client did not read its stream, so the answer was ended")

// reply gathers the answers to one request. The engine's goroutine fills it, the handler's
// empties it.
type reply struct {
	s       *Server
	ask     *ask
	id      string
	created int64
	buffer  int           // tokens that may wait for the handler; 0: any number
	news    chan struct{} // one place: something has changed

	mu      sync.Mutex
	answers []*answer
	open    int // answers that go on
}

func newReply(s *Server, a *ask) *reply {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	p := &reply{s: s, ask: a, id: "cmpl-" + hex.EncodeToString(b[:]), created: time.Now().Unix(), news: make(chan struct{}, 1), open: a.n * len(a.prompts)}
	if a.chat {
		p.id = "chat" + p.id
	}
	if a.stream {
		p.buffer = s.o.StreamBuffer
	}
	for range p.open {
		p.answers = append(p.answers, &answer{decode: s.o.Tokens.NewStream(), stops: a.stops, keep: a.logProbs})
	}
	return p
}

// rows are the rows that answer the request. Answer i draws with the request's seed and key i.
func (p *reply) rows(ctx context.Context, stack int) []sample.Row {
	out := make([]sample.Row, len(p.answers))
	for i, a := range p.answers {
		out[i] = sample.Row{
			Request: sample.Request{Key: uint64(i), Prompt: p.ask.prompts[i/p.ask.n], Params: p.ask.params},
			Stack:   stack, Top: p.ask.top, Context: ctx,
			Token: func(t sample.Token) bool { return p.token(a, t) },
			End:   func(finish string, err error) { p.end(a, finish, err) },
		}
	}
	return out
}

// token is called by the engine and never waits.
func (p *reply) token(a *answer, t sample.Token) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.buffer > 0 && a.waiting() >= p.buffer {
		a.err = errSlow
		return false
	}
	more := a.push(t)
	if p.ask.stream {
		p.tell()
	}
	return more
}

func (p *reply) end(a *answer, finish string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a.end(finish, err)
	p.open--
	p.tell()
}

func (p *reply) tell() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// usage counts tokens; those of a prompt count once however many answers it has.
func (p *reply) usage() map[string]int {
	prompt, completion := 0, 0
	for _, ids := range p.ask.prompts {
		prompt += len(ids)
	}
	for _, a := range p.answers {
		completion += a.count
	}
	return map[string]int{"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
}

// counted is one number of usage.
func (p *reply) counted(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.usage()[name]
}

// whole waits for all answers and sends them at once.
func (p *reply) whole(ctx context.Context, w http.ResponseWriter) *apiError {
	for {
		select {
		case <-p.news:
		case <-ctx.Done(): // nobody reads any more
			return nil
		}
		p.mu.Lock()
		open := p.open
		p.mu.Unlock()
		if open == 0 {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	choices := make([]any, len(p.answers))
	for i, a := range p.answers {
		if a.err != nil {
			return p.failed(ctx, a.err)
		}
		text, tokens := a.take()
		c := map[string]any{"index": i, "finish_reason": a.finish, "logprobs": p.logProbs(tokens)}
		if p.ask.chat {
			c["message"] = map[string]any{"role": "assistant", "content": text, "refusal": nil}
		} else {
			c["text"] = text
		}
		choices[i] = c
	}
	out := p.head("chat.completion", choices)
	out["usage"] = p.usage()
	p.s.write(w, http.StatusOK, out)
	return nil
}

// failed says what became of an answer that did not come to its end.
func (p *reply) failed(ctx context.Context, err error) *apiError {
	var score *sample.ScoreError
	switch {
	case errors.Is(err, errStopped):
		return stopping()
	case errors.As(err, &score):
		return broken(errors.New("the model's scores are not finite: its weights or an adapter are damaged; see `character doctor`"))
	case ctx.Err() != nil:
		return &apiError{Status: http.StatusRequestTimeout, Message: "The client went away.", Code: "client_gone"}
	}
	return broken(err)
}

// head is the frame of an answer, or of a piece of one.
func (p *reply) head(object string, choices []any) map[string]any {
	if !p.ask.chat {
		object = "text_completion"
	}
	return map[string]any{"id": p.id, "object": object, "created": p.created, "model": p.ask.model, "system_fingerprint": p.s.o.Fingerprint, "choices": choices}
}
