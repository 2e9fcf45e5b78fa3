//go:build !noserver

package activities

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/s3server"
)

// TestGarbageKeepsWhatLives drives random runs, commits, killed attempts and collections over one bucket, and reads
// everything that a run may still need after each collection.
func TestGarbageKeepsWhatLives(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed)
			removed := 0
			for range 60 {
				switch w.r.IntN(6) {
				case 0:
					w.begin()
				case 1, 2:
					w.work()
				case 3:
					w.kill()
				case 4:
					w.finish()
				case 5:
					removed += w.collect()
				}
			}
			for len(w.runs) > 0 {
				w.finish()
			}
			removed += w.collect()
			if removed == 0 {
				t.Error("nothing was ever removed: the test shows nothing")
			}
			if n := w.collect(); n != 0 {
				t.Errorf("a second collection of an idle bucket removes %d more", n)
			}
		})
	}
}

// world is a bucket with runs under way.
type world struct {
	t    *testing.T
	r    *rand.Rand
	s    *store.Store
	d    *Data
	runs []*fakeRun
	done []string
	next int
}

// fakeRun writes what a run's stages write, without computing.
type fakeRun struct {
	id      string
	plan    Plan
	planRef store.Ref
	claim   *store.Claim // of its training
	zombies []*store.Claim
	last    *store.Ref // its chain of chunks
	nodes   int
	record  Record
}

func newWorld(t *testing.T, seed uint64) *world {
	server := s3server.Shared(t)
	s, err := store.Open(t.Context(), store.Config{Endpoint: server.Endpoint, Bucket: "activities", Prefix: fmt.Sprintf("garbage/%d", seed), AccessKey: server.AccessKey, SecretKey: server.SecretKey})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, r: rand.New(rand.NewPCG(seed, 1)), s: s, d: &Data{Store: s}}
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) put(prefix, ext string, b []byte) store.Ref {
	w.t.Helper()
	r, err := w.s.Put(w.t.Context(), prefix, ext, b)
	w.check(err)
	return r
}

// begin starts a run of one of few plans, so that runs meet in the same objects.
func (w *world) begin() {
	w.next++
	kind := w.r.IntN(3)
	x := &fakeRun{id: fmt.Sprint("run-", w.next)}
	up := w.put("uploads", ".txt", fmt.Appendf(nil, "prompts %d", kind))
	x.plan = Plan{Name: "captain", Constitution: w.put("constitutions", ".json", fmt.Appendf(nil, `{"n":%d}`, kind)), Prompts: &up}
	x.plan.Spec.Seed = uint64(kind)
	var err error
	x.planRef, err = putJSON(w.t.Context(), w.s, "plans", x.plan)
	w.check(err)
	x.record = Record{ID: x.id, State: "running", Plan: x.planRef}
	if w.r.IntN(2) == 0 { // the record may come with the plan or after the first stage
		w.check(w.d.RecordRun(w.t.Context(), x.record))
	}
	w.claim(x)
	w.runs = append(w.runs, x)
}

func (w *world) claim(x *fakeRun) {
	c, err := w.s.Claim(w.t.Context(), checkpoints("key"+fmt.Sprint(x.plan.Spec.Seed), x.id), "attempt")
	w.check(err)
	x.claim = c
}

func (w *world) pick() *fakeRun {
	if len(w.runs) == 0 {
		w.begin()
	}
	return w.runs[w.r.IntN(len(w.runs))]
}

// work adds a chunk to a run's chain, or commits a checkpoint.
func (w *world) work() {
	x := w.pick()
	ctx := w.t.Context()
	if w.r.IntN(2) == 0 {
		part := w.put("parts/teacher", ".parquet", fmt.Appendf(nil, "plan %d chunk %d", x.plan.Spec.Seed, x.nodes))
		node, err := putJSON(ctx, w.s, "parts/teacher", chunk{Previous: x.last, Part: part, From: x.nodes, To: x.nodes + 1})
		w.check(err)
		x.last, x.nodes = &node, x.nodes+1
		return
	}
	step := x.claim.Head().Step + 1
	w.check(x.claim.Commit(ctx, step, map[string][]byte{"a.safetensors": fmt.Appendf(nil, "%s step %d", x.id, step), "trainer.json": []byte("{}")}, nil))
	if z := x.zombies; len(z) > 0 {
		if err := z[w.r.IntN(len(z))].Commit(ctx, step+1, map[string][]byte{"a.safetensors": []byte("zombie"), "trainer.json": []byte("{}")}, nil); !errors.Is(err, store.ErrFenced) {
			w.t.Errorf("zombie: %v", err)
		}
	}
}

