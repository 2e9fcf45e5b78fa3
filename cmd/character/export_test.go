package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestExportFormats exports a run with all models and starts others from what came out: from its merged model, and from
// its Parquet rows.
func TestExportFormats(t *testing.T) {
	m := newMachine(t)
	m.must(m.runArgs("tiny")...)
	plain := m.sums("tiny")
	dir := filepath.Join(t.TempDir(), "export")
	m.must("export", "tiny", "--out", dir, "--format", "safetensors,gguf-bf16", "--format", "gguf-q8_0", "--format", "gguf-lora")
	for _, folder := range []string{".", "safetensors", "gguf-bf16", "gguf-q8_0", "gguf-lora"} {
		check := exec.Command("sha256sum", "--check", "--quiet", "SHA256SUMS")
		check.Dir = filepath.Join(dir, folder)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", folder, err, out)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil || string(b) != plain {
		t.Errorf("SHA256SUMS with models beside it differs (%v)", err)
	}
	if out := m.must("model", "inspect", filepath.Join(dir, "gguf-q8_0", "captain-q8_0.gguf")); !strings.Contains(out, "llama") {
		t.Errorf("model inspect:\n%s", out)
	}
	rows := func(table string) string {
		return filepath.Join(dir, "data", table, "train-00000-of-00001.parquet")
	}
	m.model = filepath.Join(dir, "safetensors")
	m.must(m.runArgs("second", "--pairs", rows("dpo"), "--introspection", rows("introspection"))...)
}
