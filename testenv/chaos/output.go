package chaos

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"
)

// output collects what a program writes and wakes those who wait for a line.
type output struct {
	mu    sync.Mutex
	buf   strings.Builder
	ended bool
	more  chan struct{} // closed and replaced at each change
}

func newOutput() *output { return &output{more: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(p)
	o.wake()
	return len(p), nil
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.wake()
}

func (o *output) wake() {
	close(o.more)
	o.more = make(chan struct{})
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// find waits for a whole line that matches re: its submatches, or the line itself when re has none.
func (o *output) find(ctx context.Context, re *regexp.Regexp) ([]string, error) {
	at := 0 // start of the first line not looked at
	for {
		o.mu.Lock()
		text, ended, more := o.buf.String(), o.ended, o.more
		o.mu.Unlock()
		for {
			line, _, whole := strings.Cut(text[at:], "\n")
			if !whole && !ended {
				break
			}
			if m := re.FindStringSubmatch(line); len(m) > 1 {
				return m[1:], nil
			} else if m != nil {
				return []string{line}, nil
			}
			if !whole {
				return nil, errors.New("the program ended before")
			}
			at += len(line) + 1
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