// kill ends an attempt: another claims, and the old one still runs.
func (w *world) kill() {
	x := w.pick()
	x.zombies = append(x.zombies, x.claim)
	w.claim(x)
}

// finish ends a run: with a stage that is kept, or without (it failed).
func (w *world) finish() {
	i := 0
	if len(w.runs) == 0 {
		w.begin()
	}
	x := w.runs[i]
	w.runs = slices.Delete(w.runs, i, i+1)
	ctx := w.t.Context()
	x.record.State = "failed"
	if w.r.IntN(3) > 0 {
		x.record.State = "completed"
		st := Stage{Kind: KindPreferences, Key: fmt.Sprintf("%032d", x.plan.Spec.Seed), Folder: fmt.Sprintf("datasets/captain-dpo-%d", x.plan.Spec.Seed)}
		st.Parts = []store.Ref{w.put("parts/pairs", ".parquet", fmt.Appendf(nil, "pairs of %d", x.plan.Spec.Seed))}
		_, err := w.s.PutKey(ctx, st.Folder+"/dpo/train-00000-of-00001.parquet", []byte("table"))
		w.check(err)
		w.check(dataset.CommitManifest(ctx, w.s, st.Folder+"/__meta/manifest.json", dataset.Manifest{Kind: st.Kind, Parts: st.Parts}))
		kept, err := w.d.KeepStage(ctx, st)
		w.check(err)
		x.record.Stages = append(x.record.Stages, kept)
	} else if w.r.IntN(2) == 0 { // killed in the middle of a data set
		_, err := w.s.PutKey(ctx, "datasets/half-"+x.id+"/dpo/train-00000-of-00001.parquet", []byte("table"))
		w.check(err)
	}
	w.check(w.d.RecordRun(ctx, x.record))
	w.done = append(w.done, x.id)
}

// collect removes all garbage at once, whatever its age, and then reads what runs need.
func (w *world) collect() int {
	w.t.Helper()
	ctx := w.t.Context()
	idle := len(w.runs) == 0
	h, err := HoldRuns(ctx, w.s)
	w.check(err)
	v, err := TakeInventory(ctx, w.s)
	w.check(err)
	if !idle { // commits go on while garbage is removed
		w.work()
	}
	list, err := v.Garbage(time.Now().Add(time.Hour), 0, idle)
	w.check(err)
	for _, g := range list {
		if strings.HasPrefix(g.Key, "uploads/") || strings.HasPrefix(g.Key, "stages/") || strings.HasSuffix(g.Key, "/HEAD.json") {
			w.t.Fatalf("%s is called garbage: %s", g.Key, g.Why)
		}
		w.check(h.Keep(ctx))
		if err := w.s.Remove(ctx, g.Object); err != nil && !errors.Is(err, store.ErrChanged) {
			w.t.Fatal(err)
		}
	}
	w.check(h.Release(ctx))
	v, err = TakeInventory(ctx, w.s)
	w.check(err)
	for _, r := range v.Roots {
		if r.Err != nil {
			w.t.Fatalf("%s: %v", r.Key, r.Err)
		}
		for _, ref := range r.Refs {
			data, err := w.s.GetKey(ctx, ref.Key)
			if err == nil {
				err = matches(ref, data)
			}
			if err != nil {
				w.t.Fatalf("%s needs %s: %v", r.Key, ref.Key, err)
			}
		}
		if r.Kind == RootTraining { // what would restore it is there too
			for _, f := range r.Head.Files {
				if _, err := w.s.GetKey(ctx, f.Key[:strings.LastIndex(f.Key, "/")]+"/commit.json"); err != nil {
					w.t.Fatalf("%s: %v", r.Key, err)
				}
			}
		}
	}
	for _, x := range w.runs {
		if _, err := getPlan(ctx, w.s, x.planRef); err != nil {
			w.t.Fatalf("%s: %v", x.id, err)
		}
		nodes, err := chain(ctx, w.s, x.last)
		w.check(err)
		for _, n := range nodes {
			_, err := w.s.Get(ctx, n.Part)
			w.check(err)
		}
		_, err = w.s.ReadFiles(ctx, x.claim.Head())
		w.check(err)
	}
	for _, id := range w.done {
		_, _, err := ReadRecord(ctx, w.s, id)
		w.check(err)
	}
	return len(list)
}

