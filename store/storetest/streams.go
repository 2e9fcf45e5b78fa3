package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/opencharacter/opencharacter/store"
)

func probe(t *testing.T, b store.Backend) {
	if b.Where() == "" {
		t.Error("it does not say where it is")
	}
	if err := store.New(b).Probe(t.Context()); err != nil {
		t.Error(err)
	}
}

// content: objects that are named by their bytes, and keys that are written once.
func content(t *testing.T, b store.Backend) {
	s := store.New(b)
	one, err := s.Put(t.Context(), "parts", ".txt", []byte("some bytes"))
	if err != nil {
		t.Fatal(err)
	}
	if two, err := s.Put(t.Context(), "parts", ".txt", []byte("some bytes")); err != nil || two != one {
		t.Errorf("the same bytes are %v and %v, %v", one, two, err)
	}
	if data, err := s.Get(t.Context(), one); err != nil || string(data) != "some bytes" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := s.PutKey(t.Context(), "keys/x", []byte("a")); err != nil {
		t.Fatal(err)
	}
	if created, err := s.PutKey(t.Context(), "keys/x", []byte("a")); created || err != nil {
		t.Errorf("written again: created %v, %v", created, err)
	}
	if _, err := s.PutKey(t.Context(), "keys/x", []byte("b")); !errors.Is(err, store.ErrConflict) {
		t.Errorf("other bytes give %v, want store.ErrConflict", err)
	}
	aside, err := s.SetAside(t.Context(), "keys/x")
	if err != nil {
		t.Fatal(err)
	}
	if data, err := s.GetKey(t.Context(), aside); err != nil || string(data) != "a" {
		t.Errorf("set aside: %q, %v", data, err)
	}
	o, _, err := s.Stat(t.Context(), one.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), o); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), one); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("what was removed gives %v", err)
	}
}

func files(n int) map[string][]byte {
	return map[string][]byte{"a.bin": fmt.Append(nil, "a", n), "b/c.json": fmt.Append(nil, "c", n)}
}

func newest(t *testing.T, s *store.Store, stream string, step int64, n int) {
	t.Helper()
	h, ok, err := s.ReadHead(t.Context(), stream)
	if err != nil || !ok || h.Step != step {
		t.Fatalf("the stream is at step %d, %v, %v; want %d", h.Step, ok, err, step)
	}
	got, err := s.ReadFiles(t.Context(), h)
	if err != nil || string(got["a.bin"]) != string(files(n)["a.bin"]) || len(got) != 2 {
		t.Errorf("step %d has %q, %v", step, got, err)
	}
}

// fence: whoever was overtaken commits no more, and its successor begins where it was.
func fence(t *testing.T, b store.Backend) {
	s := store.New(b)
	if _, ok, err := s.ReadHead(t.Context(), "f/x"); ok || err != nil {
		t.Errorf("a stream that nobody claimed: %v, %v", ok, err)
	}
	first, err := s.Claim(t.Context(), "f/x", "first")
	if err != nil {
		t.Fatal(err)
	}
	for step := range 2 {
		if err := first.Commit(t.Context(), int64(step+1), files(step+1), map[string]int{"n": step}); err != nil {
			t.Fatal(err)
		}
	}
	second, err := s.Claim(t.Context(), "f/x", "second")
	if err != nil || second.Head().Step != 2 {
		t.Fatalf("%+v, %v", second.Head(), err)
	}
	for range 2 {
		if err := first.Commit(t.Context(), 3, files(30), nil); !errors.Is(err, store.ErrFenced) {
			t.Errorf("the one that was overtaken commits: %v", err)
		}
	}
	newest(t, s, "f/x", 2, 2)
	if err := second.Commit(t.Context(), 3, files(3), nil); err != nil {
		t.Fatal(err)
	}
	newest(t, s, "f/x", 3, 3)
	if h, ok := second.UsePrevious(); !ok || h.Step != 2 {
		t.Errorf("the commit before is %+v, %v", h, ok)
	}
}

// claims: of many that claim and commit at once, every commit that is said to have happened did, in the order of the epochs.
func claims(t *testing.T, b store.Backend) {
	s := store.New(b)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var last int64
	epochs := map[int64]bool{}
	for i := range 6 {
		wg.Go(func() {
			c, err := s.Claim(t.Context(), "c/x", fmt.Sprint("worker ", i))
			if err != nil {
				t.Error(err)
				return
			}
			epoch := c.Head().Epoch
			err = c.Commit(t.Context(), epoch, files(int(epoch)), nil)
			if err != nil && !errors.Is(err, store.ErrFenced) {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if epochs[epoch] {
				t.Errorf("two have claimed epoch %d", epoch)
			}
			epochs[epoch] = true
			if err == nil {
				last = max(last, epoch)
			}
		})
	}
	wg.Wait()
	newest(t, s, "c/x", last, int(last))
}

// restore: a lost HEAD is made again from the commits beside it.
func restore(t *testing.T, b store.Backend) {
	s := store.New(b)
	c, err := s.Claim(t.Context(), "r/x", "first")
	if err != nil {
		t.Fatal(err)
	}
	for step := range 2 {
		if err := c.Commit(t.Context(), int64(step+1), files(step+1), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Delete(t.Context(), "r/x/HEAD.json"); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.RestoreHead(t.Context(), "r/x"); !ok || err != nil {
		t.Fatalf("restored: %v, %v", ok, err)
	}
	newest(t, s, "r/x", 2, 2)
	if err := c.Commit(t.Context(), 3, files(3), nil); !errors.Is(err, store.ErrFenced) {
		t.Errorf("after a repair the old claim commits: %v", err)
	}
}
