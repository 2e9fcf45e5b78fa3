package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

type childOptions struct {
	exe  string
	args []string
	log  string    // file that takes its output
	warn io.Writer // gets a line when it ends by itself
}

// child is a process that is started again whenever it ends, until stop.
type child struct {
	o        childOptions
	log      *os.File
	stopping chan struct{} // closed by stop
	kill     chan struct{} // closed when stop has waited long enough
	over     chan struct{} // closed when no process is left
}

func startChild(o childOptions) (*child, error) {
	f, err := os.OpenFile(o.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("worker log: %w", err)
	}
	c := &child{o: o, log: f, stopping: make(chan struct{}), kill: make(chan struct{}), over: make(chan struct{})}
	started := make(chan error, 1)
	go c.keep(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start the worker: %w", err)
	}
	return c, nil
}

// keep runs the process again and again. Its thread must live as long as the process: the kernel sends the
// parent-death signal when the thread that started the child ends.
func (c *child) keep(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(c.over)
	defer c.log.Close() //nolint:errcheck // every line was written by the child itself
	wait := 200 * time.Millisecond
	for first := true; ; first = false {
		began := time.Now()
		cmd := exec.Command(c.o.exe, c.o.args...)
		cmd.Stdout, cmd.Stderr = c.log, c.log
		ownGroup(cmd)
		err := cmd.Start()
		if first {
			started <- err
			if err != nil {
				return
			}
		}
		if err == nil {
			err = c.wait(cmd)
		}
		select {
		case <-c.stopping:
			return
		default:
		}
		if err == nil {
			err = errors.New("it stopped as if asked to")
		}
		if time.Since(began) > time.Minute {
			wait = 200 * time.Millisecond
		}
		fmt.Fprintf(c.o.warn, "The worker ended (%v) and is started again in %v. Its log: %s\n", err, wait, c.o.log)
		select {
		case <-c.stopping:
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, 30*time.Second)
	}
}

// wait waits for the end of the process, and passes stop's wishes on to it.
func (c *child) wait(cmd *exec.Cmd) error {
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-ended:
			return
		case <-c.stopping:
			_ = cmd.Process.Signal(syscall.SIGTERM) // if it has ended already, Wait says so
		}
		select {
		case <-ended:
		case <-c.kill:
			_ = cmd.Process.Kill()
		}
	}()
	return cmd.Wait()
}

// stop asks the process to end in order, and kills it after patience.
func (c *child) stop(patience time.Duration) {
	close(c.stopping)
	select {
	case <-c.over:
		return
	case <-time.After(patience):
	}
	close(c.kill)
	<-c.over
}
