//go:build !noserver

package store_test

import (
	"testing"

	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/store/storetest"
)

// TestS3: the backend of real runs keeps the rules that a program's must keep.
func TestS3(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Backend {
		b, err := store.S3(t.Context(), config(t))
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
}
