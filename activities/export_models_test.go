//go:build !noserver

package activities

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

// finished records a run whose adapters are random, and returns its store, its model and where models are.
func finished(t *testing.T, stages ...string) *kit {
	t.Helper()
	k := newKit(t)
	p, err := getPlan(t.Context(), k.store, k.plan)
	if err != nil {
		t.Fatal(err)
	}
	r := Record{ID: "tiny", State: "completed", Plan: k.plan}
	for i, kind := range stages {
		st := Stage{Kind: kind, Key: kind, Values: map[string]float64{}}
		switch kind {
		case KindDPO, KindSFT:
			a := transformer.NewAdapter(p.Shape, 4+2*i, 4, uint64(i))
			random := rand.New(rand.NewPCG(uint64(i), 1))
			for _, m := range a.Matrices() {
				for j := range m.T.Data() {
					m.T.Data()[j] = float32(.1 * random.NormFloat64())
				}
			}
			files, err := a.PEFT("")
			if err != nil {
				t.Fatal(err)
			}
			st.Adapter = &AdapterRef{Files: map[string]store.Ref{}}
			for name, b := range files {
				if st.Adapter.Files[name], err = k.store.Put(t.Context(), "adapters", filepath.Ext(name), b); err != nil {
					t.Fatal(err)
				}
			}
		case KindEvaluation:
			m, err := putJSON(t.Context(), k.store, "evaluations", Measured{})
			if err != nil {
				t.Fatal(err)
			}
			st.Parts = []store.Ref{m, m, m}
			st.Values = map[string]float64{"held_out_rows": 4, "held_out_base": -3, "held_out_character": -2, "gain_character": 1, "index_character": 1.25}
		}
		r.Stages = append(r.Stages, st)
	}
	if err := k.data.RecordRun(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return k
}

// TestExportModels writes all formats beside the export, whose own files and sums stay as they are without any.
func TestExportModels(t *testing.T) {
	k := finished(t, KindDPO, KindSFT, KindEvaluation)
	dir := t.TempDir()
	plain, whole := filepath.Join(dir, "plain"), filepath.Join(dir, "whole")
	if _, err := Export(t.Context(), k.store, "tiny", plain); err != nil {
		t.Fatal(err)
	}
	var said []string
	models := Models{Formats: ModelFormats(), Hub: k.hub, Progress: func(f string) { said = append(said, f) }}
	if _, err := ExportWith(t.Context(), k.store, "tiny", whole, models); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(said, ModelFormats()) {
		t.Errorf("progress %v", said)
	}
	read := func(parts ...string) string {
		b, err := os.ReadFile(filepath.Join(parts...))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if a, b := read(plain, "SHA256SUMS"), read(whole, "SHA256SUMS"); a != b {
		t.Errorf("SHA256SUMS with models:\n%s\nwithout:\n%s", b, a)
	}
	for folder, files := range map[string][]string{
		"safetensors":     {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"},
		"safetensors-f32": {"config.json", "model.safetensors", "tokenizer.json"},
		"gguf-bf16":       {"captain-bf16.gguf"}, "gguf-q8_0": {"captain-q8_0.gguf"}, "gguf-lora": {"captain-lora.gguf", "captain-dpo-lora.gguf"},
	} {
		sums := read(whole, folder, "SHA256SUMS")
		for _, f := range append(files, "README.md") {
			if !strings.Contains(sums, "  "+f+"\n") {
				t.Errorf("%s: SHA256SUMS lacks %s:\n%s", folder, f, sums)
			}
		}
		check := exec.Command("sha256sum", "--check", "--quiet", "SHA256SUMS")
		check.Dir = filepath.Join(whole, folder)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", folder, err, out)
		}
		card := read(whole, folder, "README.md")
		for _, want := range []string{"---\n", "pipeline_tag: text-generation", "# captain", "constitution", "| final | -2.000 | +1.000 |", "index 1.25", "name no licence", `"preset"`} {
			if !strings.Contains(card, want) {
				t.Errorf("%s: the card lacks %q:\n%s", folder, want, card)
			}
		}
		if !strings.HasPrefix(card, "---\n") || strings.Count(card, "\n---\n") != 1 {
			t.Errorf("%s: no front matter:\n%s", folder, card)
		}
	}
	// What was written works like any other model: another run could start from it.
	for _, path := range []string{"safetensors", "safetensors-f32", "gguf-bf16/captain-bf16.gguf", "gguf-q8_0/captain-q8_0.gguf"} {
		if _, err := LoadModel(filepath.Join(whole, filepath.FromSlash(path)), "", k.hub); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := ExportWith(t.Context(), k.store, "tiny", filepath.Join(dir, "again"), models); err != nil {
		t.Fatal(err)
	}
	for _, f := range ModelFormats() {
		if read(whole, f, "SHA256SUMS") != read(dir, "again", f, "SHA256SUMS") {
			t.Errorf("%s: a second export has other bytes", f)
		}
	}
}

// TestExportModelsRefuses: nothing is left behind by what can not be written.
func TestExportModelsRefuses(t *testing.T) {
	k := finished(t, KindDPO)
	other := t.TempDir()
	if err := tinymodel.Write(filepath.Join(other, "tiny"), 2); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "out")
	refuse := func(k *kit, m Models, want string) {
		t.Helper()
		if _, err := ExportWith(t.Context(), k.store, "tiny", dir, m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", m.Formats, err, want)
		}
		if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) > 0 {
			t.Errorf("%v: left behind: %v %v", m.Formats, left, err)
		}
	}
	refuse(k, Models{Formats: []string{"onnx"}}, `format "onnx" is not known; there are safetensors`)
	refuse(k, Models{Formats: []string{FormatLoRA, FormatLoRA}}, "gguf-lora is named twice")
	refuse(k, Models{Formats: []string{FormatLoRA}, Hub: k.hub}, "no sft adapter yet")
	whole := finished(t, KindDPO, KindSFT)
	p, err := getPlan(t.Context(), whole.store, whole.plan)
	if err != nil {
		t.Fatal(err)
	}
	if err := tinymodel.Write(p.Model.Name, 2); err != nil { // other weights in the same place
		t.Fatal(err)
	}
	refuse(whole, Models{Formats: []string{FormatBF16}, Hub: whole.hub}, "put the same file there")
	if err := os.RemoveAll(p.Model.Name); err != nil {
		t.Fatal(err)
	}
	refuse(whole, Models{Formats: []string{FormatBF16}, Hub: hub.Options{CacheDir: t.TempDir()}}, "the base model's weights are needed")
}
