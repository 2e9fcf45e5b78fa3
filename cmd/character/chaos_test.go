package main_test

import (
	"runtime"
	"testing"

	"github.com/opencharacter/opencharacter/testenv/chaos"
)

// TestBehindBrokenNetwork makes a whole run whose worker reaches Temporal and S3 through proxies that lose, break, delay
// and tear calls, and compares every exported byte with an undisturbed run's. `make chaos` does the same with kills.
func TestBehindBrokenNetwork(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("finds processes in /proc")
	}
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	r := &chaos.Runner{Exe: bin, Dir: t.TempDir()}
	if err := r.Undisturbed(t.Context()); err != nil {
		t.Fatal(err)
	}
	res := r.Round(t.Context(), chaos.Plan{Seed: 7, Apart: true, Network: true})
	if res.Outcome != chaos.Same {
		t.Errorf("%s: %s", res.Outcome, res.Detail)
	}
	faults := 0
	for k, n := range res.Network {
		if k != "s3 calls" && k != "temporal connections" {
			faults += n
		}
	}
	if faults < 20 {
		t.Errorf("the network was not broken: %v", res.Network)
	}
}
