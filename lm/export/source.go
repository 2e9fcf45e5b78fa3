// Package export writes a model, with an adapter merged into it or beside it, in the forms that other programs open: a
// folder for Hugging Face's transformers, GGUF files for llama.cpp, and a GGUF adapter.
//
// Weights go from the base model's file to the new one row by row, so a model of any size needs the memory of its
// adapter and some megabytes. It knows nothing of runs and stores; who calls it gives a temporary folder a name when
// all of it is written.
//
// Start at [Open], then [Source.Safetensors], [Source.GGUF] and [Source.LoRA].
package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/lm/tokenizer"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// Source is an open base model: its weights, its tokenizer and what it says about itself.
type Source struct {
	Stream *transformer.Stream

	model    hub.Model
	file     *gguf.File // nil: a folder
	template string     // of the chat
	ids      map[string][]int32
}

// Options describe what is written. The zero value writes the base model under its own name.
type Options struct {
	// Name is how the model is called in the metadata; "" means the base model's name.
	Name string
	// Adapter is merged into the matrices (Safetensors, GGUF) or written itself (LoRA); nil merges nothing.
	Adapter *transformer.Adapter
	// EndTokens are the ids that end an answer, the chat template's first; nil means the base model's end token.
	EndTokens []int32
	// Float32 makes Safetensors keep matrices in float32, so that nothing of the adapter is rounded away.
	Float32 bool
	// Shard is the size at which a new safetensors file begins, in bytes; 0 means safetensors.DefaultShard.
	Shard int64
}

// Special tokens, by their names in tokenizer_config.json and, with "tokenizer.ggml." before and "_token_id" behind, in GGUF.
var specials = []struct{ hf, ggml string }{{"bos", "bos"}, {"eos", "eos"}, {"unk", "unknown"}, {"pad", "padding"}}

// Open opens a model that hub.Resolve found. Close it.
func Open(m hub.Model) (*Source, error) {
	s := &Source{model: m, ids: map[string][]int32{}}
	_, meta, template, err := m.TokenizerSource()
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	s.template = template
	if m.Format != "gguf" {
		if s.Stream, err = transformer.StreamSafetensors(m.Path); err != nil {
			return nil, fmt.Errorf("export: model %s: %w", m.Name, err)
		}
		if err := s.folderIDs(); err != nil {
			return nil, errors.Join(fmt.Errorf("export: model %s: %w", m.Name, err), s.Stream.Close())
		}
		return s, nil
	}
	if s.file, err = gguf.Open(m.Path); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	if s.Stream, err = transformer.StreamGGUF(s.file); err != nil {
		return nil, errors.Join(fmt.Errorf("export: model %s: %w", m.Name, err), s.file.Close())
	}
	for _, t := range specials {
		switch v := meta["tokenizer.ggml."+t.ggml+"_token_id"].(type) {
		case uint64:
			s.ids[t.hf] = []int32{int32(min(v, 1<<30))}
		case int64:
			if v >= 0 {
				s.ids[t.hf] = []int32{int32(min(v, 1<<30))}
			}
		}
	}
	return s, nil
}

// Close closes the model's files.
func (s *Source) Close() error {
	err := s.Stream.Close()
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
	}
	return err
}

// folderIDs reads the special tokens of a folder: the ids of config.json, or else the tokens of tokenizer_config.json.
func (s *Source) folderIDs() error {
	text, err := readSmall(filepath.Join(s.model.Path, "config.json"))
	if err != nil {
		return err
	}
	var config map[string]json.RawMessage
	if err := json.Unmarshal(text, &config); err != nil {
		return fmt.Errorf("config.json: %w", err)
	}
	if inner := config["text_config"]; len(inner) > 0 { // of a text and image model
		var more map[string]json.RawMessage
		if err := json.Unmarshal(inner, &more); err != nil {
			return fmt.Errorf("config.json: text_config: %w", err)
		}
		for k, v := range more {
			if _, ok := config[k]; !ok {
				config[k] = v
			}
		}
	}
	for _, t := range specials {
		var one *int32
		var many []int32
		raw := config[t.hf+"_token_id"]
		switch {
		case len(raw) == 0:
		case json.Unmarshal(raw, &one) == nil:
			if one != nil {
				s.ids[t.hf] = []int32{*one}
			}
		case json.Unmarshal(raw, &many) == nil:
			s.ids[t.hf] = many
		default:
			return fmt.Errorf("config.json: %s_token_id is %.100s; it must be a token id or a list of them", t.hf, raw)
		}
	}
	named, err := s.folderTokens()
	if err != nil {
		return err
	}
	for name, id := range named {
		if _, ok := s.ids[name]; !ok {
			s.ids[name] = []int32{id}
		}
	}
	return nil
}

// folderTokens gives the ids of the tokens that tokenizer_config.json names; none where there is no such file.
func (s *Source) folderTokens() (map[string]int32, error) {
	text, err := readSmall(filepath.Join(s.model.Path, "tokenizer_config.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var config map[string]json.RawMessage
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, fmt.Errorf("tokenizer_config.json: %w", err)
	}
	vocabulary, err := readSmall(filepath.Join(s.model.Path, "tokenizer.json"))
	if err != nil {
		return nil, err
	}
	tok, err := tokenizer.FromJSON(vocabulary)
	if err != nil {
		return nil, err
	}
	out := map[string]int32{}
	for _, t := range specials {
		raw := config[t.hf+"_token"]
		var token string
		if len(raw) == 0 || json.Unmarshal(raw, &token) != nil {
			var object struct {
				Content string `json:"content"`
			}
			if len(raw) == 0 || json.Unmarshal(raw, &object) != nil {
				continue
			}
			token = object.Content
		}
		if id, ok := tok.ID(token); ok && token != "" {
			out[t.hf] = id
		}
	}
	return out, nil
}

// ends are the ids that end an answer.
func (s *Source) ends(o Options) []int32 {
	if len(o.EndTokens) > 0 {
		return o.EndTokens
	}
	return s.ids["eos"]
}

// name is what the written model is called.
func (s *Source) name(o Options) string {
	if o.Name != "" {
		return o.Name
	}
	return s.model.Name
}

// merge prepares the stream.
func (s *Source) merge(o Options) error {
	if o.Adapter == nil {
		return nil
	}
	return s.Stream.Merge(o.Adapter)
}

// maxSmall bounds the files that are read whole, in bytes.
const maxSmall = 128 << 20

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err == nil && len(text) > maxSmall {
		err = fmt.Errorf("%s has more than %d bytes", path, maxSmall)
	}
	return text, errors.Join(err, f.Close())
}
