package main_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disk is a small disk of its own for a data directory.
type disk struct {
	t      *testing.T
	dir    string
	filler string
}

// smallDisk mounts one; where that is not permitted the test is skipped.
func smallDisk(t *testing.T) *disk {
	t.Helper()
	d := &disk{t: t, dir: t.TempDir()}
	if err := unix.Mount("tmpfs", d.dir, "tmpfs", 0, "size=40M"); err != nil {
		if strings.Contains(os.Getenv("CHARACTER_REQUIRE"), "mount") {
			t.Fatal(err)
		}
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d.filler = filepath.Join(d.dir, "filler")
	return d
}

// fill takes the last byte of it.
func (d *disk) fill() {
	d.t.Helper()
	f, err := os.Create(d.filler)
	for err == nil {
		_, err = io.CopyN(f, zeros{}, 1<<16)
	}
	if !errors.Is(err, unix.ENOSPC) {
		d.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		d.t.Fatal(err)
	}
}

// free makes the room again.
func (d *disk) free() {
	d.t.Helper()
	if err := os.Remove(d.filler); err != nil {
		d.t.Fatal(err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// on is a machine whose data directory, with Temporal's file and the bucket, is on that disk.
func (d *disk) on(u disturbed) *machine {
	d.t.Helper()
	m := newMachine(d.t)
	m.model, m.data = u.model, filepath.Join(d.dir, "data")
	return m
}

// TestFullDisk fills the disk of the data directory in the middle of a run. The run says what it waits for, and goes on
// to its end when there is room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	u := killedRun(t)
	for _, stage := range []string{"preferences", "dpo", "introspection"} {
		t.Run(stage, func(t *testing.T) {
			d := smallDisk(t)
			m := d.on(u)
			run := m.session(m.runArgs("tiny")...)
			run.said(stage, inStage(stage))
			d.fill()
			run.said("the disk is full", has("runs wait"))
			out := m.fails("doctor")
			if !strings.Contains(out, "disk: full: 0 MB free") || !strings.Contains(out, "make room") {
				t.Errorf("doctor:\n%s", out)
			}
			d.free()
			run.said("there is room", has("there is room"))
			run.finished()
			m.same(t, "tiny", u.want)
		})
	}
}

// TestKilledOnFullDisk: everything is killed while the disk is full. Nothing is started until there is room; then `run`
// and `up` go on, and the bytes are the same.
func TestKilledOnFullDisk(t *testing.T) {
	t.Parallel()
	u := killedRun(t)
	for _, command := range []string{"run", "up"} {
		t.Run(command, func(t *testing.T) {
			d := smallDisk(t)
			m := d.on(u)
			run := m.session(m.runArgs("tiny")...)
			run.said("dpo", inStage("dpo"))
			d.fill()
			run.said("the disk is full", has("runs wait"))
			run.kill()
			for _, args := range [][]string{{"run", "--id", "tiny"}, {"up"}, {"repair"}, {"gc"}, {"status"}} {
				if out := m.fails(args...); !strings.Contains(out, "is full") || !strings.Contains(out, "make room") || !strings.Contains(out, "nothing already made is lost") {
					t.Errorf("character %s on a full disk:\n%s", args[0], out)
				}
			}
			if out := m.fails("doctor"); !strings.Contains(out, "disk: full") || strings.Contains(out, "damaged") {
				t.Errorf("doctor:\n%s", out)
			}
			d.free()
			if command == "run" {
				m.must("run", "--id", "tiny")
			} else {
				up := m.up(nil)
				m.reaches("tiny", "completed")
				killAll(t, up)
			}
			m.same(t, "tiny", u.want)
			if out := m.must("repair", "--check"); !strings.Contains(out, "Every object is whole.") {
				t.Errorf("after the full disk:\n%s", out)
			}
		})
	}
}

// reaches waits for a state of a run that another command serves.
func (m *machine) reaches(id, state string) {
	m.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		out, err := m.command("status", id, "--json").Output()
		var s struct{ Runs []struct{ State string } }
		if json.Unmarshal(out, &s) == nil && len(s.Runs) == 1 && s.Runs[0].State == state { // its stages have states of their own
			return
		}
		if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
			m.t.Fatal(err)
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("run %s does not become %s:\n%s\n%s", id, state, out, m.workerLog())
		}
	}
}
