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
	reportPort                             int
	noWorker                               bool
	codecKeyFile                           string        // --codec-key-file
	allowPaths, allowURLs                  []string      // --allow-path, --allow-url, for the worker
	stall                                  time.Duration // --stall, for the worker; 0 = its default
	watched                                observed      // for the worker
	warn                                   io.Writer     // gets a line when the worker ends by itself
}

// local is everything a run needs, on this machine: servers in this process and its children, and a worker.
type local struct {
	*stack.Stack
	exe    string
	o      localOptions
	codec  *codecServer // nil without a key file
	live   *liveServer
	worker *child
	done   chan struct{}
}

// startLocal starts the stack and a worker that is started again whenever it ends. ctx bounds the start only.
func startLocal(ctx context.Context, o localOptions) (*local, error) {
	attributes := map[string]string{}
	for _, name := range workflows.SearchAttributes() {
		attributes[name] = "Keyword"
	}
	if err := roomToStart(o.data, !o.noWorker, freeBytes); err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program to start it again: %w", err)
	}
	var decrypt *codecServer
	endpoint := ""
	if o.codecKeyFile != "" {
		if o.codecKeyFile, err = filepath.Abs(o.codecKeyFile); err != nil {
			return nil, fmt.Errorf("--codec-key-file: %w", err)
		}
		if decrypt, err = listenCodec("127.0.0.1:0", o.codecKeyFile, o.warn); err != nil {
			return nil, err
		}
		endpoint = decrypt.url
	}
	s, err := stack.Up(ctx, stack.Options{
		Dir: o.data, TemporalPort: o.temporalPort, HTTPPort: o.httpPort, UIPort: o.uiPort, S3Port: o.s3Port,
		UsualPorts: true, Exe: exe, SearchAttributes: attributes, CodecEndpoint: endpoint,
	})
	if err != nil {
		return nil, errors.Join(err, decrypt.stop())
	}
	l := &local{Stack: s, codec: decrypt, done: make(chan struct{})}
	if l.live, err = listenLive(s.Dir, o.reportPort); err == nil {
		err = l.live.serve(s.Info, o.codecKeyFile, o.warn)
	}
	if err != nil {
		return nil, errors.Join(err, l.stop())
	}
	if decrypt != nil {
		if err := decrypt.serve(uiOrigins(s.UI)); err != nil {
			return nil, errors.Join(err, l.stop())
		}
	}
	go watchDisk(s.Dir, o.warn, l.done)
	go watchClock(o.warn, l.done)
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
	l.worker, err = startChild(childOptions{exe: l.exe, args: append(l.o.workerArgs(l.Dir), "--report-url", l.live.url), log: filepath.Join(l.Dir, "logs", "worker.log"), warn: l.o.warn})
	return err
}

// workerArgs are the arguments of the worker of the stack on dir.
func (o localOptions) workerArgs(dir string) []string {
	// Not versioned, whatever the environment says: nobody would make its version the current one.
	args := []string{"worker", "--data", dir, "--deployment=", "--build-id="}
	if o.models != "" {
		args = append(args, "--models", o.models)
	}
	if o.codecKeyFile != "" {
		args = append(args, "--codec-key-file", o.codecKeyFile)
	}
	for _, p := range o.allowPaths {
		args = append(args, "--allow-path", p)
	}
	for _, u := range o.allowURLs {
		args = append(args, "--allow-url", u)
	}
	if o.stall != 0 {
		args = append(args, "--stall", o.stall.String())
	}
	if o.watched.logs.Format != "" { // of a command that has these flags
		args = append(args, o.watched.args()...)
	}
	return args
}

// stop ends the worker, which first commits what it has, then the servers.
func (l *local) stop() error {
	close(l.done)
	if l.worker != nil {
		l.worker.stop(45 * time.Second)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return errors.Join(l.live.stop(), l.codec.stop(), l.Stop(ctx))
}
