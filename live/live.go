// Package live serves the reports of runs while they go on: the page that [report] writes into a file, refreshing itself,
// and the rows behind it, a page at a time. It reads only. It answers only those who ask for a loopback name, because a
// foreign name that points here (DNS rebinding) would let another site's page read every text.
//
// Start at [Handler]; page.go makes the page, rows.go answers with rows.
package live

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workflows"
)

// Runs asks the runs themselves. Errors mean that nobody answers now: the page then shows what is recorded.
type Runs interface {
	// List names the runs, newest first.
	List(ctx context.Context) ([]string, error)
	// Progress is the run's progress query.
	Progress(ctx context.Context, id string) (workflows.Progress, error)
	// Rows is the rows query of a stage's workflow.
	Rows(ctx context.Context, workflow string) (activities.Rows, error)
}

// Options are what a Handler reads from. All are required.
type Options struct {
	// Open gives the store and the runs; it is asked until it succeeds, so that a server can listen before they are there.
	Open func(ctx context.Context) (*store.Store, Runs, error)
	// Page is a run's page in the Temporal UI; "" = no link.
	Page func(id string) string
}

type server struct {
	o      Options
	mu     sync.Mutex
	store  *store.Store
	runs   Runs
	tables tables
	pages  pages
}

// Handler serves / (a list of runs), /runs/ID (a run's page) and /runs/ID/rows.
func Handler(o Options) http.Handler {
	s := &server{o: o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.index)
	mux.HandleFunc("GET /runs/{id}", s.page)
	mux.HandleFunc("GET /runs/{id}/rows", s.rows)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.Host) {
			http.Error(w, "this server answers to loopback names only, such as 127.0.0.1; from elsewhere use an ssh tunnel", http.StatusMisdirectedRequest)
			return
		}
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		mux.ServeHTTP(w, r)
	})
}

func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// open is store and runs, opened once.
func (s *server) open(ctx context.Context) (*store.Store, Runs, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		st, runs, err := s.o.Open(ctx)
		if err != nil {
			return nil, nil, err
		}
		s.store, s.runs = st, runs
	}
	return s.store, s.runs, nil
}

var errNoRun = errors.New("there is no such run")

// fail answers with what went wrong in one line.
func fail(w http.ResponseWriter, err error) {
	code := http.StatusServiceUnavailable
	if errors.Is(err, errNoRun) {
		code = http.StatusNotFound
	}
	http.Error(w, err.Error(), code)
}

var indexPage = template.Must(template.New("index").Parse(`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>runs</title>
<style>:root{color-scheme:light dark}body{font:1rem/1.6 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}</style></head><body><h1>Runs</h1>
{{if .}}<ul>{{range .}}<li><a href="/runs/{{.}}">{{.}}</a></li>{{end}}</ul>{{else}}<p>No runs yet.</p>{{end}}</body></html>
`))

func (s *server) index(w http.ResponseWriter, r *http.Request) {
	_, runs, err := s.open(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	ids, err := runs.List(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = indexPage.Execute(w, ids) // a reader who is gone reads nothing
}

// run is a run as its record and its own words show it.
type run struct {
	id       string
	record   activities.Record
	plan     activities.Plan
	recorded bool
	progress *workflows.Progress // nil: nobody answers
}

func (s *server) run(ctx context.Context, id string) (run, error) {
	x := run{id: id}
	if err := spec.CheckRunID(id); err != nil {
		return x, fmt.Errorf("%w: %w", errNoRun, err)
	}
	st, runs, err := s.open(ctx)
	if err != nil {
		return x, err
	}
	var rerr error
	if x.record, x.plan, rerr = activities.ReadRecord(ctx, st, id); rerr == nil {
		x.recorded = true
	}
	p, err := runs.Progress(ctx, id)
	if err == nil {
		x.progress = &p
	}
	if !x.recorded && err != nil {
		return x, fmt.Errorf("%w: %s: %w", errNoRun, id, rerr)
	}
	return x, nil
}

// stage is a stage's own progress; nil when nobody says it.
func (x run) stage(kind string) *workflows.StageProgress {
	if x.progress == nil {
		return nil
	}
	for i := range x.progress.Stages {
		if x.progress.Stages[i].Name == kind {
			return &x.progress.Stages[i]
		}
	}
	return nil
}

func nonce() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}
