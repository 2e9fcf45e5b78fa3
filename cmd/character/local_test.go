package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestWorkerArgs: what the operator says to `up` and `run` reaches the worker, as a command line that the worker takes.
func TestWorkerArgs(t *testing.T) {
	if got := (localOptions{}).workerArgs("d"); !slices.Equal(got, []string{"worker", "--data", "d", "--deployment=", "--build-id="}) {
		t.Errorf("nothing said: %q", got)
	}
	got := localOptions{models: "m", codecKeyFile: "k", allowPaths: []string{"p"}, allowURLs: []string{"u"}, stall: 90 * time.Second}.workerArgs("d")
	want := []string{"worker", "--data", "d", "--deployment=", "--build-id=", "--models", "m", "--codec-key-file", "k", "--allow-path", "p", "--allow-url", "u", "--stall", "1m30s"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	root := rootCmd()
	c, rest, err := root.Find(got)
	if err != nil || c.Name() != "worker" {
		t.Fatalf("%v %v", c, err)
	}
	if err := c.ParseFlags(rest); err != nil {
		t.Fatal(err)
	}
	if d, err := c.Flags().GetDuration("stall"); err != nil || d != 90*time.Second {
		t.Errorf("the worker's --stall is %v, %v", d, err)
	}
}

// TestStallIsChecked: a limit that no work could keep is refused by each command that takes one, before anything starts.
func TestStallIsChecked(t *testing.T) {
	for _, args := range [][]string{{"worker"}, {"up"}, {"run", "captain"}} {
		for _, limit := range []string{"-1s", "1ms"} {
			root := rootCmd()
			root.SetArgs(append(args, "--data", t.TempDir(), "--stall", limit))
			if err := root.ExecuteContext(t.Context()); err == nil || !isUsage(err) || !strings.Contains(err.Error(), "--stall "+limit) {
				t.Errorf("%s --stall %s: %v", args[0], limit, err)
			}
		}
	}
}

// TestRoomToStart: what works needs room, what reads or makes room needs next to none.
func TestRoomToStart(t *testing.T) {
	free := func(n uint64, err error) func(string) (uint64, error) {
		return func(string) (uint64, error) { return n, err }
	}
	for _, c := range []struct {
		free uint64
		work bool
		ok   bool
	}{{fullDisk, true, true}, {fullDisk - 1, true, false}, {fullDisk - 1, false, true}, {leastRoom - 1, false, false}, {0, false, false}} {
		err := roomToStart(t.TempDir(), c.work, free(c.free, nil))
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "is full") {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := roomToStart("nowhere/yet", true, free(0, errors.New("no such disk"))); err == nil || !strings.Contains(err.Error(), "no such disk") {
		t.Error(err)
	}
}
