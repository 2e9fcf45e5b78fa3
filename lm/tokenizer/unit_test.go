package tokenizer_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

// byteSpelling is GPT-2's byte alphabet, written a second time for the tests.
func byteSpelling(b byte) string {
	if b >= 0x21 && b <= 0x7E || b >= 0xA1 && b <= 0xAC || b >= 0xAE {
		return string(rune(b))
	}
	n := 0
	for c := range int(b) {
		if !(c >= 0x21 && c <= 0x7E || c >= 0xA1 && c <= 0xAC || c >= 0xAE) {
			n++
		}
	}
	return string(rune(256 + n))
}

// tiny is a vocabulary of the 256 bytes and a few merges: ids 0-255 are the
// bytes, then the merges in order, then the added tokens.
func tiny(pre string) map[string]any {
	var tokens []string
	for b := range 256 {
		tokens = append(tokens, byteSpelling(byte(b)))
	}
	merges := []string{"h e", "l l", "he ll", "hell o", "Ġ w", "o r", "1 2", "Ċ Ċ", "Ġ Ġ"}
	for _, m := range merges {
		tokens = append(tokens, strings.ReplaceAll(m, " ", ""))
	}
	types := make([]int64, len(tokens))
	for i := range types {
		types[i] = 1
	}
	tokens = append(tokens, "<|start|>", "<|end|>", "<think>", "<|end|>more")
	types = append(types, 3, 3, 4, 4)
	return map[string]any{
		"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
		"tokenizer.ggml.merges": merges, "tokenizer.ggml.token_type": types,
		"tokenizer.ggml.bos_token_id": uint64(265), "tokenizer.ggml.eos_token_id": uint64(266),
	}
}

func mustGGUF(t testing.TB, meta map[string]any) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := tokenizer.FromGGUF(meta)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// pieces spells ids out, with | between them.
func pieces(tok *tokenizer.Tokenizer, ids []int32) string {
	var p []string
	for _, id := range ids {
		p = append(p, string(tok.TokenBytes(id)))
	}
	return strings.Join(p, "|")
}

func TestEncodeTiny(t *testing.T) {
	tests := []struct{ pre, text, all, ordinary string }{
		{"gpt-2", "hello", "hello", ""},
		{"gpt-2", "hell hell", "hell| |hell", ""},
		{"gpt-2", "a  word", "a| | w|or|d", ""},   // the last space goes with the word
		{"gpt-2", "a  ", "a|  ", ""},              // at the end it stays
		{"gpt-2", "\n\nhello", "\n|\n|hello", ""}, // \s+(?!\S) leaves one newline over
		{"qwen2", "\n\nhello", "\n\n|hello", ""},  // \s*[\r\n]+ takes both
		{"smollm", "1212", "1|2|1|2", ""},         // digits one by one
		{"gpt-2", "1212", "12|12", ""},            // a run
		{"llama-bpe", "1212", "12|1|2", ""},       // three and one
		{"gpt-2", "<|start|>hello<|end|>", "<|start|>|hello|<|end|>", "<|||s|t|a|r|t|||>|hello|<|||e|n|d|||>"},
		{"gpt-2", "<think>hello", "<think>|hello", "<think>|hello"}, // added but not special
		{"gpt-2", "<|end|>more", "<|end|>more", "<|end|>more"},      // longest first
		{"gpt-2", "<|end|<|end|>", "<|||e|n|d|||<|end|>", "<|||e|n|d|||<|||e|n|d|||>"},
		{"gpt-2", "", "", ""},
		{"gpt-2", "\xff\xfeé", "\xff|\xfe|\xc3|\xa9", ""},
	}
	for _, c := range tests {
		tok := mustGGUF(t, tiny(c.pre))
		if got := pieces(tok, tok.Encode(c.text)); got != c.all {
			t.Errorf("%s: Encode(%q) = %q, want %q", c.pre, c.text, got, c.all)
		}
		want := c.ordinary
		if want == "" {
			want = c.all
		}
		if got := pieces(tok, tok.EncodeOrdinary(c.text)); got != want {
			t.Errorf("%s: EncodeOrdinary(%q) = %q, want %q", c.pre, c.text, got, want)
		}
	}
}

