package tokenizer

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// metaOf makes metadata of keys, as a GGUF file has them.
func metaOf(k Keys, bos, eos int) map[string]any {
	m := map[string]any{"tokenizer.ggml.model": k.Model, "tokenizer.ggml.tokens": k.Tokens, "tokenizer.ggml.token_type": k.Types,
		"tokenizer.ggml.add_bos_token": k.AddBOS, "tokenizer.ggml.bos_token_id": uint64(bos), "tokenizer.ggml.eos_token_id": uint64(eos)}
	if k.Model == "llama" {
		m["general.architecture"], m["tokenizer.ggml.scores"] = "gemma3", k.Scores
	} else {
		m["tokenizer.ggml.pre"], m["tokenizer.ggml.merges"] = k.Pre, k.Merges
	}
	return m
}

// smallJSON is a byte-level vocabulary with the letters a to e, three merges, an unused id and the given rules.
func smallJSON(t testing.TB, normalizer, pre any, ignoreMerges bool) []byte {
	t.Helper()
	vocab := map[string]int{"a": 0, "b": 1, "c": 2, "Ġ": 3, "ab": 4, "abc": 5, "Ġabc": 6, "<end>": 8, "é": 9, "1": 10, "Ċ": 11}
	text, err := json.Marshal(map[string]any{
		"added_tokens":   []any{map[string]any{"id": 8, "content": "<end>", "special": true}, map[string]any{"id": 9, "content": "é"}},
		"normalizer":     normalizer,
		"pre_tokenizer":  pre,
		"post_processor": map[string]any{"type": "TemplateProcessing", "single": []any{map[string]any{"SpecialToken": map[string]any{"id": "<end>"}}}},
		"model":          map[string]any{"type": "BPE", "vocab": vocab, "merges": []string{"a b", "ab c", "Ġ abc"}, "ignore_merges": ignoreMerges},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func byteLevel(regex bool) map[string]any {
	return map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": regex}
}

func cutBy(pattern string) map[string]any {
	return map[string]any{"type": "Split", "pattern": map[string]any{"Regex": pattern}, "behavior": "Isolated"}
}

func sequence(steps ...any) map[string]any {
	return map[string]any{"type": "Sequence", "pretokenizers": steps}
}

// texts have words, spaces, digits, lines and the added tokens.
var texts = []string{"", "abc", " abc abc", "ab<end>c", "é a1b12 111", "<end><end>", "abcab\n\n  abc", "e\u0301 ab", "cab cabc"}

// TestConvertByteLevel goes from tokenizer.json to GGUF keys and back, for the rules of each family.
func TestConvertByteLevel(t *testing.T) {
	for _, c := range []struct {
		pre  string
		text []byte
	}{
		{"gpt-2", smallJSON(t, nil, byteLevel(true), false)},
		{"smollm", smallJSON(t, nil, sequence(map[string]any{"type": "Digits", "individual_digits": true}, byteLevel(true)), false)},
		{"qwen2", smallJSON(t, map[string]any{"type": "NFC"}, sequence(cutBy(patternQwen), byteLevel(false)), false)},
		{"llama-bpe", smallJSON(t, nil, sequence(cutBy(patternLlama3), byteLevel(false)), true)},
	} {
		t.Run(c.pre, func(t *testing.T) {
			k, err := KeysFromJSON(c.text, 14)
			if err != nil {
				t.Fatal(err)
			}
			if k.Pre != c.pre || !k.AddBOS || len(k.Tokens) != 14 || k.Tokens[13] != "[PAD13]" || k.Types[7] != ggufUnused || k.Types[8] != ggufControl || k.Types[9] != ggufUserDefined {
				t.Errorf("keys %+v", k)
			}
			back, err := JSONFromGGUF(metaOf(k, 8, 8))
			if err != nil {
				t.Fatal(err)
			}
			alike(t, c.text, back, texts)
			again, err := KeysFromJSON(back, 14)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(again.Tokens, k.Tokens) || !slices.Equal(again.Merges, k.Merges) || again.Pre != k.Pre || again.AddBOS != k.AddBOS {
				t.Errorf("keys of the written file: %+v, want %+v", again, k)
			}
		})
	}
}

// alike compares two files by the ids of texts.
func alike(t *testing.T, first, second []byte, texts []string) {
	t.Helper()
	a, err := FromJSON(first)
	if err != nil {
		t.Fatal(err)
	}
	b, err := FromJSON(second)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range texts {
		for name, encode := range map[string]func(*Tokenizer) []int32{
			"Encode":         func(t *Tokenizer) []int32 { return t.Encode(s) },
			"EncodeOrdinary": func(t *Tokenizer) []int32 { return t.EncodeOrdinary(s) },
		} {
			if x, y := encode(a), encode(b); !slices.Equal(x, y) {
				t.Errorf("%s(%q): %v, and %v of the written file", name, s, x, y)
			}
		}
	}
	if x, y := a.bos, b.bos; x != y {
		t.Errorf("begin token %d, and %d of the written file", x, y)
	}
}

func TestConvertRefuses(t *testing.T) {
	good := smallJSON(t, nil, byteLevel(true), false)
	groups := smallJSON(t, nil, sequence(map[string]any{"type": "Digits", "individual_digits": false}, byteLevel(true)), false)
	if _, err := KeysFromJSON(groups, 12); err == nil || !strings.Contains(err.Error(), "export as safetensors") {
		t.Errorf("rules without a name: %v", err)
	}
	if _, err := KeysFromJSON(good, 5); err == nil || !strings.Contains(err.Error(), "do not belong together") {
		t.Errorf("more ids than rows: %v", err)
	}
	k, err := KeysFromJSON(good, 12)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(m map[string]any){
		"is not valid UTF-8":      func(m map[string]any) { m["tokenizer.ggml.tokens"] = append(slices.Clone(k.Tokens[:11]), "\xff") },
		"bos_token_id is missing": func(m map[string]any) { delete(m, "tokenizer.ggml.bos_token_id") },
		"eos_token_id is missing": func(m map[string]any) {
			m["tokenizer.ggml.add_eos_token"] = true
			delete(m, "tokenizer.ggml.eos_token_id")
		},
		`pre-tokenizer "x"`:           func(m map[string]any) { m["tokenizer.ggml.pre"] = "x" },
		"the file holds no tokenizer": func(m map[string]any) { clear(m) },
	} {
		m := maps.Clone(metaOf(k, 8, 8))
		change(m)
		if _, err := JSONFromGGUF(m); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
}

func TestSameMerges(t *testing.T) {
	list := func(text string) (out []mergeText) {
		for _, m := range strings.Fields(text) {
			out = append(out, mergeText{m[:1], m[1:]})
		}
		return out
	}
	for _, c := range []struct {
		want, got string
		same      bool
	}{
		{"ab cd", "ab cd", true},
		{"ab cd", "cd ab", true},  // no text offers both at one place
		{"ab bc", "bc ab", false}, // abc does
		{"ab ca", "ca ab", false}, // cab does
		{"ab cd ef", "ef ab cd", true},
		{"ab cd be", "be ab cd", false},
		{"ab cd", "ab ce", false},
		{"ab cd", "ab", false},
	} {
		if got := sameMerges(list(c.want), list(c.got)); got != c.same {
			t.Errorf("%s and %s: %v", c.want, c.got, got)
		}
	}
}

// FuzzConvert: what is written of any file is read back, and gives the ids that the file gives.
func FuzzConvert(f *testing.F) {
	f.Add(smallJSON(f, nil, byteLevel(true), false), "ab<end>c é")
	f.Add(smallJSON(f, map[string]any{"type": "NFC"}, sequence(cutBy(patternQwen), byteLevel(false)), false), "abc 1")
	f.Add(smallJSON(f, nil, sequence(cutBy(patternLlama3), byteLevel(false)), true), "\n\n abc")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		if len(data) > 1<<16 {
			return
		}
		a, err := FromJSON(data)
		if err != nil {
			return
		}
		k, err := KeysFromJSON(data, a.Size()+1)
		if err != nil {
			return
		}
		meta := metaOf(k, 0, 0)
		meta["tokenizer.ggml.add_bos_token"] = false // which token begins a text is the caller's
		b, err := FromGGUF(meta)
		if err != nil {
			if strings.Contains(err.Error(), "begin token") || strings.Contains(err.Error(), "end token") {
				return // id 0 is no token of this one
			}
			t.Fatalf("the keys are not read back: %v", err)
		}
		back, err := JSONFromGGUF(meta)
		if err != nil {
			t.Fatalf("the keys give no tokenizer.json: %v", err)
		}
		c, err := FromJSON(back)
		if err != nil {
			t.Fatalf("the tokenizer.json is not read back: %v", err)
		}
		want := a.Encode(text)
		if got := b.Encode(text); !slices.Equal(got, want) {
			t.Errorf("%q: %v of GGUF, want %v", text, got, want)
		}
		if got := c.Encode(text); !slices.Equal(got, want) {
			t.Errorf("%q: %v of the written tokenizer.json, want %v", text, got, want)
		}
	})
}
