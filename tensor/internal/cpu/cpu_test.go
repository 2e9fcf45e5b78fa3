package cpu_test

import (
	"os"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/tensor/internal/cpu"
	"github.com/opencharacter/opencharacter/tensor/internal/kernel/kerneltest"
)

// TestConformance runs the suite on every variant of this machine in both modes.
func TestConformance(t *testing.T) {
	have := map[string]bool{}
	for _, k := range cpu.Variants() {
		for _, k := range k.Modes() {
			have[k.Name()] = true
			t.Run(k.Name(), func(t *testing.T) { kerneltest.Run(t, k, cpu.SetThreads) })
		}
	}
	for word, name := range map[string]string{"avx512": "avx512", "avx2": "avx2", "avx512bf16": "avx512+bf16dp"} {
		if have[name] {
			continue
		}
		if strings.Contains(os.Getenv("CHARACTER_REQUIRE"), word) {
			t.Errorf("CHARACTER_REQUIRE asks for %s, but this machine or build has only %v", word, have)
		}
	}
}
