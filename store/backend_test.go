package store_test

import (
	"context"
	"testing"

	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/store/storetest"
)

// TestMemory: the backend of tests keeps the rules that a program's must keep.
func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Backend { return store.Memory() })
}

// careless forgets the conditions: the suite is not the only one that notices.
type careless struct{ store.Backend }

func (c careless) Write(ctx context.Context, key string, data []byte, nonce, _ string) (string, error) {
	_ = c.Delete(ctx, key)
	return c.Backend.Write(ctx, key, data, nonce, "")
}

func TestProbeOfABackend(t *testing.T) {
	if err := store.New(careless{store.Memory()}).Probe(t.Context()); err == nil {
		t.Error("a backend that ignores its conditions passes the probe")
	}
}
