package main_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/testenv/wallclock"
)

// shift sets the wall clock of running processes.
func shift(t *testing.T, by time.Duration, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		err := wallclock.Shift(pid, by)
		if errors.Is(err, wallclock.ErrUnsupported) && !strings.Contains(os.Getenv("CHARACTER_REQUIRE"), "wallclock") {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestClockJumps sets clocks in the middle of a run: of all processes, as when somebody sets the machine's, or of one side only,
// as between machines. The bytes are those of a run that nothing disturbed.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	u := killedRun(t)
	for name, jump := range map[string]func(t *testing.T, run *session){
		"an hour ahead": func(t *testing.T, run *session) {
			shift(t, time.Hour, run.pids()...)
			run.said("the jump", has("the clock went 1h0m0s ahead"))
		},
		"ahead and put right": func(t *testing.T, run *session) {
			shift(t, 30*time.Second, run.pids()...)
			run.said("the jump", has("the clock went 30s ahead"))
			shift(t, 0, run.pids()...)
			run.said("the jump", has("the clock was set back by 30s"))
		},
		"back, and the worker dies": func(t *testing.T, run *session) {
			shift(t, -30*time.Second, run.pids()...)
			if err := syscall.Kill(childWith(t, run.c, "worker"), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
		"the worker an hour ahead of its servers": func(t *testing.T, run *session) {
			shift(t, time.Hour, childWith(t, run.c, "worker"))
		},
		"the servers an hour ahead of the worker": func(t *testing.T, run *session) {
			worker := childWith(t, run.c, "worker")
			shift(t, time.Hour, slices.DeleteFunc(run.pids(), func(pid int) bool { return pid == worker })...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.model = u.model
			run := m.session(m.runArgs("tiny")...)
			run.said("dpo", inStage("dpo"))
			jump(t, run)
			run.finished()
			m.same(t, "tiny", u.want)
		})
	}
}

// TestClockSetBack: Temporal's timers, and so a run, may stand still until the clock is there again. Nothing is lost by it:
// started again when it is, or repaired without Temporal's file, the run ends with the same bytes.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	u := killedRun(t)
	for _, command := range []string{"run", "repair"} {
		t.Run(command, func(t *testing.T) {
			m := newMachine(t)
			m.model = u.model
			run := m.session(m.runArgs("tiny")...)
			run.said("dpo", inStage("dpo"))
			shift(t, -time.Hour, run.pids()...)
			run.said("the jump", has("the clock was set back by 1h0m0s"))
			run.kill()
			if command == "run" {
				m.must("run", "--id", "tiny")
			} else {
				if err := os.Rename(filepath.Join(m.data, "temporal"), filepath.Join(m.data, "temporal.aside")); err != nil {
					t.Fatal(err)
				}
				m.must("repair")
			}
			m.same(t, "tiny", u.want)
		})
	}
}
