//go:build !noserver

package activities

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/s3server"
)

// recordedRun is a bucket with one run whose preferences are done, and a training under way.
func recordedRun(t *testing.T, name string) (*store.Store, func(key string) string, Record, Stage) {
	t.Helper()
	server := s3server.Shared(t)
	cfg := store.Config{Endpoint: server.Endpoint, Bucket: "activities", Prefix: "check/" + name, AccessKey: server.AccessKey, SecretKey: server.SecretKey}
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := &Data{Store: s}
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	up, err := s.Put(ctx, "uploads", ".txt", []byte("What is the sea?\n"))
	must(err)
	c, err := s.Put(ctx, "constitutions", ".json", []byte(`{"name":"captain"}`))
	must(err)
	p := Plan{Name: "captain", Constitution: c, Prompts: &up}
	ref, err := putJSON(ctx, s, "plans", p)
	must(err)
	pairs := []dataset.Pair{{Prompt: []dataset.Message{{Role: "user", Content: "q"}}, Chosen: []dataset.Message{{Role: "assistant", Content: "Aye."}}, Rejected: []dataset.Message{{Role: "assistant", Content: "Yes."}}, ID: "1"}}
	st, err := d.keepPairs(ctx, p, Stage{Kind: KindPreferences, Key: strings.Repeat("1", 32), Rows: 1}, pairs)
	must(err)
	_, err = d.KeepStage(ctx, st)
	must(err)
	r := Record{ID: "tiny", State: "running", Plan: ref, Stages: []Stage{st}}
	must(d.RecordRun(ctx, Record{ID: "tiny", State: "running", Plan: ref}))
	must(d.RecordRun(ctx, r))
	claim, err := s.Claim(ctx, "train/k/w", "a")
	must(err)
	for step := range int64(2) {
		must(claim.Commit(ctx, step+1, map[string][]byte{"a.safetensors": fmt.Append(nil, "step ", step)}, nil))
	}
	return s, func(key string) string { return filepath.Join(server.Dir, cfg.Bucket, cfg.Prefix, key) }, r, st
}

