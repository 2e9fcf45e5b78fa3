package hub_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/lm/safetensors"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

// folder makes a model folder with one tiny tensor.
func folder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tiny")
	write(t, filepath.Join(dir, "config.json"), []byte(`{"model_type":"llama","hidden_size":2,"num_hidden_layers":1,"vocab_size":3,"max_position_embeddings":64}`))
	write(t, filepath.Join(dir, "tokenizer.json"), []byte(`{"model":{"type":"BPE"}}`))
	write(t, filepath.Join(dir, "tokenizer_config.json"), []byte(`{"chat_template":"{{ messages }}"}`))
	var b bytes.Buffer
	err := safetensors.Write(&b, []safetensors.Entry{{Name: "model.embed_tokens.weight", DType: "F32", Shape: []int{3, 2}, Data: make([]byte, 24)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "model.safetensors"), b.Bytes())
	return dir
}

func TestResolveFolder(t *testing.T) {
	dir := folder(t)
	o := hub.Options{CacheDir: t.TempDir()}
	before, err := hub.Resolve(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if before.Name != "tiny" || before.Format != "safetensors" || len(before.SHA256) != 64 || before.Size == 0 {
		t.Errorf("%+v", before)
	}
	tok, meta, template, err := before.TokenizerSource()
	if err != nil || meta != nil || !bytes.Contains(tok, []byte("BPE")) || template != "{{ messages }}" {
		t.Errorf("TokenizerSource: %s %v %q %v", tok, meta, template, err)
	}
	info, err := hub.Inspect(dir)
	want := hub.Info{Path: dir, Format: "safetensors", Architecture: "llama", Layers: 1, Width: 2, Context: 64, Vocabulary: 3, Tensors: 1,
		Parameters: 6, Types: map[string]int{"F32": 1}, Tokenizer: "BPE", ChatTemplate: "{{ messages }}", Size: before.Size}
	if err != nil || !cmp.Equal(want, info) {
		t.Errorf("Inspect: %v\n%s", err, cmp.Diff(want, info))
	}
	// Everything that shapes the model changes the hash; chat_template.jinja wins over the configuration.
	write(t, filepath.Join(dir, "chat_template.jinja"), []byte("{{ other }}"))
	after, err := hub.Resolve(dir, o)
	if err != nil || after.SHA256 == before.SHA256 {
		t.Errorf("a new template changes nothing: %v", err)
	}
	if _, _, template, err = after.TokenizerSource(); err != nil || template != "{{ other }}" {
		t.Errorf("template %q %v", template, err)
	}
	write(t, filepath.Join(dir, "README.md"), []byte("words"))
	if again, err := hub.Resolve(dir, o); err != nil || again != after {
		t.Errorf("a README changes the model: %+v %v", again, err)
	}
}

func TestResolveRefuses(t *testing.T) {
	dir := t.TempDir()
	o := hub.Options{CacheDir: t.TempDir()}
	write(t, filepath.Join(dir, "notes.txt"), []byte("hello"))
	write(t, filepath.Join(dir, "empty.gguf"), nil)
	write(t, filepath.Join(dir, "model.safetensors"), []byte("12345678"))
	noWeights := folder(t)
	if err := os.Remove(filepath.Join(noWeights, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{"", "no model is named"},
		{"nonsense", "neither a known name (smollm2-135m-instruct) nor a path"},
		{dir, "config.json can not be read"},
		{noWeights, "has neither model.safetensors nor"},
		{filepath.Join(dir, "notes.txt"), "is not a GGUF file"},
		{filepath.Join(dir, "empty.gguf"), "is not a GGUF file"},
		{filepath.Join(dir, "model.safetensors"), "give its folder"},
		{"smollm2-135m-instruct", "character model pull smollm2-135m-instruct"},
	} {
		if _, err := hub.Resolve(c.path, o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Resolve(%q): %v, want %q", c.path, err, c.want)
		}
	}
}

// TestRememberedSum: the hash of an unchanged file is remembered; any change, even one that
// keeps size and modification time, is noticed.
func TestRememberedSum(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	o := hub.Options{CacheDir: t.TempDir()}
	write(t, path, []byte("GGUF one"))
	resolve := func() hub.Model {
		t.Helper()
		m, err := hub.Resolve(path, o)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if m := resolve(); m.SHA256 != hexSum([]byte("GGUF one")) || m.Name != "m" {
		t.Errorf("%+v", m)
	}
	sums := filepath.Join(o.CacheDir, "sums")
	if _, err := os.Stat(sums); err == nil {
		t.Error("the hash of a file that changed a moment ago is remembered")
	}
	time.Sleep(2100 * time.Millisecond)
	resolve()
	files, err := os.ReadDir(sums)
	if err != nil || len(files) != 1 {
		t.Fatalf("%d remembered hashes: %v", len(files), err)
	}
	// That it is really used shows when it is wrong.
	name := filepath.Join(sums, files[0].Name())
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lie := strings.Repeat("0", 64)
	write(t, name, bytes.Replace(text, []byte(hexSum([]byte("GGUF one"))), []byte(lie), 1))
	if m := resolve(); m.SHA256 != lie {
		t.Errorf("the remembered hash is not used: %s", m.SHA256)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, []byte("GGUF two"))
	if err := os.Chtimes(path, st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
	if m := resolve(); m.SHA256 != hexSum([]byte("GGUF two")) {
		t.Error("a change with the old modification time is not noticed")
	}
	write(t, name, []byte("{garbage"))
	if m := resolve(); m.SHA256 != hexSum([]byte("GGUF two")) {
		t.Error("a damaged memory is believed")
	}
}

func TestConfigTemplate(t *testing.T) {
	for _, c := range []struct{ config, template, fails string }{
		{`{}`, "", ""},
		{`{"chat_template":null}`, "", ""},
		{`{"chat_template":"a"}`, "a", ""},
		{`{"chat_template":[{"name":"tool_use","template":"t"},{"name":"default","template":"d"}]}`, "d", ""},
		{`{"chat_template":[{"name":"tool_use","template":"t"}]}`, "", `none is named "default"`},
		{`{"chat_template":7}`, "", "neither a text nor a list"},
		{`{"chat_template":`, "", "unexpected end"},
	} {
		got, err := hub.ConfigTemplate([]byte(c.config))
		if got != c.template || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %q %v", c.config, got, err)
		}
	}
}

func FuzzConfigTemplate(f *testing.F) {
	f.Add([]byte(`{"chat_template":"a"}`))
	f.Add([]byte(`{"chat_template":[{"name":"default","template":"d"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var got string
		var err error
		hostile.Bounds{}.Hold(t, len(text), func() { got, err = hub.ConfigTemplate(text) })
		if err != nil && got != "" {
			t.Errorf("%q and %v", got, err)
		}
	})
}

// TestRealModel looks into the demo's model.
func TestRealModel(t *testing.T) {
	path := os.Getenv("CHARACTER_TESTMODEL")
	if path == "" {
		if strings.Contains(os.Getenv("CHARACTER_REQUIRE"), "model") {
			t.Fatal("CHARACTER_REQUIRE asks for the real model, CHARACTER_TESTMODEL does not name it")
		}
		t.Skip("set CHARACTER_TESTMODEL to the SmolLM2-135M-Instruct Q4_1 GGUF file")
	}
	known := hub.Known()[0]
	m, err := hub.Resolve(path, hub.Options{CacheDir: t.TempDir()})
	if err != nil || m.SHA256 != known.SHA256 || m.Size != known.Size || m.Format != "gguf" {
		t.Fatalf("%+v %v", m, err)
	}
	tok, meta, template, err := m.TokenizerSource()
	if err != nil || tok != nil || len(meta) != 33 || !strings.Contains(template, "<|im_start|>") {
		t.Errorf("TokenizerSource: %d keys, template %q, %v", len(meta), template, err)
	}
	info, err := hub.Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	info.ChatTemplate = ""
	want := hub.Info{
		Path: path, Format: "gguf", Name: info.Name, License: "apache-2.0", Architecture: "llama", Layers: 30, Width: 576, Heads: 9, KVHeads: 3,
		FFN: 1536, Context: 8192, Vocabulary: 49152, Tensors: 272, Parameters: 134_515_008, Types: map[string]int{"Q4_1": 210, "F32": 61, "Q8_0": 1},
		Tokenizer: "gpt2 (smollm)", Size: known.Size,
	}
	if diff := cmp.Diff(want, info); diff != "" {
		t.Error(diff)
	}
}
