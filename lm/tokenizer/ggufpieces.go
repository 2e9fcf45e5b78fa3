package tokenizer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxPiece bounds the bytes of a token that is taken apart into merges; the
// longest of Gemma has 93.
const maxPiece = 256

// fromPieces reads the SentencePiece vocabulary of Gemma 3 ("llama" in GGUF).
func fromPieces(meta map[string]any) (source, error) {
	none := source{}
	const prefix = "tokenizer.ggml."
	if arch, _ := meta["general.architecture"].(string); arch != "gemma3" {
		return none, fmt.Errorf("tokenizer model %q (SentencePiece) is supported for Gemma 3 only, and general.architecture is %q; use the model's tokenizer.json", "llama", arch)
	}
	for _, key := range []string{"add_space_prefix", "remove_extra_whitespaces"} {
		if on, _ := meta[prefix+key].(bool); on {
			return none, fmt.Errorf("%s%s is set, which Gemma 3 does not do and is not supported; use the model's tokenizer.json", prefix, key)
		}
	}
	if meta[prefix+"precompiled_charsmap"] != nil {
		return none, fmt.Errorf("%sprecompiled_charsmap is not supported; use the model's tokenizer.json", prefix)
	}
	list, ok := meta[prefix+"tokens"].([]string)
	if !ok {
		return none, fmt.Errorf("tokenizer.ggml.tokens is missing or no list of strings; %s", hint)
	}
	types, ok := meta[prefix+"token_type"].([]int64)
	if !ok || len(types) != len(list) {
		return none, fmt.Errorf("tokenizer.ggml.token_type has %d entries for %d tokens; %s", len(types), len(list), hint)
	}
	src := source{tokens: slices.Clone(list), pieces: true}
	for id, typ := range types {
		switch typ {
		case ggufUnused: // filling up to the size of the embedding: [PAD262145]
			src.tokens[id] = ""
			continue
		case ggufUserDefined: // llama.cpp's converter writes the spaces of these as spaces
			src.tokens[id] = strings.ReplaceAll(list[id], " ", blank)
		case ggufControl, ggufUnknown:
		default:
			continue
		}
		if list[id] == "" {
			return none, fmt.Errorf("control token %d has no text; %s", id, hint)
		}
		src.added = append(src.added, addedSource{addedToken: addedToken{src.tokens[id], int32(id), typ != ggufUserDefined}})
	}
	var err error
	switch merges := meta[prefix+"merges"].(type) {
	case nil:
		scores, ok := meta[prefix+"scores"].([]float64)
		if !ok || len(scores) != len(list) {
			return none, fmt.Errorf("tokenizer.ggml.scores has %d entries for %d tokens and there are no merges; %s", len(scores), len(list), hint)
		}
		src.merges, err = mergesByScore(src.tokens, types, scores)
	case []string:
		src.merges, err = cutMerges(merges)
	default:
		return none, fmt.Errorf("tokenizer.ggml.merges is no list of strings; %s", hint)
	}
	if err != nil {
		return none, err
	}
	err = src.ends(meta)
	return src, err
}

// mergesByScore derives the merges from a vocabulary without any, as
// transformers does when it makes tokenizer.json out of a SentencePiece model:
// every cut of a token into two tokens is a merge; the best score comes first,
// then the longest left side, then the longest right side, then the lowest id.
//
// User-defined tokens (the runs of spaces and newlines) have the score 0 in
// SentencePiece, which is the best; llama.cpp's converter writes -1000 in its
// place, so the scores of added tokens are not looked at. llama.cpp merges by
// score and transformers, when it reads a GGUF, by id: a file in which the two
// differ is refused.
func mergesByScore(tokens []string, types []int64, scores []float64) ([]mergeText, error) {
	vocab := make(map[string]struct{}, len(tokens))
	for _, s := range tokens {
		vocab[s] = struct{}{}
	}
	type cut struct {
		mergeText
		score       float64
		left, right int // characters
	}
	var cuts []cut
	last, lastID := 0.0, -1
	for id, s := range tokens {
		if len(s) > maxPiece {
			return nil, fmt.Errorf("token %d has %d bytes, more than the limit of %d; %s", id, len(s), maxPiece, hint)
		}
		score, n, before := 0.0, utf8.RuneCountInString(s), len(cuts)
		if types[id] == ggufNormal {
			score = scores[id]
		}
		k := 0
		for at := range s {
			if k++; at == 0 {
				continue
			}
			if _, ok := vocab[s[:at]]; !ok {
				continue
			}
			if _, ok := vocab[s[at:]]; ok {
				cuts = append(cuts, cut{mergeText{s[:at], s[at:]}, score, k - 1, n - k + 1})
			}
		}
		if len(cuts) > 2*maxTokens {
			return nil, fmt.Errorf("the vocabulary makes more merges than the limit of %d; %s", 2*maxTokens, hint)
		}
		if types[id] != ggufNormal || len(cuts) == before {
			continue
		}
		if !(score <= last) { // not a number, too
			return nil, fmt.Errorf("tokenizer.ggml.scores: token %d has %v and token %d before it %v; the scores must fall with the ids, from 0; use the model's tokenizer.json", id, score, lastID, last)
		}
		last, lastID = score, id
	}
	if len(cuts) == 0 {
		return nil, errors.New("the vocabulary makes no merges; " + hint)
	}
	slices.SortStableFunc(cuts, func(a, b cut) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(b.left, a.left), cmp.Compare(b.right, a.right))
	})
	merges := make([]mergeText, len(cuts))
	for i, c := range cuts {
		merges[i] = c.mergeText
	}
	return merges, nil
}
