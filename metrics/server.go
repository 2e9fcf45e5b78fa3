package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Health answers whether the process can work. The zero value says that it is starting.
type Health struct {
	mu    sync.Mutex
	check func(context.Context) error
	state string // why it is not ready, where there is nothing to check
	at    time.Time
	last  error
}

// Ready makes check the answer, as soon as the process serves. It is called at most once in two seconds, and must end with its context.
func (h *Health) Ready(check func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.check, h.state, h.at = check, "", time.Time{}
}

// Stopping says that the process takes no more work.
func (h *Health) Stopping() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.check, h.state = nil, "stopping"
}

const (
	again    = 2 * time.Second // how long an answer holds
	patience = 5 * time.Second // of a check
)

// now is nil when the process can work. Those who ask at once share one check.
func (h *Health) now(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.check == nil && h.state == "":
		return fmt.Errorf("starting")
	case h.check == nil:
		return fmt.Errorf("%s", h.state)
	case !h.at.IsZero() && time.Since(h.at) < again:
		return h.last
	}
	// Who asked may go away: the answer is for all.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	h.last, h.at = h.check(ctx), time.Now()
	return h.last
}

// Handler answers /metrics, /healthz (the process lives) and /readyz (it can work: status 503 and the reason where it cannot).
// local restricts it to loopback names, so that no web page can reach it by a name of its own that leads here.
func (s *Set) Handler(h *Health, local bool) http.Handler {
	mux := http.NewServeMux()
	shown := promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 20 * time.Second})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		before := s.before
		s.mu.Unlock()
		for _, f := range before {
			f()
		}
		shown.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := h.now(r.Context()); err != nil {
			http.Error(w, "not ready: "+strings.ReplaceAll(err.Error(), "\n", " "), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if local && !loopback(r.Host) {
			http.Error(w, "this server answers to loopback names only, such as 127.0.0.1", http.StatusMisdirectedRequest)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

// loopback says whether a host, with or without a port, is this machine only.
func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// Listener is the server of a process's metrics.
type Listener struct {
	URL    string
	server *http.Server
	ended  chan struct{}
	err    error // after ended
}

// Check refuses an address that is none, and one that other machines reach unless remote says that they may: there is no password.
func Check(address string, remote bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("--metrics-address %q: want HOST:PORT, such as 127.0.0.1:9464", address)
	}
	if !remote && !loopback(host) {
		return fmt.Errorf("--metrics-address %s: not a loopback address, and refused: metrics have no password; use 127.0.0.1, or add --metrics-remote where only your own network reaches it", address)
	}
	return nil
}

// Listen shows s on address until Close; see [Check] for which addresses are taken.
func Listen(address string, remote bool, s *Set, h *Health) (*Listener, error) {
	if err := Check(address, remote); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--metrics-address: %w; choose another, or port 0 for a free one", err)
	}
	host, _, _ := net.SplitHostPort(address)
	x := &Listener{URL: "http://" + l.Addr().String(), ended: make(chan struct{}), server: &http.Server{Handler: s.Handler(h, loopback(host)),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}}
	go func() {
		defer close(x.ended)
		x.err = x.server.Serve(l)
	}()
	return x, nil
}

// Close ends it; a nil Listener has nothing to end.
func (l *Listener) Close() error {
	if l == nil {
		return nil
	}
	err := l.server.Close()
	<-l.ended
	if !errors.Is(l.err, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("--metrics-address: %w", l.err))
	}
	return err
}