// TestGarbageNeedsAllRoots: one root that cannot be read, and nothing is garbage.
func TestGarbageNeedsAllRoots(t *testing.T) {
	server := s3server.Shared(t)
	for _, key := range []string{"runs/x/HEAD.json", "train/k/w/HEAD.json", "stages/dpo/k.json", "datasets/d/__meta/manifest.json"} {
		s, err := store.Open(t.Context(), store.Config{Endpoint: server.Endpoint, Bucket: "activities", Prefix: "roots/" + filepath.Base(filepath.Dir(key)) + strings.Split(key, "/")[0], AccessKey: server.AccessKey, SecretKey: server.SecretKey})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Put(t.Context(), "parts/teacher", ".parquet", []byte("nobody names this")); err != nil {
			t.Fatal(err)
		}
		list := func() ([]Garbage, error) {
			v, err := TakeInventory(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			return v.Garbage(time.Now().Add(time.Hour), 0, true)
		}
		if g, err := list(); err != nil || len(g) != 1 {
			t.Fatalf("before: %v, %v", g, err)
		}
		if _, err := s.PutKey(t.Context(), key, []byte("{")); err != nil {
			t.Fatal(err)
		}
		if g, err := list(); err == nil || len(g) != 0 || !strings.Contains(err.Error(), key) {
			t.Errorf("with a broken %s: %v, %v", key, g, err)
		}
	}
}

// gate is a transport that stops writes of HEAD.json until it is opened.
type gate struct {
	shut    atomic.Bool
	arrived chan struct{}
	open    chan struct{}
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/HEAD.json") && g.shut.Load() {
		g.arrived <- struct{}{}
		<-g.open
	}
	return http.DefaultTransport.RoundTrip(r)
}

// TestGarbageLeavesACommitInFlight collects between the files of a commit and its HEAD.json.
func TestGarbageLeavesACommitInFlight(t *testing.T) {
	server := s3server.Shared(t)
	g := &gate{arrived: make(chan struct{}), open: make(chan struct{})}
	s, err := store.Open(t.Context(), store.Config{Endpoint: server.Endpoint, Bucket: "activities", Prefix: "in-flight", AccessKey: server.AccessKey, SecretKey: server.SecretKey, Transport: g})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Claim(t.Context(), "train/k/w", "a")
	if err != nil {
		t.Fatal(err)
	}
	commit := func(step int64) error {
		return c.Commit(t.Context(), step, map[string][]byte{"f": fmt.Append(nil, step)}, nil)
	}
	for step := range int64(3) {
		if err := commit(step + 1); err != nil {
			t.Fatal(err)
		}
	}
	g.shut.Store(true)
	ended := make(chan error, 1)
	go func() { ended <- commit(4) }()
	<-g.arrived
	v, err := TakeInventory(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	list, err := v.Garbage(time.Now().Add(time.Hour), 0, true)
	if err != nil || len(list) != 2 { // step 1: its file and its commit.json
		t.Errorf("garbage: %v, %v", list, err)
	}
	for _, o := range list {
		if err := s.Remove(t.Context(), o.Object); err != nil {
			t.Error(err)
		}
	}
	g.shut.Store(false)
	close(g.open)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if files, err := s.ReadFiles(t.Context(), c.Head()); err != nil || string(files["f"]) != "4" {
		t.Errorf("the commit in flight: %v, %v", files, err)
	}
}

// TestGarbageAge: what is younger than the limit stays.
func TestGarbageAge(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	v := &Inventory{Objects: map[string]store.Object{}}
	for key, age := range map[string]time.Duration{"old": 25 * time.Hour, "young": 23 * time.Hour, "future": -time.Hour} {
		k := "parts/pairs/" + shortHash(key) + shortHash(key+"2")
		k = k[:len("parts/pairs/")+24] + "00000000.parquet"
		v.Objects[k] = store.Object{Key: k, Modified: now.Add(-age)}
		if !contentNamed.MatchString(k) {
			t.Fatal(k)
		}
	}
	g, err := v.Garbage(now, 24*time.Hour, true)
	if err != nil || len(g) != 1 || now.Sub(g[0].Modified) != 25*time.Hour {
		t.Errorf("%v, %v", g, err)
	}
	if g, err := v.Garbage(now, 24*time.Hour, false); err != nil || len(g) != 0 {
		t.Errorf("while a run is unfinished: %v, %v", g, err)
	}
}
