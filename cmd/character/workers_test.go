package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// servers starts the servers of a machine without a worker.
func (m *machine) servers() {
	m.t.Helper()
	m.startUntil([]string{"up", "--no-worker"}, func(line string) bool { return strings.Contains(line, "Temporal UI") })
}

// worker starts a worker process of one thread and returns when it serves.
func (m *machine) worker(more ...string) *exec.Cmd {
	m.t.Helper()
	return m.startUntil(append([]string{"worker", "--threads", "1"}, more...), func(line string) bool { return strings.HasPrefix(line, "Serving") })
}

// background runs a command beside the test. ended gets its outcome.
func (m *machine) background(args ...string) (out *lockedBuffer, ended chan error) {
	m.t.Helper()
	c := m.command(args...)
	out, ended = &lockedBuffer{}, make(chan error, 1)
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = syscall.Kill(c.Process.Pid, syscall.SIGKILL) }) // gone already, as a rule
	go func() { ended <- c.Wait() }()
	return out, ended
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// wait waits for the outcome of a background command.
func (m *machine) wait(out *lockedBuffer, ended chan error) {
	m.t.Helper()
	select {
	case err := <-ended:
		if err != nil {
			m.t.Fatalf("%v\n%s", err, out)
		}
	case <-time.After(8 * time.Minute):
		m.t.Fatalf("it does not end:\n%s", out)
	}
}

// until waits until a background command has said something.
func (m *machine) until(out *lockedBuffer, ended chan error, said func(string) bool) {
	m.t.Helper()
	for range 3000 {
		if said(out.String()) {
			return
		}
		select {
		case err := <-ended:
			m.t.Fatalf("it ended (%v) before it said the wanted:\n%s", err, out)
		case <-time.After(100 * time.Millisecond):
		}
	}
	m.t.Fatalf("it never said the wanted:\n%s", out)
}

// TestWorkerFleets: the exported bytes do not depend on how many workers there are, nor on one that is killed and one
// that joins in the middle.
func TestWorkerFleets(t *testing.T) {
	t.Parallel()
	quiet := newMachine(t)
	quiet.must(quiet.runArgs("tiny")...)
	want := quiet.sums("tiny")
	fleet := func(t *testing.T) *machine {
		m := newMachine(t)
		m.model = quiet.model // its path is a part of the spec
		m.servers()
		return m
	}
	same := func(t *testing.T, m *machine, id string) {
		t.Helper()
		if got := m.sums(id); got != want {
			t.Errorf("the export differs from one worker's:\n--- want\n%s--- got\n%s", want, got)
		}
	}
	t.Run("one", func(t *testing.T) {
		m := fleet(t)
		m.worker()
		m.must(m.runArgs("tiny")...)
		same(t, m, "tiny")
	})
	t.Run("two", func(t *testing.T) {
		m := fleet(t)
		m.worker()
		m.worker()
		if out := m.must(m.runArgs("tiny")...); !strings.Contains(out, "chunks at once") {
			t.Errorf("two workers made no chunks beside each other:\n%s", out)
		}
		same(t, m, "tiny")
	})
	t.Run("four, one is killed and one joins", func(t *testing.T) {
		m := fleet(t)
		victim := m.worker()
		for range 3 {
			m.worker()
		}
		out, ended := m.background(m.runArgs("tiny")...)
		m.until(out, ended, func(s string) bool { return strings.Contains(s, "chunks at once") })
		killAll(t, victim)
		m.worker()
		m.wait(out, ended)
		same(t, m, "tiny")
	})
	// Two runs of one spec at the same time each train in a stream of their own; the first to end a stage keeps it, and
	// the other ends with the same bytes.
	t.Run("two runs at once", func(t *testing.T) {
		m := fleet(t)
		m.worker()
		m.worker()
		one, oneEnded := m.background(m.runArgs("one")...)
		two, twoEnded := m.background(m.runArgs("two")...)
		m.wait(one, oneEnded)
		m.wait(two, twoEnded)
		same(t, m, "one")
		same(t, m, "two")
	})
	// A worker of another machine may lack the model: the run goes on where it is. The path is one that every process
	// has its own sight of.
	t.Run("a worker without the model", func(t *testing.T) {
		if _, err := os.Stat("/proc/self/cwd"); err != nil {
			t.Skip("needs Linux's /proc to have two machines in one")
		}
		has, path := filepath.Dir(quiet.model), "/proc/self/cwd/"+filepath.Base(quiet.model)
		alone := newMachine(t)
		alone.dir, alone.model = has, path
		alone.must(alone.runArgs("tiny")...)
		m := fleet(t)
		m.dir, m.model = has, path
		m.worker()
		m.dir = t.TempDir()
		m.worker()
		m.dir = has
		out := m.must(m.runArgs("tiny")...)
		if !strings.Contains(out, "tried again, on another worker") {
			t.Errorf("the run does not show that a worker lacks the model:\n%s", out)
		}
		if got, want := m.sums("tiny"), alone.sums("tiny"); got != want {
			t.Errorf("the export differs:\n--- want\n%s--- got\n%s", want, got)
		}
	})
}
