package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencharacter/opencharacter/testenv/s3server"
)

// s3 keeps the S3 server's process alive on one port.
type s3 struct {
	endpoint string
	log      *slog.Logger
	logFile  *os.File
	ctx      context.Context // ends at stop
	cancel   context.CancelFunc
	over     chan struct{} // closed when nobody watches any more

	mu     sync.Mutex
	server *s3server.Server
}

func startS3(ctx context.Context, o Options, keys credentials, addr string) (*s3, error) {
	so := s3server.Options{
		Dir: filepath.Join(o.Dir, "s3"), Addr: addr, AccessKey: keys.AccessKey, SecretKey: keys.SecretKey,
		Exe: o.Exe, Args: o.S3Args, Env: o.S3Env, LogFile: filepath.Join(o.Dir, "logs", "s3.log"),
	}
	server, err := s3server.Start(ctx, so)
	if err != nil {
		return nil, fmt.Errorf("stack: %w (the port of the embedded S3 server is --s3-port)", err)
	}
	so.Addr = strings.TrimPrefix(server.Endpoint, "http://")
	f, err := os.OpenFile(filepath.Join(o.Dir, "logs", "stack.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		server.Stop()
		return nil, fmt.Errorf("stack: %w", err)
	}
	s := &s3{endpoint: server.Endpoint, log: slog.New(slog.NewTextHandler(f, nil)), logFile: f, over: make(chan struct{}), server: server}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go s.watch(so)
	return s, nil
}

// watch starts the server again each time it ends, on the same port, so that clients only see a short outage.
func (s *s3) watch(o s3server.Options) {
	defer close(s.over)
	wait := time.Duration(0)
	for {
		s.mu.Lock()
		server := s.server
		s.mu.Unlock()
		began := time.Now()
		select {
		case <-s.ctx.Done():
			return
		case <-server.Done():
		}
		s.log.Warn("the S3 server ended and is started again", "error", server.Wait())
		if time.Since(began) > time.Minute {
			wait = 0
		}
		for {
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(wait):
			}
			wait = min(max(2*wait, 100*time.Millisecond), 5*time.Second)
			next, err := s3server.Start(s.ctx, o)
			if err == nil {
				s.log.Info("the S3 server runs again", "endpoint", next.Endpoint)
				s.mu.Lock()
				s.server = next
				s.mu.Unlock()
				break
			}
			if s.ctx.Err() != nil {
				return
			}
			s.log.Error("the S3 server does not start; next try soon", "in", wait, "error", err)
		}
	}
}

func (s *s3) stop() error {
	s.cancel()
	<-s.over
	s.server.Stop()
	if err := s.logFile.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("stack: %w", err)
	}
	return nil
}
