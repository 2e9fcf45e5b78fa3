package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// session is a command that runs beside the test, with all that it says.
type session struct {
	m     *machine
	c     *exec.Cmd
	log   string // file with its output
	ended chan struct{}
	err   error // valid after ended
}

// session starts a command; it ends with the test at the latest.
func (m *machine) session(args ...string) *session {
	m.t.Helper()
	f, err := os.Create(filepath.Join(m.t.TempDir(), "log"))
	if err != nil {
		m.t.Fatal(err)
	}
	s := &session{m: m, c: m.command(args...), log: f.Name(), ended: make(chan struct{})}
	s.c.Stdout, s.c.Stderr = f, f
	err = s.c.Start()
	_ = f.Close() // the process has its own
	if err != nil {
		m.t.Fatal(err)
	}
	go func() { s.err = s.c.Wait(); close(s.ended) }()
	m.t.Cleanup(s.kill)
	return s
}

// pids are the process and all that it started.
func (s *session) pids() []int { return append(children(s.c.Process.Pid), s.c.Process.Pid) }

// kill ends all of it with -9.
func (s *session) kill() {
	select {
	case <-s.ended:
		return
	default:
	}
	for _, pid := range s.pids() {
		_ = syscall.Kill(pid, syscall.SIGKILL) // one may be gone already
	}
	<-s.ended
}

// output is what it has said so far.
func (s *session) output() string {
	s.m.t.Helper()
	b, err := os.ReadFile(s.log)
	if err != nil {
		s.m.t.Fatal(err)
	}
	return string(b)
}

// said waits until a line satisfies the condition.
func (s *session) said(what string, is func(line string) bool) {
	s.m.t.Helper()
	over := false
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		text := s.output()
		for line := range strings.Lines(text) {
			if is(line) {
				return
			}
		}
		if over || time.Now().After(deadline) {
			s.m.t.Fatalf("%s: it does not say so:\n%s\n%s", what, text, s.m.workerLog())
		}
		select {
		case <-s.ended:
			over = true // one look more
		default:
		}
	}
}

// has is a condition for said.
func has(what string) func(string) bool {
	return func(line string) bool { return strings.Contains(line, what) }
}

// finished waits for the end of a command that must succeed.
func (s *session) finished() {
	s.m.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(5 * time.Minute):
		s.m.t.Fatalf("it does not end:\n%s\n%s", s.output(), s.m.workerLog())
	}
	if s.err != nil {
		s.m.t.Fatalf("%v:\n%s\n%s", s.err, s.output(), s.m.workerLog())
	}
}

// same compares the export of a run with the sums of an undisturbed one.
func (m *machine) same(t *testing.T, id, want string) {
	t.Helper()
	if got := m.sums(id); got != want {
		t.Errorf("the export differs from the undisturbed run's:\n--- want\n%s--- got\n%s", want, got)
	}
}
