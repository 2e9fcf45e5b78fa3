package metrics

import (
	"net/http"
	"strconv"
	"time"
)

// API counts the requests to the OpenAI API that next answers, and shows how many answers are active and wait.
func (s *Set) API(next http.Handler, answers func() (active, waiting int)) http.Handler {
	if s == nil {
		return next
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = append(s.before, func() {
		active, waiting := answers()
		s.serveAnswers.WithLabelValues("active").Set(float64(active))
		s.serveAnswers.WithLabelValues("waiting").Set(float64(waiting))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, n := time.Now(), &noted{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			to := route(r.URL.Path)
			s.serveRequests.WithLabelValues(to, strconv.Itoa(n.status)).Inc()
			s.serveSeconds.WithLabelValues(to).Observe(time.Since(began).Seconds())
		}()
		next.ServeHTTP(n, r)
	})
}

// route is one of few words: paths are the clients' to choose.
func route(path string) string {
	switch path {
	case "/v1/chat/completions", "/v1/completions", "/v1/models", "/healthz":
		return path
	}
	return "other"
}

// noted notes the status of an answer. http.ResponseController finds the connection's own writer by Unwrap.
type noted struct {
	http.ResponseWriter
	status int
	begun  bool
}

func (n *noted) WriteHeader(status int) {
	if !n.begun && status >= 200 {
		n.status, n.begun = status, true
	}
	n.ResponseWriter.WriteHeader(status)
}

func (n *noted) Write(b []byte) (int, error) { n.begun = true; return n.ResponseWriter.Write(b) }

func (n *noted) Unwrap() http.ResponseWriter { return n.ResponseWriter }
