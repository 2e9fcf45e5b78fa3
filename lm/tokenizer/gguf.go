package tokenizer

import (
	"errors"
	"fmt"
)

// Token types of GGUF (llama.cpp's enum llama_token_type).
const (
	ggufNormal      = 1
	ggufUnknown     = 2
	ggufControl     = 3
	ggufUserDefined = 4
	ggufUnused      = 5
)

// ggufRules holds the rules that GGUF names only by the key
// tokenizer.ggml.pre; the names are llama.cpp's.
var ggufRules = map[string]rules{
	"gpt-2":     {split: splitGPT2},
	"smollm":    {split: splitGPT2, digits: true},
	"starcoder": {split: splitGPT2, digits: true},
	"qwen2":     {split: splitQwen, nfc: true},
	"llama-bpe": {split: splitLlama3, ignoreMerges: true},
	"llama3":    {split: splitLlama3, ignoreMerges: true},
	"llama-v3":  {split: splitLlama3, ignoreMerges: true},
}

// FromGGUF builds a tokenizer from the metadata of a GGUF file: the keys
// tokenizer.ggml.model ("gpt2"), .pre, .tokens and .merges ([]string),
// .token_type ([]int64), .bos_token_id and .eos_token_id (uint64 or int64).
// The model "llama" (SentencePiece) is known for Gemma 3, by the key
// general.architecture; it has no .pre, and .scores ([]float64) in place of
// merges. Converters mark some added tokens of Gemma that no text needs
// (<mask>, <unused0>) as control tokens, which tokenizer.json does not: they are
// special here. All else is equal to the tokenizer.json form.
func FromGGUF(meta map[string]any) (*Tokenizer, error) {
	t, err := fromGGUF(meta)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: GGUF: %w", err)
	}
	return t, nil
}

func fromGGUF(meta map[string]any) (*Tokenizer, error) {
	src, err := ggufSource(meta)
	if err != nil {
		return nil, err
	}
	return build(src)
}

// ggufSource reads the vocabulary and the rules; build checks them.
func ggufSource(meta map[string]any) (source, error) {
	none := source{}
	const prefix = "tokenizer.ggml."
	model, ok := meta[prefix+"model"].(string)
	if !ok {
		return none, errors.New("the key tokenizer.ggml.model is missing; the file holds no tokenizer")
	}
	switch model {
	case "gpt2":
	case "llama":
		return fromPieces(meta)
	default:
		return none, fmt.Errorf("tokenizer model %q is not supported; byte-level BPE (%q) is, and Gemma 3's (%q); use the model's tokenizer.json", model, "gpt2", "llama")
	}
	pre, _ := meta[prefix+"pre"].(string)
	rules, ok := ggufRules[pre]
	if !ok {
		return none, fmt.Errorf("pre-tokenizer %q (tokenizer.ggml.pre) is not known; known are gpt-2, smollm, starcoder, qwen2, llama-bpe; use the model's tokenizer.json", pre)
	}
	tokens, ok := meta[prefix+"tokens"].([]string)
	if !ok {
		return none, fmt.Errorf("tokenizer.ggml.tokens is missing or no list of strings; %s", hint)
	}
	merges, ok := meta[prefix+"merges"].([]string)
	if !ok {
		return none, fmt.Errorf("tokenizer.ggml.merges is missing or no list of strings; %s", hint)
	}
	src := source{tokens: tokens, rules: rules}
	types, ok := meta[prefix+"token_type"].([]int64)
	if ok && len(types) != len(tokens) {
		return none, fmt.Errorf("%d token types for %d tokens; %s", len(types), len(tokens), hint)
	}
	for id, typ := range types {
		if typ != ggufControl && typ != ggufUserDefined {
			continue
		}
		if tokens[id] == "" {
			return none, fmt.Errorf("control token %d has no text; %s", id, hint)
		}
		src.added = append(src.added, addedSource{addedToken: addedToken{tokens[id], int32(id), typ == ggufControl}})
	}
	var err error
	if src.merges, err = cutMerges(merges); err != nil {
		return none, err
	}
	err = src.ends(meta)
	return src, err
}

// cutMerges reads the list tokenizer.ggml.merges.
func cutMerges(lines []string) ([]mergeText, error) {
	merges := make([]mergeText, len(lines))
	for i, m := range lines {
		var err error
		if merges[i], err = cutMerge(m); err != nil {
			return nil, fmt.Errorf("merge %d: %w", i, err)
		}
	}
	return merges, nil
}

// ends reads the begin and end tokens.
func (src *source) ends(meta map[string]any) (err error) {
	if src.bos, err = ggufID(meta, "tokenizer.ggml.bos_token_id"); err != nil {
		return err
	}
	src.eos, err = ggufID(meta, "tokenizer.ggml.eos_token_id")
	return err
}

// ggufID reads an optional token id, -1 when the key is absent.
func ggufID(meta map[string]any, key string) (int32, error) {
	var id int64
	switch v := meta[key].(type) {
	case nil:
		return -1, nil
	case uint64:
		id = int64(min(v, maxTokens+1))
	case int64:
		id = v
	default:
		return 0, fmt.Errorf("%s is a %T, not a number; %s", key, v, hint)
	}
	if id < 0 || id > maxTokens {
		return 0, fmt.Errorf("%s is %d, out of range; %s", key, id, hint)
	}
	return int32(id), nil
}
