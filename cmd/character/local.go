package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencharacter/opencharacter/testenv/stack"
	"github.com/opencharacter/opencharacter/workflows"
)

// localOptions says what to start on this machine.
type localOptions struct {
	data, models                           string // --data, --models
	temporalPort, httpPort, uiPort, s3Port int
	noWorker                               bool
	warn                                   io.Writer // gets a line when the worker ends by itself
}

// local is everything a run needs, on this machine: servers in this process and its children, and a worker.
type local struct {
	*stack.Stack
	exe    string
	o      localOptions
	worker *child
	done   chan struct{}
}

// startLocal starts the stack and a worker that is started again whenever it ends. ctx bounds the start only.
func startLocal(ctx context.Context, o localOptions) (*local, error) {
	attributes := map[string]string{}
	for _, name := range workflows.SearchAttributes() {
		attributes[name] = "Keyword"
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program to start it again: %w", err)
	}
	s, err := stack.Up(ctx, stack.Options{
		Dir: o.data, TemporalPort: o.temporalPort, HTTPPort: o.httpPort, UIPort: o.uiPort, S3Port: o.s3Port,
		UsualPorts: true, Exe: exe, SearchAttributes: attributes,
	})
	if err != nil {
		return nil, err
	}
	l := &local{Stack: s, done: make(chan struct{})}
	go watchDisk(s.Dir, o.warn, l.done)
	l.exe, l.o = exe, o
	if o.noWorker {
		return l, nil
	}
	if err := l.startWorker(); err != nil {
		return nil, errors.Join(err, l.stop())
	}
	return l, nil
}

// startWorker starts the worker, which is started again whenever it ends.
func (l *local) startWorker() (err error) {
	args := []string{"worker", "--data", l.Dir}
	if l.o.models != "" {
		args = append(args, "--models", l.o.models)
	}
	l.worker, err = startChild(childOptions{exe: l.exe, args: args, log: filepath.Join(l.Dir, "logs", "worker.log"), warn: l.o.warn})
	return err
}

// stop ends the worker, which first commits what it has, then the servers.
func (l *local) stop() error {
	close(l.done)
	if l.worker != nil {
		l.worker.stop(45 * time.Second)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return l.Stop(ctx)
}
