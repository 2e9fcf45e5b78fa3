// Package chaos starts the built program as a user would and kills it as nobody should: kill -9 of a process and of
// everything it started. End-to-end tests use it; it knows nothing of what the program does.
//
// Build compiles once per test run, Start runs a command in a data directory of its own, WaitFor waits for a line of
// its output, Kill9 ends it. Start reading at Build.
package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var built struct {
	sync.Once
	dir, exe string
	err      error
}

// Build compiles package pkg (a path such as "." or "./cmd/character") and gives the program's path. It does so once
// a test run; call Clean at the end of TestMain. When prebuilt is not empty it is that path instead: the caller reads
// it from where it likes.
func Build(t testing.TB, pkg, prebuilt string) string {
	t.Helper()
	if prebuilt != "" {
		abs, err := filepath.Abs(prebuilt)
		if err == nil {
			_, err = os.Stat(abs)
		}
		if err != nil {
			t.Fatalf("chaos: the program given as built: %v", err)
		}
		return abs
	}
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "character-chaos-"); built.err != nil { //nolint:usetesting // it outlives the test that asks first
			return
		}
		built.exe = filepath.Join(built.dir, "character")
		out, err := exec.Command("go", "build", "-o", built.exe, pkg).CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
	})
	if built.err != nil {
		t.Fatalf("chaos: %v", built.err)
	}
	return built.exe
}

// Clean removes what Build made.
func Clean() error {
	if built.dir == "" {
		return nil
	}
	return os.RemoveAll(built.dir)
}

// Proc is a running program, first of a process group.
type Proc struct {
	PID  int
	t    testing.TB
	cmd  *exec.Cmd
	out  *output
	done chan struct{}
	err  error // valid after done
}

// Options of Start.
type Options struct {
	Dir string   // working directory; "" makes an empty one that the test removes
	Env []string // added to the environment
}

// Start runs exe with args in a process group of its own. When the test ends, whatever is left of it is killed, and
// its output is logged if the test failed.
func Start(t testing.TB, exe string, o Options, args ...string) *Proc {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	p := &Proc{t: t, cmd: exec.Command(exe, args...), out: newOutput(), done: make(chan struct{})}
	p.cmd.Dir = o.Dir
	p.cmd.Env = append(os.Environ(), o.Env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Children of a killed process may hold the pipe of its output.
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("chaos: start %s: %v", exe, err)
	}
	p.PID = p.cmd.Process.Pid
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
		p.out.end()
	}()
	t.Cleanup(func() {
		p.Kill9()
		if t.Failed() {
			t.Logf("output of %s:\n%s", strings.Join(p.cmd.Args, " "), p.Output())
		}
	})
	return p
}

// Run is Start and Wait: it gives the output and the exit code.
func Run(t testing.TB, exe string, o Options, timeout time.Duration, args ...string) (output string, code int) {
	t.Helper()
	p := Start(t, exe, o, args...)
	code = p.Wait(timeout)
	return p.Output(), code
}

// WaitFor waits until a whole line of the output matches pattern, and gives the submatches of the first such line, or the
// line when there are none. The test fails when the program ends or timeout passes before.
func (p *Proc) WaitFor(pattern string, timeout time.Duration) []string {
	p.t.Helper()
	re, err := regexp.Compile(pattern)
	if err != nil {
		p.t.Fatalf("chaos: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	m, err := p.out.find(ctx, re)
	if err != nil {
		p.t.Fatalf("chaos: waiting for %q: %v; it said:\n%s", pattern, err, p.Output())
	}
	return m
}

// Output is all that the program wrote so far, both streams.
func (p *Proc) Output() string { return p.out.text() }

// Done is closed when the program has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the program and gives its exit code, -1 after a signal.
func (p *Proc) Wait(timeout time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(timeout):
		p.t.Fatalf("chaos: %s still runs after %v; it said:\n%s", strings.Join(p.cmd.Args, " "), timeout, p.Output())
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) && !errors.Is(p.err, exec.ErrWaitDelay) {
		p.t.Fatalf("chaos: wait: %v", p.err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends a signal to the program alone, such as os.Interrupt for Ctrl-C.
func (p *Proc) Signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("chaos: signal: %v", err)
	}
}

// Kill9 kills the program, its process group, and on Linux all that they started, whatever group it is in, and returns
// when none is left. A second call does nothing.
func (p *Proc) Kill9() {
	p.t.Helper()
	select {
	case <-p.done:
		return // what it left was killed with it, or ended in order
	default:
	}
	tree := descendants(p.PID)
	_ = syscall.Kill(-p.PID, syscall.SIGKILL) // the group may be gone
	for _, pid := range tree {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-p.done
	deadline := time.Now().Add(10 * time.Second)
	for _, pid := range tree {
		for running(pid) {
			if time.Now().After(deadline) {
				p.t.Fatalf("chaos: process %d outlives kill -9", pid)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// Descendants are the processes that the program has started, and those that these have started. Linux only; none elsewhere.
func (p *Proc) Descendants() []int { return descendants(p.PID) }

func descendants(root int) []int {
	if runtime.GOOS != "linux" {
		return nil
	}
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is right
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if _, parent, ok := stat(pid); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	var out []int
	for todo := []int{root}; len(todo) > 0; {
		next := children[todo[0]]
		out, todo = append(out, next...), append(todo[1:], next...)
	}
	return out
}

func running(pid int) bool {
	state, _, ok := stat(pid)
	return ok && state != "Z"
}

// stat reads state and parent of a process.
func stat(pid int) (state string, parent int, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	// The name, in parentheses, may hold anything.
	_, err = fmt.Sscan(string(b[bytes.LastIndexByte(b, ')')+1:]), &state, &parent)
	return state, parent, err == nil
}
