package main_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFullDisk fills the disk of the data directory in the middle of a run. The run says what it waits for, and goes on
// to its end when there is room again.
func TestFullDisk(t *testing.T) {
	m := newMachine(t)
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=32M"); err != nil {
		if strings.Contains(os.Getenv("CHARACTER_REQUIRE"), "mount") {
			t.Fatal(err)
		}
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	m.data = filepath.Join(disk, "data")
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // read below by its name
	c := m.command(m.runArgs("full")...)
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() {
		select {
		case <-ended:
		default:
			for _, pid := range append(children(c.Process.Pid), c.Process.Pid) {
				_ = unix.Kill(pid, unix.SIGKILL) // one may be gone already
			}
			<-ended
		}
	})
	said := func(what string) string {
		t.Helper()
		for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
			b, err := os.ReadFile(log.Name())
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), what) {
				return string(b)
			}
			if time.Now().After(deadline) {
				t.Fatalf("%q is not said:\n%s\n%s", what, b, m.workerLog())
			}
		}
	}
	said("dpo ")
	filler, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = io.CopyN(filler, zeros{}, 1<<20)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	said("is full")
	if err := errors.Join(filler.Close(), os.Remove(filler.Name())); err != nil {
		t.Fatal(err)
	}
	said("Run full is finished.")
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
