package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
)

const (
	patternQwen   = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternGPT2   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
)

// maxNesting bounds Sequence objects inside Sequence objects.
const maxNesting = 8

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func readNormalizer(r *rules, raw json.RawMessage, depth int) error {
	if absent(raw) {
		return nil
	}
	var n struct {
		Type        string            `json:"type"`
		Normalizers []json.RawMessage `json:"normalizers"`
	}
	if err := json.Unmarshal(raw, &n); err != nil {
		return fmt.Errorf("normalizer: %w; %s", err, hint)
	}
	switch {
	case n.Type == "NFC":
		r.nfc = true
	case n.Type == "Sequence" && depth < maxNesting:
		for _, s := range n.Normalizers {
			if err := readNormalizer(r, s, depth+1); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("normalizer %q is not supported; only NFC is", n.Type)
	}
	return nil
}

type preTokenizer struct {
	Type    string `json:"type"`
	Pattern struct {
		Regex  string  `json:"Regex"`
		String *string `json:"String"`
	} `json:"pattern"`
	Behavior       string            `json:"behavior"`
	Invert         bool              `json:"invert"`
	PreTokenizers  []json.RawMessage `json:"pretokenizers"`
	UseRegex       *bool             `json:"use_regex"`
	AddPrefixSpace *bool             `json:"add_prefix_space"`
	Individual     bool              `json:"individual_digits"`
}

// flatten returns the steps of a pre-tokenizer in order.
func flatten(steps []preTokenizer, raw json.RawMessage, depth int) ([]preTokenizer, error) {
	if absent(raw) {
		return steps, nil
	}
	var p preTokenizer
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("pre_tokenizer: %w; %s", err, hint)
	}
	if p.Type != "Sequence" {
		return append(steps, p), nil
	}
	if depth >= maxNesting {
		return nil, fmt.Errorf("pre_tokenizer is nested more than %d deep; %s", maxNesting, hint)
	}
	for _, r := range p.PreTokenizers {
		var err error
		if steps, err = flatten(steps, r, depth+1); err != nil {
			return nil, err
		}
	}
	return steps, nil
}

// readPreTokenizer understands the orders in use: [Digits] ByteLevel with its
// own pattern, or [Digits] Split by a known pattern and then ByteLevel without.
func readPreTokenizer(r *rules, raw json.RawMessage) error {
	steps, err := flatten(nil, raw, 0)
	if err != nil {
		return err
	}
	byteLevel := false
	for _, p := range steps {
		if byteLevel {
			return fmt.Errorf("pre_tokenizer: %q after ByteLevel is not supported", p.Type)
		}
		switch p.Type {
		case "Digits":
			if r.split != 0 || r.digits {
				return errors.New("pre_tokenizer: Digits is supported only as the first step")
			}
			r.digits, r.digitGroups = true, !p.Individual
		case "Split":
			if r.split != 0 {
				return errors.New("pre_tokenizer: two patterns are not supported")
			}
			switch p.Pattern.Regex {
			case patternQwen:
				r.split = splitQwen
			case patternLlama3:
				r.split = splitLlama3
			case patternGPT2:
				r.split = splitGPT2
			default:
				return fmt.Errorf("pre_tokenizer: the pattern %.200q is not known; known are those of GPT-2, Qwen2/Qwen3 and Llama 3", p.Pattern.Regex)
			}
			if p.Behavior != "Isolated" && p.Behavior != "Removed" || p.Invert != (p.Behavior == "Removed") {
				return fmt.Errorf("pre_tokenizer: Split with behavior %q (invert %v) is not supported", p.Behavior, p.Invert)
			}
		case "ByteLevel":
			byteLevel = true
			if p.AddPrefixSpace == nil || *p.AddPrefixSpace { // the reference's default is true
				return errors.New("pre_tokenizer: ByteLevel with add_prefix_space is not supported")
			}
			if p.UseRegex == nil || *p.UseRegex {
				if r.split != 0 {
					return errors.New("pre_tokenizer: two patterns are not supported")
				}
				r.split = splitGPT2
			}
		default:
			return fmt.Errorf("pre_tokenizer %q is not supported", p.Type)
		}
	}
	if !byteLevel || r.split == 0 {
		return errors.New("pre_tokenizer has no ByteLevel step with a known pattern; only byte-level BPE is supported")
	}
	return nil
}

// readPieceRules accepts the one set of rules that goes with byte_fallback
// here: Gemma's. Its pre-tokenizer cuts at spaces, of which the normalizer has
// left none.
func readPieceRules(normalizer, preTokenizer, decoder json.RawMessage, ignoreMerges bool) error {
	type step struct {
		Type    string `json:"type"`
		Pattern struct {
			String string `json:"String"`
		} `json:"pattern"`
		Content  string `json:"content"`
		Decoders []step `json:"decoders"`
	}
	var norm, pre, dec step
	for _, e := range []struct {
		name string
		raw  json.RawMessage
		into *step
	}{{"normalizer", normalizer, &norm}, {"pre_tokenizer", preTokenizer, &pre}, {"decoder", decoder, &dec}} {
		if absent(e.raw) {
			continue
		}
		if err := json.Unmarshal(e.raw, e.into); err != nil {
			return fmt.Errorf("%s: %w; %s", e.name, err, hint)
		}
	}
	replaces := func(s step, from, to string) bool {
		return s.Type == "Replace" && s.Pattern.String == from && s.Content == to
	}
	d := dec.Decoders
	switch {
	case ignoreMerges:
		return fmt.Errorf("%w; this file asks for ignore_merges", errPieceRules)
	case !replaces(norm, " ", blank):
		return fmt.Errorf("%w; the normalizer is %.200s", errPieceRules, normalizer)
	case pre.Type != "" && (pre.Type != "Split" || pre.Pattern.String != " "):
		return fmt.Errorf("%w; the pre_tokenizer is %.200s", errPieceRules, preTokenizer)
	case dec.Type != "Sequence" || len(d) != 3 || !replaces(d[0], blank, " ") || d[1].Type != "ByteFallback" || d[2].Type != "Fuse":
		return fmt.Errorf("%w; the decoder is %.200s", errPieceRules, decoder)
	}
	return nil
}
