// Package temporalserver runs a Temporal server with its Web UI inside this process, on one SQLite file.
//
// It is for laptops, demos and tests: loopback only, one node, one directory. The file survives kill -9 at any
// instant (write-ahead log, every commit synced), and a server started again on it goes on with the open workflows.
// Production uses a Temporal cluster instead; tests of one put the state into PostgreSQL (Options.Postgres).
//
// It knows nothing of characters, workers or S3. It is the only package that links the server (1,800 packages), so
// only commands and end-to-end tests should import it. Start reading at Start.
package temporalserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	"go.temporal.io/server/temporal"
)

// Options says where the server keeps its file and on which ports it listens.
type Options struct {
	// Dir holds temporal.db, version.json and lock. It is made when missing. Required.
	Dir string
	// IP to bind; empty means 127.0.0.1. Only loopback addresses are accepted: the server has no authentication.
	IP string
	// GRPCPort, HTTPPort and UIPort; 0 picks a free one. HTTPPort is the frontend's JSON API.
	GRPCPort, HTTPPort, UIPort int
	// Namespace is created when missing; empty means "default".
	Namespace string
	// Retention of closed workflows; 0 means 30 days. It is also applied to a namespace that exists already.
	Retention time.Duration
	// SearchAttributes to register, name -> "Keyword", "Int", "Double", "Text", "Bool", "Datetime" or "KeywordList".
	// Missing ones are added to an old file too.
	SearchAttributes map[string]string
	// CodecEndpoint is the URL at which the Web UI has encrypted payloads decrypted; empty means none.
	CodecEndpoint string
	// Postgres keeps the server's state in PostgreSQL; nil means the SQLite file in Dir. Dir holds the lock and the log all the same.
	Postgres *Postgres
	// Owner names whom the server is for; empty names nobody. A call whose header OwnerHeader names another is answered with
	// Unavailable, as if nobody were here: workers of a server that died reconnect to whoever has its port next, and must not
	// do that one's work. Calls without the header, such as the UI's, are served.
	Owner string
	// LogFile takes the server's own log, one JSON object a line; empty means Dir/temporal.log.
	// Nothing is written to the terminal.
	LogFile string
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, errors.New("temporal: Options.Dir is empty: name a directory for the server's file")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return o, fmt.Errorf("temporal: directory %s: %w", o.Dir, err)
	}
	o.Dir = dir
	o.IP = cmp.Or(o.IP, "127.0.0.1")
	o.Namespace = cmp.Or(o.Namespace, "default")
	o.Retention = cmp.Or(o.Retention, 30*24*time.Hour)
	o.LogFile = cmp.Or(o.LogFile, filepath.Join(o.Dir, "temporal.log"))
	if ip := net.ParseIP(o.IP); ip == nil || !ip.IsLoopback() {
		return o, fmt.Errorf("temporal: refusing to listen on %q: the embedded server has no authentication and binds to a loopback address only; use 127.0.0.1", o.IP)
	}
	if o.Retention < 24*time.Hour {
		return o, fmt.Errorf("temporal: retention %v is too short: at least 24h, or a finished run is gone before anyone has looked at it", o.Retention)
	}
	if _, err := namespaceConfig(o); err != nil {
		return o, err
	}
	if o.Postgres != nil {
		p, err := o.Postgres.withDefaults()
		if err != nil {
			return o, err
		}
		o.Postgres = &p
	}
	return o, nil
}

// Server is a running Temporal server.
type Server struct {
	Address     string // host:port of the gRPC frontend, for client.Options.HostPort
	HTTPAddress string // host:port of the frontend's JSON API
	UIURL       string // http://host:port of the Web UI

	srv     temporal.Server
	started chan struct{} // closed when srv.Start has come back
	ui      *uiserver.Server
	unlock  func() error
	log     *serverLog
	stop    sync.Once
	stopErr error
}