func TestLookups(t *testing.T) {
	tok := mustGGUF(t, tiny("gpt-2"))
	if n := tok.Size(); n != 269 {
		t.Errorf("Size %d", n)
	}
	if id, ok := tok.ID("Ġw"); !ok || id != 260 || string(tok.TokenBytes(id)) != " w" || tok.Token(id) != "Ġw" {
		t.Errorf("ID(Ġw) = %d %v", id, ok)
	}
	if bos, ok := tok.BOS(); !ok || bos != 265 || !tok.IsSpecial(bos) {
		t.Errorf("BOS %d", bos)
	}
	if eos, ok := tok.EOS(); !ok || eos != 266 {
		t.Errorf("EOS %d", eos)
	}
	if tok.IsSpecial(267) || tok.IsSpecial(-1) || tok.IsSpecial(1<<30) || tok.TokenBytes(-5) != nil || tok.TokenBytes(1<<30) != nil {
		t.Error("a wrong id is special or has bytes")
	}
	if got := tok.Decode([]int32{265, 104, -1, 1 << 30, 266}); got != "<|start|>h<|end|>" {
		t.Errorf("Decode %q", got)
	}
	if got := tok.DecodeText([]int32{265, 104, 267, 266}); got != "h<think>" {
		t.Errorf("DecodeText %q", got)
	}
	id, start, end, ok := tok.FindSpecial("a<think><|end|>more<|end|>")
	if !ok || id != 266 || start != 19 || end != 26 {
		t.Errorf("FindSpecial %d %d %d %v", id, start, end, ok)
	}
	if _, _, _, ok := tok.FindSpecial("<think>"); ok {
		t.Error("FindSpecial found a token that is not special")
	}
	other := tiny("gpt-2")
	other["tokenizer.ggml.eos_token_id"] = uint64(265)
	if tok.Hash() != mustGGUF(t, tiny("gpt-2")).Hash() || tok.Hash() == mustGGUF(t, other).Hash() || len(tok.Hash()) != 64 {
		t.Error("Hash does not name the tokenizer")
	}
}

// TestLossy: U+FFFD for each maximal subpart, examples of the Unicode standard 3.9.
func TestLossy(t *testing.T) {
	tok := mustGGUF(t, tiny("gpt-2"))
	for in, want := range map[string]string{
		"\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64": "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd",
		"\xE0\x80\x80":        "\uFFFD\uFFFD\uFFFD",
		"\xED\xA0\x80":        "\uFFFD\uFFFD\uFFFD",
		"\xF4\x91\x92\x93":    "\uFFFD\uFFFD\uFFFD\uFFFD",
		"\xF0\x9F\x98":        "\uFFFD",
		"ok \xF0\x9F\x98\x80": "ok 😀",
	} {
		ids := tok.Encode(in)
		if got := tok.Decode(ids); got != want {
			t.Errorf("Decode of bytes %q = %q, want %q", in, got, want)
		}
		checkRoundTrip(t, tok, ids)
	}
}

