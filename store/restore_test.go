//go:build !noserver

package store_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/store"
)

// TestRestoreHead damages HEAD.json and commits in every way, restores, and goes on from there.
func TestRestoreHead(t *testing.T) {
	t.Parallel()
	write := func(b string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(b), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(t *testing.T, path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		head  func(t *testing.T, path string)
		files []string // of the newest commits, newest first: "" is whole, else the name of a file that is damaged
		step  int64    // that is restored
	}{
		"emptied":                      {write(""), nil, 3},
		"cut":                          {write(`{"epoch":1,"owner":"a","st`), nil, 3},
		"of something else":            {write(`{"hello":"world"}`), nil, 3},
		"deleted":                      {remove, nil, 3},
		"and a damaged file":           {write("?"), []string{"trainer.json"}, 2},
		"and a damaged commit":         {write("?"), []string{"commit.json", "commit.json"}, 1},
		"whole, but a file is damaged": {func(*testing.T, string) {}, []string{"trainer.json"}, 2},
		"nothing left":                 {write("?"), []string{"trainer.json", "trainer.json", "trainer.json"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t)
			s := open(t, cfg)
			ctx := t.Context()
			claim, err := s.Claim(ctx, "st", "a")
			if err != nil {
				t.Fatal(err)
			}
			var folders []string
			for step := int64(1); step <= 3; step++ {
				if err := claim.Commit(ctx, step, files(step), nil); err != nil {
					t.Fatal(err)
				}
				key := claim.Head().Files["trainer.json"].Key
				folders = append([]string{key[:strings.LastIndex(key, "/")+1]}, folders...)
			}
			if _, ok, err := s.RestoreHead(ctx, "st"); ok || err != nil {
				t.Fatalf("a whole stream: %v, %v", ok, err)
			}
			for i, f := range c.files {
				write("damaged")(t, file(t, cfg, folders[i]+f))
			}
			c.head(t, file(t, cfg, "st/HEAD.json"))
			bad, readErr := os.ReadFile(file(t, cfg, "st/HEAD.json"))
			r, ok, err := s.RestoreHead(ctx, "st")
			if err != nil || !ok || r.Head.Step != c.step || (r.From == "") != (c.step == 0) {
				t.Fatalf("restored %+v, %v, %v", r, ok, err)
			}
			if readErr == nil {
				if kept, err := os.ReadFile(file(t, cfg, r.Aside)); err != nil || !bytes.Equal(kept, bad) {
					t.Errorf("the damaged HEAD.json is not kept at %q: %v", r.Aside, err)
				}
			}
			if _, ok, err := s.RestoreHead(ctx, "st"); ok || err != nil {
				t.Errorf("a second time: %v, %v", ok, err)
			}
			// Who held the claim is fenced off, and the next goes on from what was restored.
			if err := claim.Commit(ctx, 9, files(9), nil); !errors.Is(err, store.ErrFenced) {
				t.Errorf("the old claim: %v", err)
			}
			next, err := s.Claim(ctx, "st", "b")
			if err != nil || next.Head().Step != c.step {
				t.Fatalf("next claim: %+v, %v", next, err)
			}
			if err := next.Commit(ctx, c.step+1, files(c.step+1), nil); err != nil {
				t.Fatal(err)
			}
			if got, err := s.ReadFiles(ctx, next.Head()); err != nil || !bytes.Equal(got["trainer.json"], files(c.step + 1)["trainer.json"]) {
				t.Error(err)
			}
		})
	}
}

// TestRemove: only what was listed goes, and nothing that was written since.
func TestRemove(t *testing.T) {
	t.Parallel()
	c := config(t)
	s := open(t, c)
	ctx := t.Context()
	if _, err := s.PutKey(ctx, "a/b", []byte("x")); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(ctx, "a/")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if o, age, err := s.Stat(ctx, "a/b"); err != nil || o != list[0] || age < 0 || age > time.Minute {
		t.Errorf("stat: %+v, %v, %v; listed %+v", o, age, err, list[0])
	}
	old := list[0]
	old.Modified = old.Modified.Add(-time.Hour)
	if err := s.Remove(ctx, old); !errors.Is(err, store.ErrChanged) {
		t.Errorf("an object that was written since: %v", err)
	}
	for range 2 {
		if err := s.Remove(ctx, list[0]); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := s.Stat(ctx, "a/b"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after its removal: %v", err)
	}
	now, ahead, err := s.Now(ctx)
	if err != nil || time.Since(now).Abs() > time.Minute || ahead.Abs() > time.Minute {
		t.Errorf("the server's clock: %v, %v ahead, %v", now, ahead, err)
	}
}

// TestPutMends: what was damaged in the store is replaced when the same data comes again; SetAside keeps the damaged bytes.
func TestPutMends(t *testing.T) {
	t.Parallel()
	c := config(t)
	s := open(t, c)
	ctx := t.Context()
	data := []byte("the bytes that the name promises")
	r, err := s.Put(ctx, "p", ".bin", data)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file(t, c, r.Key), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range [][]byte{nil, data[:7], append([]byte("x"), data[1:]...)} {
		damage(b)
		if _, err := s.Put(ctx, "p", ".bin", data); err != nil {
			t.Errorf("put over %q: %v", b, err)
		}
		if got, err := s.Get(ctx, r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("after %q: %q, %v", b, got, err)
		}
	}
	damage(data[:7])
	to, err := s.SetAside(ctx, r.Key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.GetKey(ctx, to); err != nil || !bytes.Equal(got, data[:7]) {
		t.Errorf("set aside at %s: %q, %v", to, got, err)
	}
	if _, err := s.Get(ctx, r); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the old place: %v", err)
	}
}
