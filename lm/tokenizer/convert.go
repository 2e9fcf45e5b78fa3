package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// JSONFromGGUF returns the tokenizer.json that gives the ids which FromGGUF's tokenizer gives, from the same keys of a
// GGUF file. begin and end are put around every text, as tokenizer.ggml.add_bos_token and add_eos_token ask; without those
// keys only Llama 3 and Gemma begin with their token. Keys that no tokenizer.json can express are an error.
func JSONFromGGUF(meta map[string]any) ([]byte, error) {
	src, err := ggufSource(meta)
	if err == nil {
		_, err = build(src)
	}
	if err != nil {
		return nil, fmt.Errorf("tokenizer: GGUF: %w", err)
	}
	pre, _ := meta["tokenizer.ggml.pre"].(string)
	begin := src.pieces || src.rules == ggufRules["llama-bpe"] && pre != ""
	if v, ok := meta["tokenizer.ggml.add_bos_token"].(bool); ok {
		begin = v
	}
	end, _ := meta["tokenizer.ggml.add_eos_token"].(bool)
	text, err := src.json(begin, end)
	if err == nil {
		var back source
		if back, _, err = jsonSource(text); err == nil {
			err = same(src, back)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("tokenizer: write tokenizer.json: %w", err)
	}
	return text, nil
}

// same compares what shapes ids in a vocabulary and in what was written of it.
func same(want, got source) error {
	trim := func(tokens []string) []string {
		n := len(tokens)
		for n > 0 && tokens[n-1] == "" {
			n--
		}
		return tokens[:n]
	}
	switch {
	case !slices.Equal(trim(want.tokens), trim(got.tokens)):
		return errors.New("the tokens are not read back as they are; use the model in the format it came in")
	case !sameMerges(want.merges, got.merges):
		return errors.New("the merges are not read back as they are; use the model in the format it came in")
	case !slices.Equal(want.added, got.added):
		return errors.New("the added tokens are not read back as they are; use the model in the format it came in")
	case want.rules != got.rules || want.pieces != got.pieces:
		return errors.New("the rules for cutting text are not read back as they are; use the model in the format it came in")
	}
	return nil
}

// sameMerges tells whether two lists merge every text alike: they are equal, or become so when neighbours that no place
// of a text can offer at once change places. (Gemma's file has its "\t\t" one place later than the scores say.)
func sameMerges(want, got []mergeText) bool {
	const far = 64 // places that a merge may be away
	if len(want) != len(got) {
		return false
	}
	got = slices.Clone(got)
	for i, m := range want {
		j := i
		for ; j < len(got) && got[j] != m; j++ {
			other := got[j]
			if j-i == far || other.left == m.right || other.right == m.left {
				return false
			}
		}
		if j == len(got) {
			return false
		}
		copy(got[i+1:j+1], got[i:j])
		got[i] = m
	}
	return true
}

// object is a JSON object whose keys stay in order.
type object []member

type member struct {
	key   string
	value any
}

func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := e.Encode(m.key); err != nil {
			return nil, err
		}
		b.Truncate(b.Len() - 1) // Encode ends with a newline
		b.WriteByte(':')
		if err := e.Encode(m.value); err != nil {
			return nil, err
		}
		b.Truncate(b.Len() - 1)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// json writes the form of Hugging Face's tokenizers library.
func (src source) json(begin, end bool) ([]byte, error) {
	vocab := make(object, 0, len(src.tokens))
	for id, s := range src.tokens {
		if !utf8.ValidString(s) {
			return nil, fmt.Errorf("token %d is not valid UTF-8, which JSON can not hold", id)
		}
		if s != "" {
			vocab = append(vocab, member{s, id})
		}
	}
	added := []object{}
	for _, a := range src.added {
		added = append(added, object{{"id", a.id}, {"content", a.content}, {"single_word", false}, {"lstrip", false}, {"rstrip", false},
			{"normalized", a.normalized}, {"special", a.special}})
	}
	merges := make([][2]string, len(src.merges))
	for i, m := range src.merges {
		merges[i] = [2]string{m.left, m.right}
	}
	model := object{{"type", "BPE"}, {"dropout", nil}, {"unk_token", nil}, {"continuing_subword_prefix", nil}, {"end_of_word_suffix", nil},
		{"fuse_unk", src.pieces}, {"byte_fallback", src.pieces}, {"ignore_merges", src.rules.ignoreMerges}, {"vocab", vocab}, {"merges", merges}}
	if src.pieces && slices.Contains(src.tokens, "<unk>") {
		model[2].value = "<unk>"
	}
	post, err := src.postProcessor(begin, end)
	if err != nil {
		return nil, err
	}
	normalizer, pre, decoder := src.steps()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err = e.Encode(object{{"version", "1.0"}, {"truncation", nil}, {"padding", nil}, {"added_tokens", added}, {"normalizer", normalizer},
		{"pre_tokenizer", pre}, {"post_processor", post}, {"decoder", decoder}, {"model", model}})
	return b.Bytes(), err
}

// steps returns normalizer, pre-tokenizer and decoder.
func (src source) steps() (normalizer, pre, decoder any) {
	if src.pieces {
		replace := func(from, to string) object {
			return object{{"type", "Replace"}, {"pattern", object{{"String", from}}}, {"content", to}}
		}
		return replace(" ", blank), object{{"type", "Split"}, {"pattern", object{{"String", " "}}}, {"behavior", "MergedWithPrevious"}, {"invert", false}},
			object{{"type", "Sequence"}, {"decoders", []object{replace(blank, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}}
	}
	level := func(regex bool) object {
		return object{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", regex}}
	}
	var steps []object
	if src.rules.digits {
		steps = append(steps, object{{"type", "Digits"}, {"individual_digits", !src.rules.digitGroups}})
	}
	switch src.rules.split {
	case splitGPT2:
		steps = append(steps, level(true))
	default:
		pattern := patternQwen
		if src.rules.split == splitLlama3 {
			pattern = patternLlama3
		}
		steps = append(steps, object{{"type", "Split"}, {"pattern", object{{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}}, level(false))
	}
	if src.rules.nfc {
		normalizer = object{{"type", "NFC"}}
	}
	return normalizer, object{{"type", "Sequence"}, {"pretokenizers", steps}}, level(true)
}

// postProcessor puts the begin and end tokens around a text.
func (src source) postProcessor(begin, end bool) (any, error) {
	special, known := func(id int32) object { return object{{"SpecialToken", object{{"id", src.tokens[id]}, {"type_id", 0}}}} }, object{}
	text := func(name string) object { return object{{"Sequence", object{{"id", name}, {"type_id", 0}}}} }
	wrap := func(name string) []object {
		list := []object{text(name)}
		if begin {
			list = append([]object{special(src.bos)}, list...)
		}
		if end {
			list = append(list, special(src.eos))
		}
		return list
	}
	for _, t := range []struct {
		on   bool
		id   int32
		name string
	}{{begin, src.bos, "bos"}, {end, src.eos, "eos"}} {
		if t.on && t.id < 0 {
			return nil, fmt.Errorf("texts get the %s token, and tokenizer.ggml.%s_token_id is missing", t.name, t.name)
		}
		if s := ""; t.on {
			s = src.tokens[t.id]
			known = append(known, member{s, object{{"id", s}, {"ids", []int32{t.id}}, {"tokens", []string{s}}}})
		}
	}
	if len(known) == 0 {
		return nil, nil
	}
	return object{{"type", "TemplateProcessing"}, {"single", wrap("A")}, {"pair", append(wrap("A"), wrap("B")...)}, {"special_tokens", known}}, nil
}

// Keys is what the keys tokenizer.ggml.* of a GGUF file hold beside the ids of special tokens.
type Keys struct {
	Model  string // "gpt2", or "llama" for SentencePiece
	Pre    string // "" for SentencePiece
	Tokens []string
	Types  []int64
	Merges []string  // nil for SentencePiece
	Scores []float64 // of SentencePiece, else nil
	AddBOS bool      // the file's post-processor begins texts with a token
}

// Numbers of token types that only llama.cpp looks at.
const ggufByte = 6

// KeysFromJSON returns the keys of a GGUF file that mean what a tokenizer.json does. size is how many rows the model's
// embedding has: ids that the vocabulary does not use are filled up. What GGUF can not express is an error.
func KeysFromJSON(tokenizerJSON []byte, size int) (Keys, error) {
	k, err := keysFromJSON(tokenizerJSON, size)
	if err != nil {
		return Keys{}, fmt.Errorf("tokenizer: tokenizer.json as GGUF: %w", err)
	}
	return k, nil
}

func keysFromJSON(data []byte, size int) (Keys, error) {
	src, post, err := jsonSource(data)
	if err != nil {
		return Keys{}, err
	}
	t, err := build(src)
	if err != nil {
		return Keys{}, err
	}
	if len(src.tokens) > size {
		return Keys{}, fmt.Errorf("the largest id is %d and the model has %d rows; the files do not belong together", len(src.tokens)-1, size)
	}
	k := Keys{Model: "gpt2", Tokens: make([]string, size), Types: make([]int64, size), AddBOS: firstOfTemplate(post, t) >= 0}
	for id := range k.Tokens {
		switch {
		case id >= len(src.tokens) || src.tokens[id] == "":
			k.Tokens[id], k.Types[id] = fmt.Sprintf("[PAD%d]", id), ggufUnused
			if _, taken := t.vocab[k.Tokens[id]]; taken {
				return Keys{}, fmt.Errorf("id %d is unused and %q stands elsewhere", id, k.Tokens[id])
			}
		case src.pieces && isPieceByte(src.tokens[id]):
			k.Tokens[id], k.Types[id] = src.tokens[id], ggufByte
		default:
			k.Tokens[id], k.Types[id] = src.tokens[id], ggufNormal
		}
	}
	for _, a := range src.added {
		if a.normalized && (src.pieces || src.rules.nfc) {
			return Keys{}, fmt.Errorf("added token %q is looked for in normalised text, which GGUF can not say", a.content)
		}
		switch {
		case !a.special:
			k.Types[a.id] = ggufUserDefined
			if src.pieces {
				k.Tokens[a.id] = strings.ReplaceAll(a.content, blank, " ")
			}
		case src.pieces && a.content == "<unk>":
			k.Types[a.id] = ggufUnknown
		default:
			k.Types[a.id] = ggufControl
		}
	}
	meta := map[string]any{"tokenizer.ggml.tokens": k.Tokens, "tokenizer.ggml.token_type": k.Types}
	if src.pieces {
		// The order of the ids is the order of the merges in Gemma's vocabulary; that it is, is checked below.
		k.Model, k.Scores = "llama", make([]float64, size)
		for id, typ := range k.Types {
			if k.Scores[id] = -1000; typ == ggufNormal {
				k.Scores[id] = -float64(id)
			}
		}
		meta["general.architecture"], meta["tokenizer.ggml.scores"] = "gemma3", k.Scores
	} else {
		for _, name := range []string{"gpt-2", "smollm", "qwen2", "llama-bpe"} {
			if ggufRules[name] == src.rules {
				k.Pre = name
			}
		}
		if k.Pre == "" {
			return Keys{}, errors.New("no name of tokenizer.ggml.pre stands for its rules of cutting text; export as safetensors")
		}
		k.Merges = make([]string, len(src.merges))
		for i, m := range src.merges {
			k.Merges[i] = m.left + " " + m.right
		}
		meta["tokenizer.ggml.merges"], meta["tokenizer.ggml.pre"] = k.Merges, k.Pre
	}
	meta["tokenizer.ggml.model"] = k.Model
	back, err := ggufSource(meta)
	if err != nil {
		return Keys{}, err
	}
	return k, sameKeys(src, back)
}

func isPieceByte(s string) bool { _, ok := pieceByte(s); return ok }

// sameKeys is same for keys made of want: there unused ids have a text, added tokens stand in order of their ids, and
// the ones that SentencePiece marks as control or unknown are special.
func sameKeys(want, got source) error {
	tokens := slices.Clone(got.tokens)
	for id, s := range tokens {
		if s == fmt.Sprintf("[PAD%d]", id) && (id >= len(want.tokens) || want.tokens[id] == "") {
			tokens[id] = ""
		}
	}
	want.added, got.tokens = slices.Clone(want.added), tokens
	for i := range want.added {
		want.added[i].normalized = false
	}
	slices.SortFunc(want.added, func(a, b addedSource) int { return int(a.id - b.id) })
	return same(want, got)
}
