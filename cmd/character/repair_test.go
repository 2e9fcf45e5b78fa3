package main_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencharacter/opencharacter/testenv/s3server"
)

// TestMain lets this test binary be the S3 server's process too, and removes what the tests share.
func TestMain(m *testing.M) {
	if s3server.IsChild() {
		s3server.Main(m)
	}
	code := m.Run()
	if killed.dir != "" {
		_ = os.RemoveAll(killed.dir)
	}
	os.Exit(code)
}

// disturbed is a run that was killed in the middle of its DPO training, and the sums of one that was not.
type disturbed struct {
	model, data, want string
	finished          string // data directory of the undisturbed run
}

var killed struct {
	once sync.Once
	dir  string
	d    disturbed
}

// killedRun makes the two runs once for all tests; each test works on a copy.
func killedRun(t *testing.T) disturbed {
	t.Helper()
	killed.once.Do(func() {
		dir, err := os.MkdirTemp("", "killed")
		if err != nil {
			t.Fatal(err)
		}
		killed.dir = dir
		quiet := newMachine(t)
		keep := func(from, name string) string {
			to := filepath.Join(dir, name)
			if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v\n%s", err, out)
			}
			return to
		}
		quiet.model = keep(quiet.model, "model")
		quiet.must(quiet.runArgs("tiny")...)
		m := &machine{t: t, bin: quiet.bin, data: filepath.Join(t.TempDir(), "data"), model: quiet.model}
		killAll(t, m.startUntil(m.runArgs("tiny"), inStage("dpo")))
		killed.d = disturbed{model: quiet.model, want: quiet.sums("tiny"), data: keep(m.data, "data"), finished: keep(quiet.data, "finished")}
	})
	if killed.d.want == "" {
		t.Fatal("the runs that this test works on failed in another test")
	}
	return killed.d
}

// inStage is true for a line of a stage that has made something.
func inStage(stage string) func(string) bool {
	return func(line string) bool {
		f := strings.Fields(line)
		return len(f) > 3 && f[1] == stage && f[2] == "running" && !strings.HasPrefix(f[3], "0/")
	}
}

// copyOf is a machine on a copy of a data directory.
func copyOf(t *testing.T, d disturbed, from string) *machine {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, bin: bin, data: filepath.Join(t.TempDir(), "data"), model: d.model}
	if out, err := exec.Command("cp", "-a", from, m.data).CombinedOutput(); err != nil { // with the attributes in which S3 keeps its own
		t.Fatalf("cp: %v\n%s", err, out)
	}
	return m
}

// bucket finds the files of objects.
func (m *machine) bucket(pattern string) []string {
	m.t.Helper()
	found, err := filepath.Glob(filepath.Join(m.data, "s3", "character", filepath.FromSlash(pattern)))
	if err != nil || len(found) == 0 {
		m.t.Fatalf("no object is like %s: %v", pattern, err)
	}
	return found
}

func truncate(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(p, st.Size()/2); err != nil {
			t.Fatal(err)
		}
	}
}

func flip(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 4
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// fails runs a command that must fail, and returns all that it says.
func (m *machine) fails(args ...string) string {
	m.t.Helper()
	out, err := m.command(args...).CombinedOutput()
	if err == nil {
		m.t.Errorf("character %s went well:\n%s", strings.Join(args, " "), out)
	}
	if strings.Contains(string(out), "goroutine ") {
		m.t.Errorf("character %s panics:\n%s", strings.Join(args, " "), out)
	}
	return string(out)
}

// repaired repairs, and checks that the run ends with the bytes of the undisturbed one.
func (m *machine) repaired(want string) {
	m.t.Helper()
	out := m.must("repair")
	if !strings.Contains(out, "Run tiny is finished.") {
		m.t.Errorf("repair does not end the run:\n%s", out)
	}
	if got := m.sums("tiny"); got != want {
		m.t.Errorf("the export differs from the undisturbed run's:\n--- want\n%s--- got\n%s\nrepair said:\n%s", want, got, out)
	}
}

// TestRepairOfLostTemporal: Temporal's file is deleted or damaged in the middle of a run.
func TestRepairOfLostTemporal(t *testing.T) {
	t.Parallel()
	d := killedRun(t)
	for name, damage := range map[string]func(m *machine){
		"deleted": func(m *machine) {
			db := filepath.Join(m.data, "temporal", "temporal.db")
			remove(t, db, db+"-wal", db+"-shm")
		},
		"emptied": func(m *machine) {
			db := filepath.Join(m.data, "temporal", "temporal.db")
			remove(t, db+"-wal", db+"-shm")
			if err := os.Truncate(db, 0); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := copyOf(t, d, d.data)
			damage(m)
			if out := m.fails("doctor"); !strings.Contains(out, "temporal") || !strings.Contains(out, "character repair") {
				t.Errorf("doctor does not name it:\n%s", out)
			}
			m.repaired(d.want)
		})
	}
}

