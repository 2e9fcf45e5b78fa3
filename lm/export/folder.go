package export

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/opencharacter/opencharacter/lm/safetensors"
	"github.com/opencharacter/opencharacter/lm/tokenizer"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// Files of a folder that shape its tokenizer: copied as they are where the base model is a folder.
var tokenizerFiles = []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
	"vocab.json", "merges.txt", "tokenizer.model"}

// Safetensors writes the model into dir, an empty folder, as transformers loads it: weights in bf16 (or float32), config.json,
// generation_config.json and the files of the tokenizer with the chat template. A norm vector that bf16 does not hold
// exactly stays float32. An error leaves some of the files there.
func (s *Source) Safetensors(dir string, o Options) error {
	if err := s.merge(o); err != nil {
		return fmt.Errorf("export safetensors: %w", err)
	}
	err := s.describe(dir, o)
	if err == nil {
		err = s.tokenizer(dir, o)
	}
	if err == nil {
		var list []safetensors.Tensor
		for _, t := range s.Stream.HF() {
			list = append(list, tensorOf(t, o.Float32))
		}
		err = safetensors.WriteFolder(dir, list, map[string]string{"format": "pt"}, o.Shard)
	}
	if err != nil {
		return fmt.Errorf("export safetensors: %w", err)
	}
	return nil
}

// describe writes config.json and generation_config.json.
func (s *Source) describe(dir string, o Options) error {
	ids := map[string]any{}
	for _, t := range []string{"bos", "eos", "pad"} {
		switch list := s.ids[t]; len(list) {
		case 0:
			ids[t+"_token_id"] = nil
		case 1:
			ids[t+"_token_id"] = list[0]
		default:
			ids[t+"_token_id"] = list
		}
	}
	if o.Float32 {
		ids["torch_dtype"] = "float32"
	}
	config, err := s.Stream.ConfigJSON(ids)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644); err != nil {
		return err
	}
	delete(ids, "torch_dtype")
	const generation = "generation_config.json"
	if s.file == nil {
		text, err := readSmall(filepath.Join(s.model.Path, generation))
		if err == nil {
			return os.WriteFile(filepath.Join(dir, generation), text, 0o644)
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if ends := s.ends(o); len(ends) == 1 {
		ids["eos_token_id"] = ends[0]
	} else if len(ends) > 1 {
		ids["eos_token_id"] = ends
	}
	ids["_from_model_config"] = true
	return writeJSON(filepath.Join(dir, generation), ids)
}

// tokenizer writes the files of the tokenizer.
func (s *Source) tokenizer(dir string, o Options) error {
	if s.file == nil {
		for _, name := range tokenizerFiles {
			text, err := readSmall(filepath.Join(s.model.Path, name))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
				return err
			}
		}
		return nil
	}
	text, err := tokenizer.JSONFromGGUF(s.file.Meta)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), text, 0o644); err != nil {
		return err
	}
	tokens, _ := s.file.Meta["tokenizer.ggml.tokens"].([]string)
	named := map[string]any{}
	for _, t := range specials {
		if list := s.ids[t.hf]; len(list) > 0 && int(list[0]) < len(tokens) {
			named[t.hf+"_token"] = tokens[list[0]]
		}
	}
	if err := writeJSON(filepath.Join(dir, "special_tokens_map.json"), named); err != nil {
		return err
	}
	named["tokenizer_class"], named["clean_up_tokenization_spaces"] = "PreTrainedTokenizerFast", false
	named["model_max_length"] = s.Stream.Context
	if s.template != "" {
		named["chat_template"] = s.template
	}
	return writeJSON(filepath.Join(dir, "tokenizer_config.json"), named)
}

// writeJSON writes v with sorted keys.
func writeJSON(path string, v map[string]any) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	e := json.NewEncoder(f)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return errors.Join(e.Encode(v), f.Close())
}

// tensorOf writes a tensor in bf16, or in float32 if that is asked for or it is a vector that bf16 does not hold.
func tensorOf(t transformer.StreamTensor, float32s bool) safetensors.Tensor {
	dtype, encode := "BF16", bf16Bytes
	if float32s || t.Vector != nil && !inBF16(t.Vector) {
		dtype, encode = "F32", safetensors.F32Bytes
	}
	return safetensors.Tensor{Name: t.Name, DType: dtype, Shape: t.Shape, Data: func(w io.Writer) error {
		row := make([]float32, t.Cols())
		for r := range t.Rows() {
			if err := t.Row(r, row); err != nil {
				return err
			}
			if _, err := w.Write(encode(row)); err != nil {
				return err
			}
		}
		return nil
	}}
}

// bf16Bytes rounds to nearest, ties to even.
func bf16Bytes(row []float32) []byte {
	out := make([]byte, 2*len(row))
	for i, v := range row {
		u := math.Float32bits(v)
		binary.LittleEndian.PutUint16(out[2*i:], uint16((u+0x7fff+u>>16&1)>>16))
	}
	return out
}

// inBF16 tells whether every value is a bf16 number.
func inBF16(v []float32) bool {
	for _, x := range v {
		if math.Float32bits(x)&0xffff != 0 {
			return false
		}
	}
	return true
}
