package teacher

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Behaviour answers one authorized request.
type Behaviour func(s *Server, w http.ResponseWriter, r *http.Request, req Request)

// Normal answers with Options.Answer.
func Normal(s *Server, w http.ResponseWriter, _ *http.Request, req Request) {
	writeJSON(w, http.StatusOK, s.completion(req, s.o.Answer(req.Messages), "stop"))
}

// Status answers with an error status, and with the API key in its message, as some endpoints do.
func Status(code int) Behaviour {
	return func(_ *Server, w http.ResponseWriter, r *http.Request, _ Request) {
		writeError(w, code, fmt.Sprintf("scripted failure %d for %s", code, r.Header.Get("Authorization")))
	}
}

// TooMany answers 429 with the given Retry-After header; "" = without one.
func TooMany(retryAfter string) Behaviour {
	return func(_ *Server, w http.ResponseWriter, _ *http.Request, _ Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		writeError(w, http.StatusTooManyRequests, "Rate limit reached")
	}
}

// KeepAlive sends blank lines and comments, n of them with pauses, and then the answer.
func KeepAlive(n int, pause time.Duration) Behaviour {
	return func(s *Server, w http.ResponseWriter, r *http.Request, req Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := range n {
			_, _ = fmt.Fprint(w, []string{"\n", ": keep-alive\n\n"}[i%2])
			w.(http.Flusher).Flush()
			select {
			case <-time.After(pause):
			case <-r.Context().Done():
				return
			}
		}
		_ = json.NewEncoder(w).Encode(s.completion(req, s.o.Answer(req.Messages), "stop"))
	}
}

// Truncated breaks the connection in the middle of the answer.
func Truncated(s *Server, w http.ResponseWriter, _ *http.Request, req Request) {
	body, _ := json.Marshal(s.completion(req, s.o.Answer(req.Messages), "stop")) // a map of plain values
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	_, _ = w.Write(body[:len(body)/2])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// HalfJSON ends in the middle of the answer as if it were complete.
func HalfJSON(s *Server, w http.ResponseWriter, _ *http.Request, req Request) {
	body, _ := json.Marshal(s.completion(req, s.o.Answer(req.Messages), "stop")) // a map of plain values
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body[:len(body)/2])
}

// Hang never answers.
func Hang(s *Server, _ http.ResponseWriter, r *http.Request, _ Request) {
	select {
	case <-r.Context().Done():
	case <-s.done:
	}
}

// Garbage answers with bytes that are no JSON.
func Garbage(_ *Server, w http.ResponseWriter, _ *http.Request, _ Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte("\x00\xff\xfe garbage }{"))
}

// WrongContentType answers with a page, as a proxy or a wrong URL does.
func WrongContentType(_ *Server, w http.ResponseWriter, _ *http.Request, _ Request) {
	w.Header().Set("Content-Type", "text/html")
	_, _ = w.Write([]byte("<html><body>Welcome</body></html>"))
}

// Endless sends more than any client should read.
func Endless(s *Server, w http.ResponseWriter, r *http.Request, _ Request) {
	w.Header().Set("Content-Type", "application/json")
	block := make([]byte, 1<<16)
	for i := range block {
		block[i] = ' '
	}
	for r.Context().Err() == nil {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// EmptyChoices answers without a choice.
func EmptyChoices(s *Server, w http.ResponseWriter, _ *http.Request, req Request) {
	c := s.completion(req, "", "stop")
	c["choices"] = []any{}
	writeJSON(w, http.StatusOK, c)
}

// ErrorInside answers with status 200 and an error in the body, with the code given.
func ErrorInside(code int) Behaviour {
	return func(_ *Server, w http.ResponseWriter, _ *http.Request, _ Request) {
		writeJSON(w, http.StatusOK, map[string]any{"error": map[string]any{"message": "upstream failed", "code": code}})
	}
}

// FinishLength answers with text that was cut by the token limit.
func FinishLength(s *Server, w http.ResponseWriter, _ *http.Request, req Request) {
	writeJSON(w, http.StatusOK, s.completion(req, s.o.Answer(req.Messages), "length"))
}

// Reasoning answers with the reasoning in a field of its own.
func Reasoning(s *Server, w http.ResponseWriter, _ *http.Request, req Request) {
	c := s.completion(req, s.o.Answer(req.Messages), "stop")
	c["choices"].([]any)[0].(map[string]any)["message"].(map[string]any)["reasoning_content"] = "I must think first."
	writeJSON(w, http.StatusOK, c)
}

// Redirect points to another address.
func Redirect(to string) Behaviour {
	return func(_ *Server, w http.ResponseWriter, r *http.Request, _ Request) {
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
	}
}