func check(t *testing.T, s *store.Store, deep bool) []Damage {
	t.Helper()
	v, err := TakeInventory(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	d, err := v.Check(t.Context(), deep)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func headFile(t *testing.T, s *store.Store, stream, name string) string {
	t.Helper()
	h, ok, err := s.ReadHead(t.Context(), stream)
	if err != nil || !ok {
		t.Fatal(err)
	}
	return h.Files[name].Key
}

// TestDamage damages one object of each kind: it is found and named with its run and stage, and mended so that nothing is left to find but
// what the run makes again.
func TestDamage(t *testing.T) {
	for i, c := range []struct {
		name     string
		key      func(t *testing.T, s *store.Store, st Stage) string
		next     string
		run      bool // the run is named
		stage    bool // the stage's index is set aside
		harmless bool
	}{
		{"part", func(_ *testing.T, _ *store.Store, st Stage) string { return st.Parts[0].Key }, "makes its stage again", true, true, false},
		{"table", func(_ *testing.T, _ *store.Store, st Stage) string { return st.Folder + tableFile("dpo") }, "makes its stage again", true, true, false},
		{"manifest", func(_ *testing.T, _ *store.Store, st Stage) string { return st.Folder + "/__meta/manifest.json" }, "makes its stage again", true, true, false},
		{"index", func(_ *testing.T, _ *store.Store, st Stage) string { return stageObject(st.Kind, st.Key) }, "makes its stage again", true, true, false},
		{"head", func(*testing.T, *store.Store, Stage) string { return "runs/tiny/HEAD.json" }, "restores the commit before", true, false, false},
		{"record", func(t *testing.T, s *store.Store, _ Stage) string { return headFile(t, s, "runs/tiny", "run.json") }, "restores the commit before", true, false, false},
		{"training", func(*testing.T, *store.Store, Stage) string { return "train/k/w/HEAD.json" }, "restores the commit before", false, false, false},
		{"checkpoint", func(t *testing.T, s *store.Store, _ Stage) string {
			return headFile(t, s, "train/k/w", "a.safetensors")
		}, "checkpoint before", false, false, true},
	} {
		for how, damage := range map[string]func(b []byte) []byte{
			"cut":     func(b []byte) []byte { return b[:len(b)/2] },
			"flipped": func(b []byte) []byte { b[len(b)/2] ^= 4; b[0] ^= 4; return b },
			"deleted": nil,
		} {
			t.Run(c.name+" "+how, func(t *testing.T) {
				s, file, _, st := recordedRun(t, fmt.Sprintf("%d-%s", i, how))
				if d := check(t, s, true); len(d) != 0 {
					t.Fatalf("a whole bucket: %+v", d)
				}
				path := file(c.key(t, s, st))
				if damage == nil {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				} else {
					b, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, damage(bytes.Clone(b)), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if how == "deleted" && c.name == "index" { // the stage is simply made again
					if d := check(t, s, true); len(d) != 0 {
						t.Errorf("%+v", d)
					}
					return
				}
				got := check(t, s, true)
				if len(got) == 0 {
					t.Fatal("nothing is found")
				}
				d := got[0]
				if k, err := filepath.Rel(file(""), path); err != nil || d.Key != filepath.ToSlash(k) {
					t.Errorf("found %s, damaged %s (%v)", d.Key, k, err)
				}
				if !strings.Contains(d.Next, c.next) || d.Harmless != c.harmless || slices.Contains(d.Runs, "tiny") != c.run || (len(d.Stages) > 0) != c.stage {
					t.Errorf("%+v", d)
				}
				if _, err := Mend(t.Context(), s, d); err != nil {
					t.Fatal(err)
				}
				_, _, serr := s.Stat(t.Context(), stageObject(st.Kind, st.Key))
				if c.stage != (serr != nil) {
					t.Errorf("the stage's index: %v", serr)
				}
				switch {
				case c.harmless:
				case c.stage: // the run makes it again, with the same bytes
					pairs := []dataset.Pair{{Prompt: []dataset.Message{{Role: "user", Content: "q"}}, Chosen: []dataset.Message{{Role: "assistant", Content: "Aye."}}, Rejected: []dataset.Message{{Role: "assistant", Content: "Yes."}}, ID: "1"}}
					r, p, err := ReadRecord(t.Context(), s, "tiny")
					if err != nil {
						t.Fatal(err)
					}
					data := &Data{Store: s}
					again, err := data.keepPairs(t.Context(), p, Stage{Kind: KindPreferences, Key: st.Key, Rows: 1}, pairs)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := data.KeepStage(t.Context(), again); err != nil {
						t.Fatal(err)
					}
					if again.Parts[0] != r.Stages[0].Parts[0] {
						t.Errorf("made again as %+v, was %+v", again.Parts[0], r.Stages[0].Parts[0])
					}
					fallthrough
				default:
					if left := check(t, s, true); len(left) != 0 {
						t.Errorf("left: %+v", left)
					}
				}
				if c.name == "head" || c.name == "record" {
					if r, _, err := ReadRecord(t.Context(), s, "tiny"); err != nil || r.ID != "tiny" {
						t.Errorf("the record: %+v, %v", r, err)
					}
				}
			})
		}
	}
}

// TestDamageBySize: without reading them, objects that are missing or of another size are found.
func TestDamageBySize(t *testing.T) {
	s, file, _, st := recordedRun(t, "size")
	if err := os.Truncate(file(st.Parts[0].Key), 10); err != nil {
		t.Fatal(err)
	}
	d := check(t, s, false)
	if len(d) != 1 || !strings.Contains(d[0].What, "10 bytes") {
		t.Errorf("%+v", d)
	}
}

// TestDamageOfInputs: what only the user can give again is not set aside; the message says what to do.
func TestDamageOfInputs(t *testing.T) {
	for i, prefix := range []string{"uploads/", "plans/", "constitutions/"} {
		s, file, _, _ := recordedRun(t, fmt.Sprint("inputs-", i))
		v, err := TakeInventory(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		key := ""
		for k := range v.Objects {
			if strings.HasPrefix(k, prefix) {
				key = k
			}
		}
		if err := os.Truncate(file(key), 5); err != nil {
			t.Fatal(err)
		}
		got := check(t, s, true)
		if len(got) != 1 || got[0].Key != key || !strings.Contains(got[0].Next, "character run NAME --id") {
			t.Fatalf("%s: %+v", key, got)
		}
		if _, err := Mend(t.Context(), s, got[0]); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("mend %s: %v", key, err)
		}
	}
}
