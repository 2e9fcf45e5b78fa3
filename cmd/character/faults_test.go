package main_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

// childWith finds the descendant of a process whose command line holds a word.
func childWith(t *testing.T, c *exec.Cmd, word string) int {
	t.Helper()
	for _, pid := range children(c.Process.Pid) {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err == nil && slices.Contains(strings.Split(string(b), "\x00"), word) {
			return pid
		}
	}
	t.Fatalf("no child process has %q on its command line", word)
	return 0
}

// ended waits for the end of a run that startUntil started.
func ended(t *testing.T, c *exec.Cmd) {
	t.Helper()
	over := make(chan error, 1)
	go func() { over <- c.Wait() }()
	select {
	case <-over:
	case <-time.After(5 * time.Minute):
		t.Fatal("it does not end")
	}
}

// TestPartsKilledInARun kills one process in the middle of a run: the others go on, and the bytes are the same.
func TestPartsKilledInARun(t *testing.T) {
	t.Parallel()
	d := killedRun(t)
	for _, word := range []string{"worker", "_s3"} {
		t.Run(word, func(t *testing.T) {
			m := newMachine(t)
			m.model = d.model
			c := m.startUntil(m.runArgs("tiny"), inStage("dpo"))
			if err := syscall.Kill(childWith(t, c, word), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			ended(t, c)
			if got := m.sums("tiny"); got != d.want {
				t.Errorf("the export differs:\n--- want\n%s--- got\n%s", d.want, got)
			}
		})
	}
}

// TestTerminated: SIGTERM in the middle of a run. The worker commits what it has, and the next start goes on.
func TestTerminated(t *testing.T) {
	t.Parallel()
	d := killedRun(t)
	m := newMachine(t)
	m.model = d.model
	c := m.startUntil(m.runArgs("tiny"), inStage("dpo"))
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended(t, c)
	if code := c.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after SIGTERM; %s", code, m.workerLog())
	}
	m.must("run", "--id", "tiny")
	if got := m.sums("tiny"); got != d.want {
		t.Errorf("the export differs:\n--- want\n%s--- got\n%s", d.want, got)
	}
}

// TestModelChangedOrMissing: the model's file is another one, or gone, when a killed run goes on.
func TestModelChangedOrMissing(t *testing.T) {
	// Not beside others: it changes the model that they use.
	d := killedRun(t)
	aside := filepath.Join(t.TempDir(), "aside")
	t.Cleanup(func() { // other tests use it too
		if err := tinymodel.Write(d.model, 1); err != nil {
			t.Error(err)
		}
	})
	t.Run("changed", func(t *testing.T) {
		m := copyOf(t, d, d.data)
		if err := tinymodel.Write(d.model, 2); err != nil {
			t.Fatal(err)
		}
		if out := m.fails("doctor"); !strings.Contains(out, "has changed since the run began") {
			t.Errorf("doctor:\n%s", out)
		}
		// The run says what it waits for, and goes on by itself when the file is back.
		c := m.startUntil([]string{"run", "--id", "tiny"}, func(line string) bool { return strings.Contains(line, "put the same file there") })
		if err := tinymodel.Write(d.model, 1); err != nil {
			t.Fatal(err)
		}
		ended(t, c)
		if got := m.sums("tiny"); got != d.want {
			t.Errorf("the export differs:\n--- want\n%s--- got\n%s", d.want, got)
		}
	})
	t.Run("missing", func(t *testing.T) {
		m := copyOf(t, d, d.data)
		if err := os.Rename(d.model, aside); err != nil {
			t.Fatal(err)
		}
		if out := m.fails("doctor"); !strings.Contains(out, d.model) {
			t.Errorf("doctor:\n%s", out)
		}
		c := m.startUntil([]string{"run", "--id", "tiny"}, func(line string) bool {
			return strings.Contains(line, "no such file") && strings.Contains(line, d.model)
		})
		if err := os.Rename(aside, d.model); err != nil {
			t.Fatal(err)
		}
		ended(t, c)
		if got := m.sums("tiny"); got != d.want {
			t.Errorf("the export differs:\n--- want\n%s--- got\n%s", d.want, got)
		}
	})
	t.Run("missing for repair", func(t *testing.T) {
		m := copyOf(t, d, d.data)
		db := filepath.Join(m.data, "temporal", "temporal.db")
		remove(t, db, db+"-wal", db+"-shm")
		if err := os.Rename(d.model, aside); err != nil {
			t.Fatal(err)
		}
		if out := m.fails("repair", "tiny"); !strings.Contains(out, d.model) {
			t.Errorf("repair without the model:\n%s", out)
		}
		if err := os.Rename(aside, d.model); err != nil {
			t.Fatal(err)
		}
		m.must("repair", "tiny")
		if got := m.sums("tiny"); got != d.want {
			t.Errorf("the export differs:\n--- want\n%s--- got\n%s", d.want, got)
		}
	})
}

// TestBusyPort: a port that was asked for is taken, and one that was used last time is.
func TestBusyPort(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the test is over
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"--ui-port", "--temporal-port", "--s3-port"} {
		if out := m.fails("up", flag, port); !strings.Contains(out, port) || !strings.Contains(out, flag) {
			t.Errorf("up %s %s:\n%s", flag, port, out)
		}
	}
}
