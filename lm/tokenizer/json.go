package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// tokenizerFile is the part of tokenizer.json that shapes ids.
type tokenizerFile struct {
	AddedTokens []struct {
		ID         int64  `json:"id"`
		Content    string `json:"content"`
		SingleWord bool   `json:"single_word"`
		LStrip     bool   `json:"lstrip"`
		RStrip     bool   `json:"rstrip"`
		Normalized bool   `json:"normalized"`
		Special    bool   `json:"special"`
	} `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         struct {
		Type         string          `json:"type"`
		Dropout      *float64        `json:"dropout"`
		UnkToken     *string         `json:"unk_token"`
		Prefix       string          `json:"continuing_subword_prefix"`
		Suffix       string          `json:"end_of_word_suffix"`
		ByteFallback bool            `json:"byte_fallback"`
		IgnoreMerges bool            `json:"ignore_merges"`
		Vocab        json.RawMessage `json:"vocab"`
		Merges       json.RawMessage `json:"merges"`
	} `json:"model"`
}

// FromJSON builds a tokenizer from the bytes of a Hugging Face tokenizer.json
// that describes a byte-level BPE or the SentencePiece BPE of Gemma 3. Anything
// in the file that would change ids and is not implemented is an error, never
// ignored.
func FromJSON(tokenizerJSON []byte) (*Tokenizer, error) {
	t, err := fromJSON(tokenizerJSON)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: tokenizer.json: %w", err)
	}
	return t, nil
}

func fromJSON(data []byte) (*Tokenizer, error) {
	src, post, err := jsonSource(data)
	if err != nil {
		return nil, err
	}
	t, err := build(src)
	if err != nil {
		return nil, err
	}
	t.bos = firstOfTemplate(post, t)
	return t, nil
}

// jsonSource reads the vocabulary and the rules, which build checks, and returns the post-processor as it stands.
func jsonSource(data []byte) (src source, post json.RawMessage, err error) {
	none := source{}
	if !utf8.Valid(data) {
		return none, nil, errors.New("not valid UTF-8; " + hint)
	}
	var f tokenizerFile
	if err := json.Unmarshal(data, &f); err != nil {
		return none, nil, fmt.Errorf("%w; %s", err, hint)
	}
	m := f.Model
	switch {
	case m.Type != "BPE":
		return none, nil, fmt.Errorf("model type %q is not supported; only BPE is", m.Type)
	case m.Dropout != nil && *m.Dropout != 0:
		return none, nil, errors.New("BPE dropout is not supported")
	case m.Prefix != "" || m.Suffix != "":
		return none, nil, errors.New("continuing_subword_prefix and end_of_word_suffix are not supported")
	}
	src = source{bos: -1, eos: -1, pieces: m.ByteFallback}
	src.rules.ignoreMerges = m.IgnoreMerges
	if src.pieces {
		if err := readPieceRules(f.Normalizer, f.PreTokenizer, f.Decoder, m.IgnoreMerges); err != nil {
			return none, nil, err
		}
	} else {
		if err := readNormalizer(&src.rules, f.Normalizer, 0); err != nil {
			return none, nil, err
		}
		if err := readPreTokenizer(&src.rules, f.PreTokenizer); err != nil {
			return none, nil, err
		}
	}
	vocab, top, err := readVocab(m.Vocab)
	if err != nil {
		return none, nil, err
	}
	for _, a := range f.AddedTokens {
		if a.ID < 0 || a.ID >= maxTokens {
			return none, nil, fmt.Errorf("added token %q has the impossible id %d; %s", a.Content, a.ID, hint)
		}
		top = max(top, int32(a.ID))
	}
	if int(top) >= 8*(len(vocab)+len(f.AddedTokens))+1024 {
		return none, nil, fmt.Errorf("the largest id is %d but there are only %d tokens; %s", top, len(vocab), hint)
	}
	src.tokens = make([]string, top+1)
	put := func(s string, id int32) error {
		if old := src.tokens[id]; old != "" && old != s {
			return fmt.Errorf("id %d belongs to two tokens, %q and %q; %s", id, old, s, hint)
		}
		src.tokens[id] = s
		return nil
	}
	for _, v := range vocab {
		if err := put(v.token, v.id); err != nil {
			return none, nil, err
		}
	}
	for _, a := range f.AddedTokens {
		if a.Content == "" {
			return none, nil, fmt.Errorf("added token %d is empty; %s", a.ID, hint)
		}
		if a.LStrip || a.RStrip || a.SingleWord {
			return none, nil, fmt.Errorf("added token %q uses lstrip, rstrip or single_word, which are not supported", a.Content)
		}
		if err := put(a.Content, int32(a.ID)); err != nil {
			return none, nil, err
		}
		src.added = append(src.added, addedSource{addedToken{a.Content, int32(a.ID), a.Special}, a.Normalized})
	}
	if src.merges, err = readMerges(m.Merges); err != nil {
		return none, nil, err
	}
	return src, f.PostProcessor, nil
}

// firstOfTemplate returns the special token that the file's own
// post-processor puts before a single text: the begin token. -1: none.
func firstOfTemplate(raw json.RawMessage, t *Tokenizer) int32 {
	type processor struct {
		Type       string            `json:"type"`
		Processors []json.RawMessage `json:"processors"`
		Single     []struct {
			SpecialToken *struct {
				ID string `json:"id"`
			} `json:"SpecialToken"`
		} `json:"single"`
	}
	var p processor
	if len(raw) == 0 || json.Unmarshal(raw, &p) != nil {
		return -1
	}
	all := []processor{p}
	for _, r := range p.Processors {
		var q processor
		if json.Unmarshal(r, &q) == nil {
			all = append(all, q)
		}
	}
	for _, p := range all {
		if p.Type == "TemplateProcessing" && len(p.Single) > 0 && p.Single[0].SpecialToken != nil {
			if id, ok := t.ID(p.Single[0].SpecialToken.ID); ok {
				return id
			}
		}
	}
	return -1
}

// ReadConfig takes the begin and end tokens from the bytes of a
// tokenizer_config.json, which tokenizer.json does not name. Call it before
// the tokenizer is shared.
func (t *Tokenizer) ReadConfig(tokenizerConfigJSON []byte) error {
	var c struct {
		BOS json.RawMessage `json:"bos_token"`
		EOS json.RawMessage `json:"eos_token"`
	}
	if err := json.Unmarshal(tokenizerConfigJSON, &c); err != nil {
		return fmt.Errorf("tokenizer: tokenizer_config.json: %w; %s", err, hint)
	}
	for _, e := range []struct {
		name string
		raw  json.RawMessage
		id   *int32
	}{{"bos_token", c.BOS, &t.bos}, {"eos_token", c.EOS, &t.eos}} {
		if len(e.raw) == 0 || string(e.raw) == "null" {
			continue
		}
		var s string
		if json.Unmarshal(e.raw, &s) != nil {
			var o struct {
				Content string `json:"content"`
			}
			if err := json.Unmarshal(e.raw, &o); err != nil {
				return fmt.Errorf("tokenizer: tokenizer_config.json: %s: %w; %s", e.name, err, hint)
			}
			s = o.Content
		}
		id, ok := t.ID(s)
		if !ok {
			return fmt.Errorf("tokenizer: tokenizer_config.json: %s %q is not in the vocabulary; the two files belong to different models", e.name, s)
		}
		*e.id = id
	}
	return nil
}
