package cpu_test

import (
	"os"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/tensor/internal/cpu"
	"github.com/opencharacter/opencharacter/tensor/internal/kernel/kerneltest"
)

// TestConformance runs the suite on every variant of this machine.
func TestConformance(t *testing.T) {
	have := map[string]bool{}
	for _, k := range cpu.Variants() {
		have[k.Name()] = true
		t.Run(k.Name(), func(t *testing.T) { kerneltest.Run(t, k, cpu.SetThreads) })
	}
	for _, name := range []string{"avx512", "avx2"} {
		if have[name] {
			continue
		}
		if strings.Contains(os.Getenv("CHARACTER_REQUIRE"), name) {
			t.Errorf("CHARACTER_REQUIRE asks for %s, but this machine or build has only %v", name, have)
		}
	}
}
