//go:build !noserver

package activities

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/s3server"
)

// TestHold: runs begin before and after a collection, and when its collector has died, but not in the middle.
func TestHold(t *testing.T) {
	server := s3server.Shared(t)
	s, err := store.Open(t.Context(), store.Config{Endpoint: server.Endpoint, Bucket: "activities", Prefix: "hold", AccessKey: server.AccessKey, SecretKey: server.SecretKey})
	if err != nil {
		t.Fatal(err)
	}
	d := &Data{Store: s}
	begin := func() error {
		_, err := d.ResolveSpec(t.Context(), ResolveInput{Spec: []byte(`{"constitution":"captain"}`)})
		return err
	}
	if err := begin(); err != nil {
		t.Fatal(err)
	}
	first, err := HoldRuns(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := begin(); err == nil || !strings.Contains(err.Error(), "begins when that is over") {
		t.Errorf("during a collection: %v", err)
	}
	second, err := HoldRuns(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	first.last = time.Time{}
	if err := first.Keep(t.Context()); !errors.Is(err, store.ErrFenced) {
		t.Errorf("two collectors: %v", err)
	}
	if err := second.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := begin(); err != nil {
		t.Errorf("after the collection: %v", err)
	}
}

// TestHoldOfTheDead: when a killed collector's hold ends. Only time that this process has seen pass counts, or an age by the server's
// clock that was watched for a while: that clock may have been set forward a minute ago.
func TestHoldOfTheDead(t *testing.T) {
	server := s3server.Shared(t)
	s, err := store.Open(t.Context(), store.Config{Endpoint: server.Endpoint, Bucket: "activities", Prefix: "dead", AccessKey: server.AccessKey, SecretKey: server.SecretKey})
	if err != nil {
		t.Fatal(err)
	}
	dead, err := HoldRuns(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	seenFor := func(d time.Duration) *collectors {
		c := &collectors{}
		c.still(dead.claim.Head(), time.Now().Add(-d))
		return c
	}
	file := filepath.Join(server.Dir, "activities", "dead", holdStream, "HEAD.json")
	old := time.Now().Add(-time.Hour)
	for _, c := range []struct {
		seen time.Duration
		old  bool
		held bool
	}{
		{seen: 0, held: true},
		{seen: holdLasts / 2, held: true},
		{seen: 0, old: true, held: true}, // the server's clock may have jumped
		{seen: holdSeen / 2, old: true, held: true},
	} {
		if c.old {
			if err := os.Chtimes(file, old, old); err != nil {
				t.Fatal(err)
			}
		}
		if err := seenFor(c.seen).held(t.Context(), s); (err != nil) != c.held {
			t.Errorf("%+v: %v", c, err)
		}
	}
	living := seenFor(2 * holdSeen)
	dead.last = time.Time{}
	if err := dead.Keep(t.Context()); err != nil { // it lives
		t.Fatal(err)
	}
	if err := os.Chtimes(file, old, old); err != nil {
		t.Fatal(err)
	}
	if err := living.held(t.Context(), s); err == nil {
		t.Error("a collector that has just renewed its hold was taken for dead")
	}
	if err := seenFor(2*holdSeen).held(t.Context(), s); err != nil {
		t.Errorf("an old hold that stood still: %v", err)
	}
	dead.last = time.Time{}
	if err := dead.Keep(t.Context()); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the collector that was taken for dead goes on: %v", err)
	}
	if err := (&collectors{}).held(t.Context(), s); err != nil {
		t.Errorf("after the hold was ended: %v", err)
	}
	// Without any help of the server's clock.
	if dead, err = HoldRuns(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := seenFor(holdLasts+time.Second).held(t.Context(), s); err != nil {
		t.Errorf("a hold that stood still for longer than it lasts: %v", err)
	}
}
