package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// stream sends the answers as server-sent events while they grow. What has come since the last
// event goes into one.
func (p *reply) stream(ctx context.Context, w http.ResponseWriter) *apiError {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy in between must pass it on at once
	control := http.NewResponseController(w)
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	send := func(events []any) error {
		var b bytes.Buffer
		for _, e := range events {
			b.WriteString("data: ")
			if text, ok := e.(string); ok {
				b.WriteString(text)
			} else if err := json.NewEncoder(&b).Encode(e); err != nil {
				return err
			}
			b.WriteString("\n")
		}
		_ = control.SetWriteDeadline(time.Now().Add(p.s.o.WriteTimeout)) // not every ResponseWriter has one
		if _, err := w.Write(b.Bytes()); err != nil {
			return err
		}
		if err := control.Flush(); !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		return nil
	}
	var first []any
	if p.ask.chat {
		for i := range p.answers {
			first = append(first, p.piece(map[string]any{"index": i, "delta": map[string]any{"role": "assistant", "content": "", "refusal": nil}, "logprobs": nil, "finish_reason": nil}))
		}
	}
	if send(first) != nil {
		return nil // the client is gone, and ctx with it: the rows end
	}
	ended := make([]bool, len(p.answers))
	for {
		select {
		case <-p.news:
		case <-ctx.Done():
			return nil
		}
		events, over := p.events(ctx, ended)
		if send(events) != nil || over {
			return nil
		}
	}
}

// events are the pieces that have come, and at the end what follows the last.
func (p *reply) events(ctx context.Context, ended []bool) (events []any, over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, a := range p.answers {
		if ended[i] {
			continue
		}
		if text, tokens := a.take(); text != "" || len(tokens) > 0 {
			c := map[string]any{"index": i, "logprobs": p.logProbs(tokens), "finish_reason": nil}
			if p.ask.chat {
				c["delta"] = map[string]any{"content": text}
			} else {
				c["text"] = text
			}
			events = append(events, p.piece(c))
		}
		if a.err != nil {
			return append(events, p.failed(ctx, a.err).body()), true
		}
		if a.finish != "" {
			ended[i] = true
			c := map[string]any{"index": i, "logprobs": nil, "finish_reason": a.finish}
			if p.ask.chat {
				c["delta"] = map[string]any{}
			} else {
				c["text"] = ""
			}
			events = append(events, p.piece(c))
		}
	}
	if p.open > 0 {
		return events, false
	}
	if p.ask.usage {
		last := p.head("chat.completion.chunk", []any{})
		last["usage"] = p.usage()
		events = append(events, last)
	}
	return append(events, "[DONE]\n"), true
}

// piece is one event.
func (p *reply) piece(choice map[string]any) map[string]any {
	out := p.head("chat.completion.chunk", []any{choice})
	if p.ask.usage {
		out["usage"] = nil
	}
	return out
}
