package chaos

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestPlans: the same seed gives the same plan, and a few hundred seeds give everything.
func TestPlans(t *testing.T) {
	kinds, layouts, spread := map[string]int{}, map[string]int{}, [10]int{}
	const rounds = 1000
	for seed := range uint64(rounds) {
		p := NewPlan(seed, Kinds(), 0)
		if !reflect.DeepEqual(p, NewPlan(seed, Kinds(), 0)) {
			t.Fatalf("seed %d has two plans", seed)
		}
		if n := len(NewPlan(seed, Kinds(), 12).Faults); n != 12 {
			t.Errorf("seed %d: %d faults instead of 12", seed, n)
		}
		if len(p.Faults) < 1 || len(p.Faults) > 4 {
			t.Errorf("seed %d: %d faults", seed, len(p.Faults))
		}
		switch {
		case p.Network && p.Apart:
			layouts["network"]++
		case p.Apart:
			layouts["apart"]++
		default:
			layouts["one"]++
		}
		last := 0.
		for _, f := range p.Faults {
			kinds[f.Kind]++
			if f.Kind == StopWorker && f.For <= 20*time.Second {
				t.Errorf("seed %d: %s for %v is within the heartbeat timeout", seed, f.Kind, f.For)
			}
			if f.Work < 0 {
				kinds["early"]++
				continue
			}
			if f.Work < last || f.Work >= 1 {
				t.Errorf("seed %d: a fault at %v after one at %v", seed, f.Work, last)
			}
			last = f.Work
			spread[int(10*f.Work)]++
		}
	}
	for _, k := range append(Kinds(), "early") {
		if kinds[k] < 100 {
			t.Errorf("%d faults of kind %s in %d rounds", kinds[k], k, rounds)
		}
	}
	for _, l := range []string{"one", "apart", "network"} {
		if layouts[l] < 100 {
			t.Errorf("layout %s: %d", l, layouts[l])
		}
	}
	for i, n := range spread {
		if n < 100 {
			t.Errorf("%d faults in tenth %d of the run: %v", n, i, spread)
		}
	}
}

func TestWorkLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "work.jsonl")
	w := newWorkLog(path)
	if err := w.read(); err != nil || w.stage() != "start" { // no worker has begun
		t.Fatal(err, w.stage())
	}
	unit := func(at, activity, row string) string {
		return `{"at":"2026-01-02T03:04:` + at + `Z","workflow":"w","activity":"` + activity + `","attempt":1,"kind":"teacher","unit":"` + row + `"}` + "\n"
	}
	text := unit("01", "5", "a") + unit("02", "5", "b") + unit("11", "5", "a") + unit("12", "5", "c") + unit("21", "6", "c")
	write := func(s string) {
		if err := os.WriteFile(path, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := w.read(); err != nil {
			t.Fatal(err)
		}
	}
	write(text[:len(text)-5]) // a line is being written
	if len(w.units) != 4 {
		t.Errorf("%d units of four whole lines", len(w.units))
	}
	write(text)
	if len(w.units) != 5 || len(w.done) != 3 || w.stage() != "teacher" || w.biggest() != 4 {
		t.Errorf("%d units, %d different, stage %s, biggest %d", len(w.units), len(w.done), w.stage(), w.biggest())
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := w.redone([]time.Time{at, at.Add(10 * time.Second)})
	if want := []again{{1, 4}, {1, 3}, {}}; !reflect.DeepEqual(got, want) {
		t.Errorf("redone %v, want %v", got, want)
	}
	if got := w.redone(nil); got[0].units != 2 {
		t.Errorf("without a fault %v, want 2 units that nothing explains", got)
	}
	if first, ok := w.firstAfter(at); !ok || first.Second() != 11 {
		t.Errorf("first after %v: %v %v", at, first, ok)
	}
	if err := os.WriteFile(path, []byte(text+"{\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := w.read(); err == nil || !strings.Contains(err.Error(), "work log") {
		t.Errorf("a broken line: %v", err)
	}
}

func TestDiff(t *testing.T) {
	if d := diff("1 a\n2 b\n", "1 a\n3 b\n"); d != "-2 b\n+3 b\n" {
		t.Errorf("%q", d)
	}
	if d := diff("1 a\n", "1 a\n"); d != "" {
		t.Errorf("%q", d)
	}
}
