package hub

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/safetensors"
)

// Info is what a model says about itself. A number is 0 and a text "" where it says nothing.
type Info struct {
	Path         string         `json:"path"`
	Format       string         `json:"format"`
	Name         string         `json:"name,omitempty"` // its own name for itself
	License      string         `json:"license,omitempty"`
	Architecture string         `json:"architecture"`
	Layers       int            `json:"layers"`
	Width        int            `json:"width"`
	Heads        int            `json:"heads"`
	KVHeads      int            `json:"kv_heads"`
	FFN          int            `json:"ffn"`
	Context      int            `json:"context"`
	Vocabulary   int            `json:"vocabulary"` // rows of the token embedding
	Tensors      int            `json:"tensors"`
	Parameters   int64          `json:"parameters"`
	Types        map[string]int `json:"types"` // tensors of each storage type
	Tokenizer    string         `json:"tokenizer"`
	ChatTemplate string         `json:"chat_template,omitempty"`
	Size         int64          `json:"size"`
}

// Inspect reads the header of a GGUF file or the files of a model folder; it reads no weights.
func Inspect(path string) (Info, error) {
	st, err := os.Stat(path)
	if err != nil {
		return Info{}, fmt.Errorf("hub: inspect: %w", err)
	}
	if st.IsDir() {
		i, err := inspectFolder(path)
		if err != nil {
			return Info{}, fmt.Errorf("hub: inspect %s: %w", path, err)
		}
		return i, nil
	}
	i, err := inspectGGUF(path)
	if err != nil {
		return Info{}, fmt.Errorf("hub: inspect: %w", err)
	}
	i.Size = st.Size()
	return i, nil
}

func inspectGGUF(path string) (Info, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return Info{}, err
	}
	if err := f.Close(); err != nil {
		return Info{}, err
	}
	text := func(key string) string { s, _ := f.Meta[key].(string); return s }
	arch := text("general.architecture")
	number := func(key string) int {
		switch v := f.Meta[arch+"."+key].(type) {
		case uint64:
			return int(min(v, 1<<40))
		case int64:
			return int(min(max(v, 0), 1<<40))
		}
		return 0
	}
	i := Info{
		Path: path, Format: "gguf", Architecture: arch, Name: text("general.name"), License: text("general.license"),
		Layers: number("block_count"), Width: number("embedding_length"), Heads: number("attention.head_count"),
		KVHeads: number("attention.head_count_kv"), FFN: number("feed_forward_length"), Context: number("context_length"),
		Tensors: len(f.Tensors), Types: map[string]int{}, ChatTemplate: text("tokenizer.chat_template"),
		Tokenizer: text("tokenizer.ggml.model"),
	}
	if pre := text("tokenizer.ggml.pre"); pre != "" {
		i.Tokenizer += " (" + pre + ")"
	}
	if t, ok := f.Tensors["token_embd.weight"]; ok {
		i.Vocabulary = t.Rows()
	}
	for _, t := range f.Tensors {
		i.Types[t.Type]++
		i.Parameters += int64(t.Rows()) * int64(t.Cols())
	}
	return i, nil
}

func inspectFolder(dir string) (Info, error) {
	text, err := readSmall(filepath.Join(dir, "config.json"))
	if err != nil {
		return Info{}, fmt.Errorf("%w; a model folder has config.json, tokenizer.json and safetensors weights", err)
	}
	var c struct {
		ModelType     string   `json:"model_type"`
		Architectures []string `json:"architectures"`
		NamePath      string   `json:"_name_or_path"`
		Layers        int      `json:"num_hidden_layers"`
		Width         int      `json:"hidden_size"`
		Heads         int      `json:"num_attention_heads"`
		KVHeads       int      `json:"num_key_value_heads"`
		FFN           int      `json:"intermediate_size"`
		Context       int      `json:"max_position_embeddings"`
		Vocab         int      `json:"vocab_size"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return Info{}, fmt.Errorf("config.json: %w", err)
	}
	i := Info{
		Path: dir, Format: "safetensors", Architecture: c.ModelType, Name: c.NamePath, Layers: c.Layers, Width: c.Width, Heads: c.Heads,
		KVHeads: c.KVHeads, FFN: c.FFN, Context: c.Context, Vocabulary: c.Vocab, Types: map[string]int{},
	}
	if i.Architecture == "" && len(c.Architectures) > 0 {
		i.Architecture = c.Architectures[0]
	}
	set, err := safetensors.OpenIndex(dir)
	if err != nil {
		return Info{}, err
	}
	i.Tensors = len(set.Tensors)
	for _, t := range set.Tensors {
		i.Types[t.DType]++
		i.Parameters += int64(t.Elements())
	}
	if err := set.Close(); err != nil {
		return Info{}, err
	}
	files, err := folderFiles(dir)
	if err != nil {
		return Info{}, err
	}
	for _, path := range files {
		st, err := os.Stat(path)
		if err != nil {
			return Info{}, err
		}
		i.Size += st.Size()
	}
	if i.Tokenizer, err = folderTokenizer(dir); err != nil {
		return Info{}, err
	}
	i.ChatTemplate, err = folderTemplate(dir)
	return i, err
}

// folderTokenizer names the kind of tokenizer.json.
func folderTokenizer(dir string) (string, error) {
	text, err := readSmall(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		return "", err
	}
	var t struct {
		Model struct{ Type string } `json:"model"`
	}
	if err := json.Unmarshal(text, &t); err != nil {
		return "", fmt.Errorf("tokenizer.json: %w", err)
	}
	return t.Model.Type, nil
}
