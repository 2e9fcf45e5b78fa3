package serve

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// apiError is an error in the API's shape: {"error": {"message", "type", "param", "code"}}.
type apiError struct {
	Status      int
	Message     string
	Type        string // "" = invalid_request_error
	Param, Code string // "" = null
	RetryAfter  int    // seconds; 0 = not said
}

// body is the error as it travels, in an answer or in a stream.
func (e *apiError) body() map[string]any {
	null := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	kind := e.Type
	if kind == "" {
		kind = "invalid_request_error"
	}
	return map[string]any{"error": map[string]any{"message": e.Message, "type": kind, "param": null(e.Param), "code": null(e.Code)}}
}

// bad is a request that cannot be answered as it is.
func bad(param, code, format string, args ...any) *apiError {
	return &apiError{Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...), Param: param, Code: code}
}

func unknownURL(r *http.Request) *apiError {
	return &apiError{Status: http.StatusNotFound, Message: fmt.Sprintf("There is nothing at %.20s %.200q; the API is under /v1: models, chat/completions, completions.", r.Method, r.URL.Path), Code: "unknown_url"}
}

func stopping() *apiError {
	return &apiError{Status: http.StatusServiceUnavailable, Message: "The server is stopping; ask it again when it has started anew.", Type: "server_error", Code: "stopping", RetryAfter: 5}
}

// broken is an answer that ended by a fault of ours.
func broken(err error) *apiError {
	return &apiError{Status: http.StatusInternalServerError, Message: err.Error(), Type: "server_error"}
}

// busy says when to come back: about when the rows that wait have had their turn.
func (s *Server) busy() *apiError {
	_, waiting, _ := s.engine.counts()
	return &apiError{Status: http.StatusTooManyRequests, Type: "rate_limit_error", Code: "queue_full", RetryAfter: min(30, 1+waiting/s.o.Rows),
		Message: fmt.Sprintf("%d answers are in work and %d wait, which is as many as this server takes; ask again later, or ask for fewer at once.", s.o.Rows, s.o.Queue)}
}

func (s *Server) noModel(name string) *apiError {
	var names []string
	for _, m := range s.o.Models {
		names = append(names, m.Name)
	}
	return &apiError{Status: http.StatusNotFound, Message: fmt.Sprintf("There is no model %.100q; this server has %s.", name, strings.Join(names, ", ")), Param: "model", Code: "model_not_found"}
}

// fail writes an error.
func (s *Server) fail(w http.ResponseWriter, e *apiError) {
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	if e.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	s.write(w, e.Status, e.body())
}

// write sends a JSON answer; a client that does not take it in time loses its connection.
func (s *Server) write(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // nothing of ours fails here; the client must still learn of it
		status, b = http.StatusInternalServerError, []byte(`{"error":{"message":"the answer cannot be encoded","type":"server_error","param":null,"code":null}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	c := http.NewResponseController(w)
	_ = c.SetWriteDeadline(time.Now().Add(s.o.WriteTimeout)) // not every ResponseWriter has one
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the client may be gone
	_ = c.Flush()
	_ = c.SetWriteDeadline(time.Time{})
}

// checkHost refuses names that are not the server's: a page's own name may lead to loopback.
func (s *Server) checkHost(r *http.Request) *apiError {
	if s.o.Hosts == nil {
		return nil
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.Trim(strings.ToLower(host), "[]"), ".")
	if slices.Contains(s.o.Hosts, host) {
		return nil
	}
	return &apiError{Status: http.StatusMisdirectedRequest, Message: fmt.Sprintf("This server does not answer under the name %.100q, only under %s.", r.Host, strings.Join(s.o.Hosts, ", ")), Code: "wrong_host"}
}

// checkKey compares the key in a time that tells nothing about it.
func (s *Server) checkKey(r *http.Request) *apiError {
	if s.o.APIKey == "" {
		return nil
	}
	kind, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got, want := sha256.Sum256([]byte(strings.TrimSpace(key))), sha256.Sum256([]byte(s.o.APIKey))
	if subtle.ConstantTimeCompare(got[:], want[:]) == 1 && strings.EqualFold(kind, "Bearer") {
		return nil
	}
	return &apiError{Status: http.StatusUnauthorized, Message: "The API key is missing or wrong: send it as Authorization: Bearer KEY.", Type: "authentication_error", Code: "invalid_api_key"}
}

// read reads a JSON body within its bounds.
func (s *Server) read(w http.ResponseWriter, r *http.Request) ([]byte, *apiError) {
	// A page of another origin can send plain text unasked, but not this type.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, &apiError{Status: http.StatusUnsupportedMediaType, Message: fmt.Sprintf("The body must be JSON with the header Content-Type: application/json, not %.100q.", r.Header.Get("Content-Type")), Code: "unsupported_media_type"}
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.o.MaxBody))
	if err == nil { // from now on reading means waiting for the client to go away
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, &apiError{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("The request has more than %d bytes.", s.o.MaxBody), Code: "request_too_large"}
	case err != nil:
		return nil, &apiError{Status: http.StatusRequestTimeout, Message: "The request did not arrive whole, or not in time.", Code: "request_incomplete"}
	}
	return b, nil
}
