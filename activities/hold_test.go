//go:build !noserver

package activities

import (
	"errors"
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

func FuzzNames(f *testing.F) {
	f.Add([]byte(`{"plan":{"key":"plans/a.json","sha256":"00","size":3},"stages":[{"parts":[{"key":"p","sha256":""}]}],"spec":{"prompts":"ref:uploads/x"}}`))
	f.Add([]byte(`[{"key":1,"sha256":2}]`))
	f.Add([]byte(`{"key":"k","sha256":"s","size":1e999}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		n := names(data)
		if n.err != nil && !lost(n.err) {
			t.Errorf("%v is not called damage", n.err)
		}
		for _, r := range n.refs {
			if r.Key == "" {
				t.Error("a ref without a key")
			}
		}
	})
}