func TestStreamHoldsBack(t *testing.T) {
	tok := mustGGUF(t, tiny("gpt-2"))
	s := tok.NewStream()
	var got []string
	for _, id := range tok.Encode("a😀<|end|>é\xF0\x9Fb\xE2\x82") {
		got = append(got, s.Push(id))
	}
	got = append(got, s.Flush(), s.Flush())
	want := []string{"a", "", "", "", "😀", "", "", "é", "", "", "\uFFFDb", "", "", "\uFFFD", ""}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestLongWord: merging is n log n, so a word of 400,000 letters takes a
// moment; a quadratic algorithm would run into the test's own time limit.
func TestLongWord(t *testing.T) {
	tok := mustGGUF(t, tiny("gpt-2"))
	for _, w := range []string{"hell", "a", " ", "\n", "'s", "é", "\u0301", "<|en", "<"} {
		text := strings.Repeat(w, 400_000/len(w))
		if got := tok.Decode(tok.Encode(text)); got != text {
			t.Errorf("%q: decoded text differs", w)
		}
	}
}

// TestLongMarks: x/text would put U+034F into a run of more than 30 marks.
func TestLongMarks(t *testing.T) {
	tok := mustGGUF(t, tiny("qwen2"))
	for _, c := range []struct{ in, want string }{
		{"e" + strings.Repeat("\u0301", 40), "é" + strings.Repeat("\u0301", 39)},
		{"e" + strings.Repeat("\u0301\u0323", 20), "ẹ" + strings.Repeat("\u0323", 19) + strings.Repeat("\u0301", 20)},
		{strings.Repeat("\u0316", 40) + "한" + "\u1112\u1161\u11ab", strings.Repeat("\u0316", 40) + "한한"},
	} {
		if got := tok.Decode(tok.Encode(c.in)); got != c.want {
			t.Errorf("NFC of %+q is %+q, want %+q", c.in, got, c.want)
		}
	}
}

// jsonFile is a small tokenizer.json, to be bent by tests.
func jsonFile() map[string]any {
	vocab := map[string]any{}
	for b := range 256 {
		vocab[byteSpelling(byte(b))] = b
	}
	vocab["he"], vocab["ll"], vocab["hell"] = 256, 257, 258
	return map[string]any{
		"added_tokens": []any{map[string]any{"id": 259, "content": "<|end|>", "special": true}},
		"normalizer":   map[string]any{"type": "NFC"},
		"pre_tokenizer": map[string]any{"type": "Sequence", "pretokenizers": []any{
			map[string]any{"type": "Digits", "individual_digits": true},
			map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
		}},
		"post_processor": map[string]any{"type": "TemplateProcessing", "single": []any{
			map[string]any{"SpecialToken": map[string]any{"id": "<|end|>"}}, map[string]any{"Sequence": map[string]any{"id": "A"}}}},
		"model": map[string]any{"type": "BPE", "vocab": vocab, "merges": []any{"h e", []any{"l", "l"}, []any{"he", "ll"}}},
	}
}

func TestFromJSON(t *testing.T) {
	data, err := json.Marshal(jsonFile())
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.FromJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	if got := pieces(tok, tok.Encode("hell 12<|end|>e\u0301")); got != "hell| |1|2|<|end|>|\xc3|\xa9" {
		t.Errorf("Encode gave %q", got)
	}
	if bos, ok := tok.BOS(); !ok || bos != 259 {
		t.Errorf("BOS %d %v", bos, ok)
	}
	if _, ok := tok.EOS(); ok {
		t.Error("EOS without a source")
	}
	if err := tok.ReadConfig([]byte(`{"bos_token":null,"eos_token":{"content":"<|end|>"}}`)); err != nil {
		t.Error(err)
	}
	if eos, ok := tok.EOS(); !ok || eos != 259 {
		t.Errorf("EOS %d %v", eos, ok)
	}
	if err := tok.ReadConfig([]byte(`{"eos_token":"<none>"}`)); err == nil || !strings.Contains(err.Error(), "<none>") {
		t.Errorf("unknown eos_token: %v", err)
	}
}

func TestBadJSON(t *testing.T) {
	model := func(f map[string]any) map[string]any { return f["model"].(map[string]any) }
	vocab := func(f map[string]any) map[string]any { return model(f)["vocab"].(map[string]any) }
	tests := []struct {
		name, want string
		bend       func(f map[string]any)
	}{
		{"unigram", `"Unigram"`, func(f map[string]any) { model(f)["type"] = "Unigram" }},
		{"byte fallback", "byte_fallback", func(f map[string]any) { model(f)["byte_fallback"] = true }},
		{"dropout", "dropout", func(f map[string]any) { model(f)["dropout"] = 0.1 }},
		{"merge not in vocab", `"zz" is not in`, func(f map[string]any) { model(f)["merges"] = []any{"zz e"} }},
		{"merged not in vocab", `make "eh"`, func(f map[string]any) { model(f)["merges"] = []any{"e h"} }},
		{"merge of three", "one space", func(f map[string]any) { model(f)["merges"] = []any{"h e l"} }},
		{"merge of one", "a string should", func(f map[string]any) { model(f)["merges"] = []any{[]any{"h"}} }},
		{"merge of numbers", "a string should", func(f map[string]any) { model(f)["merges"] = []any{1} }},
		{"merges no list", "no list", func(f map[string]any) { model(f)["merges"] = "x" }},
		{"vocab no object", "no object", func(f map[string]any) { model(f)["vocab"] = []any{} }},
		{"empty vocab", "empty", func(f map[string]any) { model(f)["vocab"] = map[string]any{}; f["added_tokens"] = nil }},
		{"negative id", "whole number", func(f map[string]any) { vocab(f)["x"] = -1 }},
		{"id is text", "whole number", func(f map[string]any) { vocab(f)["x"] = "1" }},
		{"fractional id", "whole number", func(f map[string]any) { vocab(f)["x"] = 1.5 }},
		{"huge id", "whole number", func(f map[string]any) { vocab(f)["x"] = 1 << 40 }},
		{"sparse id", "largest id", func(f map[string]any) { vocab(f)["x!"] = 1 << 21 }},
		{"one id twice", "two tokens", func(f map[string]any) { vocab(f)["he he"] = 256 }},
		{"added id clash", "two tokens", func(f map[string]any) {
			f["added_tokens"] = []any{map[string]any{"id": 3, "content": "<x>"}}
		}},
		{"added twice", "two ids", func(f map[string]any) {
			f["added_tokens"] = []any{map[string]any{"id": 300, "content": "<x>"}, map[string]any{"id": 301, "content": "<x>"}}
		}},
		{"added negative", "impossible id", func(f map[string]any) {
			f["added_tokens"] = []any{map[string]any{"id": -3, "content": "<x>"}}
		}},
		{"added empty", "empty", func(f map[string]any) { f["added_tokens"] = []any{map[string]any{"id": 300, "content": ""}} }},
		{"added lstrip", "lstrip", func(f map[string]any) {
			f["added_tokens"] = []any{map[string]any{"id": 300, "content": "<x>", "lstrip": true}}
		}},
		{"special by merge", "not safe", func(f map[string]any) {
			f["added_tokens"] = []any{map[string]any{"id": 258, "content": "hell", "special": true}}
		}},
		{"normalizer", `"Lowercase"`, func(f map[string]any) { f["normalizer"] = map[string]any{"type": "Lowercase"} }},
		{"pre-tokenizer", `"Metaspace"`, func(f map[string]any) { f["pre_tokenizer"] = map[string]any{"type": "Metaspace"} }},
		{"no pre-tokenizer", "no ByteLevel", func(f map[string]any) { f["pre_tokenizer"] = nil }},
		{"prefix space", "add_prefix_space", func(f map[string]any) { f["pre_tokenizer"] = map[string]any{"type": "ByteLevel"} }},
		{"pattern", "pattern", func(f map[string]any) {
			f["pre_tokenizer"] = map[string]any{"type": "Split", "pattern": map[string]any{"Regex": `\w+`}, "behavior": "Isolated"}
		}},
		{"nested", "deep", func(f map[string]any) {
			p := f["pre_tokenizer"]
			for range 20 {
				p = map[string]any{"type": "Sequence", "pretokenizers": []any{p}}
			}
			f["pre_tokenizer"] = p
		}},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			f := jsonFile()
			c.bend(f)
			data, err := json.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = tokenizer.FromJSON(data); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	for _, s := range []string{"", "{", "[]", `"x"`, "\xff", `{"model":{"type":"BPE"}}`} {
		if _, err := tokenizer.FromJSON([]byte(s)); err == nil {
			t.Errorf("FromJSON(%q) gave no error", s)
		}
	}
}

func TestBadGGUF(t *testing.T) {
	const p = "tokenizer.ggml."
	tests := []struct {
		key  string
		val  any
		want string
	}{
		{"model", nil, "missing"}, {"model", "llama", `"llama"`}, {"pre", "bloom", `"bloom"`}, {"pre", nil, "pre-tokenizer"},
		{"tokens", nil, "missing"}, {"tokens", []string{}, "token types"}, {"tokens", []string{"a", "a"}, "token types"},
		{"merges", nil, "missing"}, {"merges", []string{"ab"}, "one space"}, {"merges", []string{"h  e"}, "one space"},
		{"merges", []string{" e"}, "not in the vocabulary"}, {"merges", []string{"q x"}, "make"},
		{"eos_token_id", uint64(1 << 63), "out of range"}, {"eos_token_id", int64(-1), "out of range"},
		{"bos_token_id", uint64(100000), "not in the vocabulary"}, {"bos_token_id", "x", "not a number"},
	}
	for _, c := range tests {
		meta := tiny("gpt-2")
		meta[p+c.key] = c.val
		if c.val == nil {
			delete(meta, p+c.key)
		}
		if _, err := tokenizer.FromGGUF(meta); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %v: error %v, want one with %q", c.key, c.val, err, c.want)
		}
	}
	meta := tiny("gpt-2")
	tokens := slices.Clone(meta[p+"tokens"].([]string))
	tokens[7] = tokens[8]
	meta[p+"tokens"] = tokens
	if _, err := tokenizer.FromGGUF(meta); err == nil || !strings.Contains(err.Error(), "two ids") {
		t.Errorf("duplicate token: %v", err)
	}
}

func ExampleTokenizer_EncodeOrdinary() {
	tok, err := tokenizer.FromGGUF(tiny("gpt-2"))
	if err != nil {
		panic(err)
	}
	fmt.Println(len(tok.Encode("<|end|>")), len(tok.EncodeOrdinary("<|end|>")))
	// Output: 1 7
}

// TestParallel: one tokenizer serves many goroutines (the word cache is shared).
func TestParallel(t *testing.T) {
	tok := mustGGUF(t, tiny("llama-bpe"))
	var texts []string
	for i := range 400 {
		texts = append(texts, fmt.Sprintf("hello word%d 12%d<|end|> hell", i%97, i))
	}
	var want [][]int32
	for _, s := range texts {
		want = append(want, mustGGUF(t, tiny("llama-bpe")).Encode(s))
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i, s := range texts {
				if !slices.Equal(tok.Encode(s), want[i]) {
					t.Errorf("Encode(%q) differs", s)
				}
			}
			tok.Hash()
		})
	}
	wg.Wait()
}