// Start runs a server and returns when a client can start a workflow on the namespace.
// ctx bounds the start only. On an error nothing is left running and the directory is unlocked.
func Start(ctx context.Context, o Options) (s *Server, err error) {
	if o, err = o.withDefaults(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("temporal: make directory: %w", err)
	}
	s = &Server{}
	if s.unlock, err = lockDir(o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			// What stands half must come down, also when ctx is what ended the start.
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
			defer cancel()
			err = errors.Join(err, s.Stop(stop))
			s = nil
		}
	}()
	if s.log, err = openLog(o.LogFile); err != nil {
		return s, err
	}
	p, err := choosePorts(o)
	if err != nil {
		return s, err
	}
	defer func() { _ = p.uiHeld.Close() }() // a second time, if the UI has it
	if o.Postgres != nil {
		err = o.Postgres.prepare(ctx, s.log.logger)
	} else {
		err = prepareFile(o)
	}
	if err != nil {
		return s, err
	}
	var srv temporal.Server
	if err := s.survive(func() (err error) { // it takes the first port here
		srv, err = newServer(o, p, s.log.logger)
		return err
	}); err != nil {
		return s, fmt.Errorf("temporal: configure the server: %w; its log is %s", err, s.log.path)
	}
	if err := s.startServer(ctx, srv); err != nil {
		return s, err
	}
	s.Address = p.address(o.IP, p.grpc)
	s.HTTPAddress = p.address(o.IP, p.http)
	s.UIURL = "http://" + p.address(o.IP, p.ui)
	if err := s.ready(ctx, o); err != nil {
		return s, err
	}
	// The UI ends the whole process when its port is taken, so nobody gets a chance until now.
	if err := p.uiHeld.Close(); err != nil {
		return s, fmt.Errorf("temporal: hand the UI its port: %w", err)
	}
	s.ui = startUI(o, p)
	if err := s.uiReady(ctx); err != nil {
		return s, err
	}
	return s, nil
}

// survive runs f, which a fatal log line ends: by the end of its goroutine, or by the panic that this makes of itself where
// the server waits for a value. By itself such a line would end the whole process.
func (s *Server) survive(f func() error) error {
	done, err := make(chan struct{}), errors.New("it ended before it was up")
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				select {
				case <-s.log.fatal:
				default:
					panic(r)
				}
			}
		}()
		err = f()
	}()
	<-done
	select {
	case <-s.log.fatal:
		return s.log.failure()
	default:
		return err
	}
}

// startServer runs srv.Start, and comes back also when the server gives up with a fatal log line,
// which by itself would end the whole process.
func (s *Server) startServer(ctx context.Context, srv temporal.Server) error {
	s.srv, s.started = srv, make(chan struct{})
	err := errors.New("it ended before it was up")
	go func() {
		defer close(s.started) // also when a fatal line ends this goroutine
		err = srv.Start()
	}()
	select {
	case <-s.started:
	case <-s.log.fatal:
		err = s.log.failure()
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("temporal: start the server: %w; its log is %s", err, s.log.path)
	}
	return nil
}

// Failed is closed when the server has met an error it cannot live with; Err tells which.
func (s *Server) Failed() <-chan struct{} { return s.log.fatal }

// Err is the error behind Failed, nil before it.
func (s *Server) Err() error {
	select {
	case <-s.log.fatal:
		return fmt.Errorf("temporal: the server failed: %w; its log is %s", s.log.err, s.log.path)
	default:
		return nil
	}
}

// Stop ends the UI and the server (about a second) and unlocks the directory. When ctx ends first, the server is
// still going down in the background, the directory stays locked and ctx's error is returned. Later calls give the same answer.
func (s *Server) Stop(ctx context.Context) error {
	s.stop.Do(func() { s.stopErr = s.stopOnce(ctx) })
	return s.stopErr
}

func (s *Server) stopOnce(ctx context.Context) error {
	if s.ui != nil {
		s.ui.Stop()
	}
	var err error
	if s.srv != nil {
		stopped := make(chan error, 1)
		go func() {
			<-s.started // a server must not be stopped while it starts
			stopped <- s.srv.Stop()
		}()
		select {
		case err = <-stopped:
		case <-ctx.Done():
			return fmt.Errorf("temporal: stop the server: %w", context.Cause(ctx))
		}
		if err != nil {
			err = fmt.Errorf("temporal: stop the server: %w", err)
		}
	}
	if s.log != nil {
		err = errors.Join(err, s.log.close())
	}
	return errors.Join(err, s.unlock())
}