// TestRepairOfDamagedObjects: what a run had made is damaged while nothing runs.
func TestRepairOfDamagedObjects(t *testing.T) {
	t.Parallel()
	d := killedRun(t)
	for name, c := range map[string]struct {
		finished bool
		damage   func(t *testing.T, m *machine) []string // returns what doctor must name
		fails    bool                                    // a run that goes on without repair ends and names it
	}{
		"truncated part": {fails: true, damage: func(t *testing.T, m *machine) []string {
			truncate(t, m.bucket("parts/pairs/*.parquet")...)
			return []string{"parts/pairs/"}
		}},
		"part and table with flipped bits": {damage: func(t *testing.T, m *machine) []string {
			flip(t, m.bucket("parts/pairs/*.parquet")...)
			flip(t, m.bucket("datasets/*/dpo/train-*.parquet")...)
			return []string{"parts/pairs/"}
		}},
		"wrong HEAD of a training": {damage: func(t *testing.T, m *machine) []string {
			flip(t, m.bucket("train/*/*/HEAD.json")...)
			truncate(t, m.bucket("train/*/*/HEAD.json")...)
			return []string{"/HEAD.json"}
		}},
		"wrong HEAD of the run": {damage: func(t *testing.T, m *machine) []string {
			truncate(t, m.bucket("runs/tiny/HEAD.json")...)
			return []string{"runs/tiny/HEAD.json"}
		}},
		"broken index of a stage": {damage: func(t *testing.T, m *machine) []string {
			truncate(t, m.bucket("stages/preferences/*.json")...)
			return []string{"stages/preferences/"}
		}},
		"finished run, adapters and evaluation": {finished: true, damage: func(t *testing.T, m *machine) []string {
			truncate(t, m.bucket("adapters/*.safetensors")...)
			remove(t, m.bucket("evaluations/*.json")[0])
			return []string{"adapters/", "evaluations/"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			from := d.data
			if c.finished {
				from = d.finished
			}
			m := copyOf(t, d, from)
			names := c.damage(t, m)
			for _, command := range [][]string{{"doctor"}, {"repair", "--check"}} {
				out := m.fails(command...)
				for _, n := range names {
					if !strings.Contains(out, n) {
						t.Errorf("%s does not name %s:\n%s", command[0], n, out)
					}
				}
			}
			if c.fails {
				if out := m.fails("run", "--id", "tiny"); !strings.Contains(out, names[0]) || !strings.Contains(out, "`character repair tiny`") {
					t.Errorf("the run does not say how it can be mended:\n%s", out)
				}
			}
			m.repaired(d.want)
			if out := m.must("repair", "--check"); !strings.Contains(out, "Every object is whole.") {
				t.Errorf("after the repair:\n%s", out)
			}
		})
	}
}

// TestDamagedCheckpoint: a training whose newest checkpoint is damaged goes on from the one before without any repair.
func TestDamagedCheckpoint(t *testing.T) {
	t.Parallel()
	d := killedRun(t)
	m := copyOf(t, d, d.data)
	files := m.bucket("train/*/*/data/*/*/*.safetensors")
	truncate(t, files...)
	if out := m.must("repair", "--check"); !strings.Contains(out, "checkpoint before") {
		t.Errorf("repair --check does not name it:\n%s", out)
	}
	m.must("run", "--id", "tiny")
	if got := m.sums("tiny"); got != d.want {
		t.Errorf("the export differs:\n--- want\n%s--- got\n%s", d.want, got)
	}
}

// TestCollectGarbage removes all garbage of a killed run and of a finished one (as far as its age allows), and both end as they would have.
func TestCollectGarbage(t *testing.T) {
	t.Parallel()
	d := killedRun(t)
	m := copyOf(t, d, d.data)
	if out := m.fails("gc", "--older-than", "1m"); !strings.Contains(out, "at least 1h") {
		t.Errorf("a minute:\n%s", out)
	}
	if out := m.must("gc"); !strings.Contains(out, "Unfinished: tiny") || !strings.Contains(out, "0 of ") {
		t.Errorf("gc of a young bucket:\n%s", out)
	}
	m.age(t)
	if out := m.must("gc", "--delete"); !strings.Contains(out, "were removed") {
		t.Errorf("gc --delete:\n%s", out)
	}
	m.must("run", "--id", "tiny")
	m.age(t)
	before := m.must("gc")
	if !strings.Contains(before, "no run, stage or data set names it") {
		t.Errorf("gc of a finished run finds nothing:\n%s", before)
	}
	m.must("gc", "--delete")
	if out := m.must("gc"); !strings.Contains(out, "0 of ") {
		t.Errorf("after a collection:\n%s", out)
	}
	if got := m.sums("tiny"); got != d.want {
		t.Errorf("the export differs:\n--- want\n%s--- got\n%s", d.want, got)
	}
	if out := m.must("repair", "--check"); !strings.Contains(out, "Every object is whole.") {
		t.Errorf("after the collection:\n%s", out)
	}
}

// age makes all objects two days older.
func (m *machine) age(t *testing.T) {
	t.Helper()
	out, err := exec.Command("find", filepath.Join(m.data, "s3"), "-type", "f", "-exec", "touch", "-d", "2 days ago", "{}", "+").CombinedOutput()
	if err != nil {
		t.Fatalf("touch: %v\n%s", err, out)
	}
}
