package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/cmd/internal/cluster"
	"github.com/opencharacter/opencharacter/cmd/internal/telemetry"
	"github.com/opencharacter/opencharacter/codec"
	"github.com/opencharacter/opencharacter/live"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/stack"
	"github.com/opencharacter/opencharacter/workflows"
)

// liveServer serves the reports of the runs of a local stack.
type liveServer struct {
	url    string
	l      net.Listener
	server *http.Server
	ended  chan struct{}
}

// usualLivePort is taken when it is free and this data directory has no port of its own yet.
const usualLivePort = "8235"

// listenLive takes the port before anything is served, because runs are told where their report is. It is the last one
// of this data directory where that is free, so that links stay right.
func listenLive(dir string, port int) (*liveServer, error) {
	if port != 0 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return nil, fmt.Errorf("live report: %w; choose another --report-port", err)
		}
		return &liveServer{url: "http://" + l.Addr().String(), l: l}, nil
	}
	last := filepath.Join(dir, "report-port")
	tries := []string{usualLivePort, "0"}
	if b, err := os.ReadFile(last); err == nil {
		tries = append([]string{strings.TrimSpace(string(b))}, tries...)
	}
	var errs []error
	for _, p := range tries {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", p))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		_, now, _ := net.SplitHostPort(l.Addr().String())
		if err := os.MkdirAll(dir, 0o700); err == nil {
			_ = os.WriteFile(last, []byte(now+"\n"), 0o600) // without it the next start may choose another
		}
		return &liveServer{url: "http://" + l.Addr().String(), l: l}, nil
	}
	return nil, fmt.Errorf("live report: %w", errors.Join(errs...))
}

// reportURL is a run's live report on the local stack; "" where nobody serves it.
func (e *env) reportURL(id string) string {
	b, err := os.ReadFile(filepath.Join(e.info.Dir, "report-port"))
	if err != nil || e.info.Dir == "" {
		return ""
	}
	return "http://127.0.0.1:" + strings.TrimSpace(string(b)) + "/runs/" + id
}

// serve begins to answer. The stack's addresses are known; whether it answers shows at the first question.
func (s *liveServer) serve(info stack.Info, codecKeyFile string, warn io.Writer) error {
	o := client.Options{HostPort: info.Temporal, Namespace: info.Namespace, Logger: telemetry.Temporal()}
	var keys *codec.Keys
	if codecKeyFile != "" {
		k, err := cluster.ReadKeys(codecKeyFile, warn)
		if err != nil {
			return err
		}
		keys = k
		o.DataConverter, o.FailureConverter = k.DataConverter(), k.FailureConverter()
	}
	c, err := client.NewLazyClient(o)
	if err != nil {
		return fmt.Errorf("live report: %w", err)
	}
	open := func(ctx context.Context) (*store.Store, live.Runs, error) {
		st, err := store.Open(ctx, store.Config{Endpoint: info.S3, Bucket: info.Bucket, AccessKey: info.AccessKey, SecretKey: info.SecretKey, PathStyle: true})
		return st, asking{c, keys}, err
	}
	page := func(id string) string { return (&env{info: info}).runURL(id) }
	s.server = &http.Server{Handler: live.Handler(live.Options{Open: open, Page: page}), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		defer c.Close()
		if err := s.server.Serve(s.l); !errors.Is(err, http.ErrServerClosed) && warn != nil {
			fmt.Fprintln(warn, "character: live report:", err)
		}
	}()
	return nil
}

// stop ends it; a nil server has nothing to end.
func (s *liveServer) stop() error {
	switch {
	case s == nil:
		return nil
	case s.server == nil:
		return s.l.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = s.server.Close()
	}
	<-s.ended
	return err
}

// asking asks runs by their queries.
type asking struct {
	c    client.Client
	keys *codec.Keys // nil = none
}

func (a asking) List(ctx context.Context) ([]string, error) { return runIDs(ctx, &env{client: a.c}) }

func (a asking) Progress(ctx context.Context, id string) (workflows.Progress, error) {
	p, err := query(ctx, a.c, id)
	if err != nil {
		return p, err
	}
	for i := range p.Stages {
		if p.Stages[i].State == workflows.Running {
			newest(ctx, a.c, a.keys, &p.Stages[i])
		}
	}
	return p, nil
}

func (a asking) Rows(ctx context.Context, workflow string) (activities.Rows, error) {
	var r activities.Rows
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	v, err := a.c.QueryWorkflow(ctx, workflow, "", workflows.QueryRows)
	if err != nil {
		return r, err
	}
	return r, v.Get(&r)
}
