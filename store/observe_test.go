//go:build !noserver

package store_test

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/opencharacter/opencharacter/store"
)

// TestObserve: every request is told of, also one that is tried again.
func TestObserve(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []string
	c := config(t)
	f := &flaky{base: http.DefaultTransport, status: 503}
	c.Transport = f
	c.Observe = func(r store.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.Operation+" "+r.Outcome)
		if r.Took < 0 {
			t.Errorf("it took %v", r.Took)
		}
	}
	s := open(t, c)
	said := func(want ...string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		got = nil
	}
	mu.Lock()
	got = nil // it may have made the bucket
	mu.Unlock()
	f.left.Store(1)
	if _, err := s.PutKey(t.Context(), "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	said("put throttled", "put ok")
	if _, err := s.GetKey(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	said("get ok")
	if _, err := s.GetKey(t.Context(), "none"); !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	said("get not_found")
	if _, err := s.PutKey(t.Context(), "k", []byte("other")); !errors.Is(err, store.ErrConflict) {
		t.Fatal(err)
	}
	said("put precondition", "get ok")
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	said("look for the bucket ok")
}
