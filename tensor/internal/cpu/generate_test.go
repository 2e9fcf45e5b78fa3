package cpu_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestGenerated: the committed assembly is what its generator writes, byte for
// byte.
func TestGenerated(t *testing.T) {
	// Reading the sources makes them part of the test's cache key.
	sources, err := filepath.Glob("_asm/*")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no generator in _asm: %v", err)
	}
	for _, f := range sources {
		if _, err := os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go command to run the generator")
	}
	dir := t.TempDir()
	if out, err := exec.Command(tool, "run", "-C", "_asm", ".", "-out", dir).CombinedOutput(); err != nil {
		t.Fatalf("generator: %v\n%s", err, out)
	}
	made, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(made) < 5 {
		t.Fatalf("the generator wrote %v (%v)", made, err)
	}
	for _, f := range made {
		want, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Base(f))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what _asm writes (%v); run go generate ./tensor/internal/cpu", filepath.Base(f), err)
		}
	}
}
