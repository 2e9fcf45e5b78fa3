package export

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

// fileTypes are llama.cpp's numbers (enum llama_ftype) of the types that are written.
var fileTypes = map[string]uint32{"F32": 0, "BF16": 32, "Q8_0": 7}

// replaced are keys of a base model's file that are not true of the new one, or that are written anew.
var replaced = []string{"general.name", "general.type", "general.file_type", "general.quantization_version", "general.alignment", "general.finetune"}

// GGUF writes the model to a new file at path, as llama.cpp loads it, with tokenizer and chat template. Matrices are of
// type typ, "BF16" or "Q8_0", vectors float32; a matrix whose rows do not divide into blocks of Q8_0 is BF16.
func (s *Source) GGUF(path, typ string, o Options) error {
	err := s.merge(o)
	if err == nil && typ != "BF16" && typ != "Q8_0" {
		err = fmt.Errorf("type %q is not written; BF16 and Q8_0 are", typ)
	}
	var pairs []gguf.Pair
	if err == nil {
		pairs, err = s.pairs(typ, o)
	}
	if err == nil {
		var list []gguf.Tensor
		for _, t := range s.Stream.GGUF() {
			of := typ
			switch {
			case t.Vector != nil:
				of = "F32"
			case typ == "Q8_0" && t.Cols()%gguf.BlockSize != 0:
				of = "BF16"
			}
			list = append(list, gguf.Tensor{Name: t.Name, Type: of, Shape: t.Shape, Row: t.Row})
		}
		err = writeGGUF(path, pairs, list)
	}
	if err != nil {
		return fmt.Errorf("export GGUF: %w", err)
	}
	return nil
}

// LoRA writes o.Adapter to a new file at path, as llama.cpp loads it beside a GGUF file of the base model.
func (s *Source) LoRA(path string, o Options) error {
	if o.Adapter == nil {
		return errors.New("export GGUF adapter: there is no adapter")
	}
	list, err := s.Stream.LoRA(o.Adapter)
	if err == nil {
		pairs := append(s.general("adapter", "F32", s.Stream.Architecture, o),
			gguf.Text("adapter.type", "lora"), gguf.Float32("adapter.lora.alpha", float32(o.Adapter.Alpha)))
		tensors := make([]gguf.Tensor, len(list))
		for i, t := range list {
			tensors[i] = gguf.Tensor{Name: t.Name, Type: "F32", Shape: t.Shape, Row: t.Row}
		}
		err = writeGGUF(path, pairs, tensors)
	}
	if err != nil {
		return fmt.Errorf("export GGUF adapter: %w", err)
	}
	return nil
}

func writeGGUF(path string, pairs []gguf.Pair, list []gguf.Tensor) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(gguf.Write(f, pairs, list), f.Close())
}

// general are the keys that say what a file is.
func (s *Source) general(kind, typ, architecture string, o Options) []gguf.Pair {
	return []gguf.Pair{
		gguf.Text("general.architecture", architecture), gguf.Text("general.type", kind), gguf.Text("general.name", s.name(o)),
		gguf.Uint32("general.file_type", fileTypes[typ]), gguf.Uint32("general.quantization_version", 2),
		gguf.Uint32("general.base_model.count", 1), gguf.Text("general.base_model.0.name", s.model.Name),
	}
}

// pairs returns all metadata of a model's file: those of a base model's GGUF file as they stand in it, or what a
// folder's config.json and tokenizer say.
func (s *Source) pairs(typ string, o Options) ([]gguf.Pair, error) {
	out := s.general("model", typ, s.Stream.Architecture, o)
	if s.file != nil {
		for _, p := range s.file.Pairs() {
			stale := slices.Contains(replaced, p.Key) || p.Key == "general.architecture"
			for _, prefix := range []string{"general.base_model.", "split.", "quantize."} {
				stale = stale || strings.HasPrefix(p.Key, prefix)
			}
			if !stale {
				out = append(out, p)
			}
		}
		return out, nil
	}
	keys, err := s.Stream.GGUFKeys()
	if err != nil {
		return nil, err
	}
	out = append(out, keys[1:]...) // the architecture stands first
	text, _, _, err := s.model.TokenizerSource()
	if err != nil {
		return nil, err
	}
	k, err := tokenizer.KeysFromJSON(text, s.Stream.Vocab)
	if err != nil {
		return nil, err
	}
	const prefix = "tokenizer.ggml."
	out = append(out, gguf.Text(prefix+"model", k.Model), gguf.Texts(prefix+"tokens", k.Tokens), gguf.Int32s(prefix+"token_type", k.Types),
		gguf.Bool(prefix+"add_bos_token", k.AddBOS), gguf.Bool(prefix+"add_space_prefix", false))
	if k.Pre != "" {
		out = append(out, gguf.Text(prefix+"pre", k.Pre))
	}
	if k.Merges != nil {
		out = append(out, gguf.Texts(prefix+"merges", k.Merges))
	}
	if k.Scores != nil {
		out = append(out, gguf.Float32s(prefix+"scores", k.Scores))
	}
	// config.json may name several end tokens; tokenizer_config.json names the one that the chat ends with.
	named, err := s.folderTokens()
	if err != nil {
		return nil, err
	}
	for _, t := range specials {
		id, ok := named[t.hf]
		if list := s.ids[t.hf]; !ok && len(list) > 0 {
			id, ok = list[0], true
		}
		if ok && id >= 0 {
			out = append(out, gguf.Uint32(prefix+t.ggml+"_token_id", uint32(id)))
		}
	}
	if s.template != "" {
		out = append(out, gguf.Text("tokenizer.chat_template", s.template))
	}
	return out, nil
}
