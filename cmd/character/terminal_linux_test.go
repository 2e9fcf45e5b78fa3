package main_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// noTerminal skips a test that needs a pseudo-terminal, or fails it where CHARACTER_REQUIRE asks for pty.
func noTerminal(t *testing.T, err error) {
	t.Helper()
	if slices.Contains(strings.FieldsFunc(os.Getenv("CHARACTER_REQUIRE"), func(r rune) bool { return r == ',' || r == ' ' }), "pty") {
		t.Fatalf("CHARACTER_REQUIRE asks for pty, and there are no pseudo-terminals here: %v", err)
	}
	t.Skipf("no pseudo-terminals here: %v", err)
}

// terminal starts a command on a pseudo-terminal of a size, and gives what it has written so far and a way to type.
func (m *machine) terminal(width, height uint16, args ...string) (seen func() string, typed func(string), wait func() error) {
	m.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		noTerminal(m.t, err)
	}
	m.t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		m.t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width}); err != nil {
		m.t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		noTerminal(m.t, err)
	}
	c := m.command(args...)
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		m.t.Fatal(err)
	}
	_ = slave.Close()
	var mu sync.Mutex
	var out strings.Builder
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			mu.Lock()
			out.Write(buf[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	m.t.Cleanup(func() { _ = c.Process.Kill() })
	return func() string { mu.Lock(); defer mu.Unlock(); return out.String() },
		func(s string) { _, _ = master.WriteString(s) },
		func() error {
			select {
			case err := <-done:
				return err
			case <-time.After(time.Minute):
				return fmt.Errorf("it does not end")
			}
		}
}

// TestChatOnATerminal: columns on a wide terminal, and the arrow key brings the last message back.
func TestChatOnATerminal(t *testing.T) {
	d := killedRun(t)
	m := copyOf(t, d, d.finished)
	seen, typed, wait := m.terminal(120, 40, "chat", "tiny", "--compare", "--temperature", "0", "--max-tokens", "20")
	until := func(what string, ok func(string) bool) {
		t.Helper()
		for range 1200 {
			if ok(seen()) {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatalf("%s does not come:\n%q", what, seen())
	}
	prompts := func(n int) func(string) bool {
		return func(s string) bool { return strings.Count(s, "you> ") >= n && strings.HasSuffix(s, "you> ") }
	}
	until("the prompt", prompts(1))
	typed("Hello there\r")
	until("the answer", func(s string) bool { return strings.Count(s, " │ ") > 4 && strings.HasSuffix(s, "you> ") })
	typed("\x1b[A")
	until("the line before", func(s string) bool { return strings.Count(s, "Hello there") >= 2 })
	typed("\r")
	until("the second answer", func(s string) bool {
		return strings.Count(s, "character") >= 2 && strings.HasSuffix(s, "you> ")
	})
	typed("\x04")
	if err := wait(); err != nil {
		t.Errorf("after Ctrl-D: %v\n%q", err, seen())
	}
	if strings.Contains(seen(), "base> ") {
		t.Errorf("one below the other on a wide terminal:\n%q", seen())
	}
}
