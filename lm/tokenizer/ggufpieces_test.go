package tokenizer_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/tokenizer"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

// piecesMeta writes the keys that llama.cpp's converter makes of a Gemma
// vocabulary: scores and no merges. Added tokens have -1000, the score of all
// others falls with the id. With looks, tokens that look like control tokens to
// the converter are marked so, and the list is filled up as it fills it.
func piecesMeta(t testing.TB, file map[string]any, looks bool) map[string]any {
	t.Helper()
	vocab := file["model"].(map[string]any)["vocab"].(map[string]any)
	number := func(v any) int {
		if f, ok := v.(float64); ok {
			return int(f)
		}
		return v.(int)
	}
	size := 0
	for _, id := range vocab {
		size = max(size, number(id)+1)
	}
	for _, a := range file["added_tokens"].([]any) {
		size = max(size, number(a.(map[string]any)["id"])+1)
	}
	tokens, types, scores := make([]string, size), make([]int64, size), make([]float64, size)
	for s, id := range vocab {
		tokens[number(id)], types[number(id)] = s, 1
		if len(s) == 6 && strings.HasPrefix(s, "<0x") {
			types[number(id)] = 6
		}
	}
	for _, e := range file["added_tokens"].([]any) {
		a := e.(map[string]any)
		id, s := number(a["id"]), a["content"].(string)
		if a["special"].(bool) || looks && (s == "<mask>" || strings.HasPrefix(s, "<unused")) {
			tokens[id], types[id] = s, 3
		} else {
			tokens[id], types[id] = strings.ReplaceAll(s, "▁", " "), 4
		}
		scores[id] = -1000
	}
	first := -1
	for id, typ := range types {
		if typ == 1 {
			if first < 0 {
				first = id
			}
			scores[id] = -float64(id - first)
		}
	}
	if looks {
		for len(tokens)%64 != 0 {
			tokens, types, scores = append(tokens, fmt.Sprintf("[PAD%d]", len(tokens))), append(types, 5), append(scores, -10000)
		}
	}
	return map[string]any{
		"general.architecture": "gemma3", "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.tokens": tokens,
		"tokenizer.ggml.scores": scores, "tokenizer.ggml.token_type": types, "tokenizer.ggml.add_space_prefix": false, "tokenizer.ggml.bos_token_id": uint64(2),
	}
}

// TestGemma3GGUF proves that the vocabulary of a GGUF, which has scores and no
// merges, gives the tokenizer that Gemma 3's tokenizer.json gives: with the same
// marks of special tokens the two are equal down to the rank of every merge,
// and with the marks of llama.cpp's converter they encode and decode alike.
func TestGemma3GGUF(t *testing.T) {
	tok := loadGemma3(t)
	data, err := os.ReadFile(os.Getenv("CHARACTER_TEST_GEMMA3_TOKENIZER"))
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if got := mustGGUF(t, piecesMeta(t, file, false)).Hash(); got != tok.Hash() {
		t.Error("the GGUF form is another tokenizer")
	}
	meta := mustGGUF(t, piecesMeta(t, file, true))
	for i, c := range loadCases(t) {
		got := meta.Encode(c.Text)
		if !slices.Equal(got, c.Gemma3.IDs) {
			t.Errorf("case %d: Encode(%.200q)\n got %v\nwant %v", i, c.Text, trim(got), trim(c.Gemma3.IDs))
		}
		if a, b := meta.Decode(got), tok.Decode(got); a != b {
			t.Errorf("case %d: Decode gives %.200q, not %.200q", i, a, b)
		}
	}
}

func TestBadPiecesGGUF(t *testing.T) {
	const p = "tokenizer.ggml."
	with := func(list any, at int, v any) any {
		switch l := list.(type) {
		case []float64:
			l = slices.Clone(l)
			l[at] = v.(float64)
			return l
		case []string:
			l = slices.Clone(l)
			l[at] = v.(string)
			return l
		}
		panic("kind")
	}
	good := piecesMeta(t, piecesFile(), true)
	for _, c := range []struct {
		key  string
		val  any
		want string
	}{
		{"general.architecture", "llama", `"llama"`},
		{"general.architecture", nil, "Gemma 3 only"},
		{p + "add_space_prefix", true, "add_space_prefix"},
		{p + "remove_extra_whitespaces", true, "remove_extra_whitespaces"},
		{p + "precompiled_charsmap", []int64{1}, "precompiled_charsmap"},
		{p + "tokens", nil, "missing"},
		{p + "token_type", nil, "0 entries"},
		{p + "token_type", []int64{1}, "1 entries"},
		{p + "scores", nil, "no merges"},
		{p + "scores", []float64{1}, "1 entries"},
		{p + "scores", with(good[p+"scores"], 280, math.NaN()), "token 280"},
		{p + "scores", with(good[p+"scores"], 280, 1.0), "token 280"},
		{p + "merges", "x", "no list"},
		{p + "merges", []string{"▁"}, "one space"},
		{p + "tokens", with(good[p+"tokens"], 280, strings.Repeat("x", 300)), "300 bytes"},
		{p + "tokens", with(good[p+"tokens"], 280, "\xff"), "UTF-8"},
		{p + "tokens", with(good[p+"tokens"], 280, "A"), "two ids"},
		{p + "tokens", with(good[p+"tokens"], 2, ""), "no text"},
		{p + "eos_token_id", uint64(1 << 20), "not in the vocabulary"},
		{p + "eos_token_id", uint64(len(good[p+"tokens"].([]string)) - 1), "not in the vocabulary"}, // [PAD319]
	} {
		meta := piecesMeta(t, piecesFile(), true)
		meta[c.key] = c.val
		if c.val == nil {
			delete(meta, c.key)
		}
		if _, err := tokenizer.FromGGUF(meta); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.key, err, c.want)
		}
	}
	meta := piecesMeta(t, piecesFile(), true)
	delete(meta, p+"scores")
	meta[p+"merges"] = []string{"h e"}
	if tok := mustGGUF(t, meta); spellings(tok, tok.Encode("the")) != "t|he" || !tok.IsSpecial(ids(t, tok, "<unused1>")[0]) {
		t.Error("the file's own merges are not used, or <unused1> is not special")
	}
}

// FuzzPiecesGGUF: a vocabulary with scores is refused or works.
func FuzzPiecesGGUF(f *testing.F) {
	f.Add("the\nthe\n▁the\n he", []byte{1, 1, 1, 4}, []byte{0, 1, 2, 3})
	f.Add("a\naa\naaa\naaaa\n\xff\n", []byte{1, 1, 1, 1, 5, 3}, []byte{0, 0, 0, 9})
	f.Add("<0x+1>\n<0\nx41>\n<0x41>", []byte{1, 1, 1, 1}, []byte{})
	base := piecesMeta(f, piecesFile(), false)
	f.Fuzz(func(t *testing.T, tokens string, types, scores []byte) {
		const p = "tokenizer.ggml."
		list, kinds, s := slices.Clone(base[p+"tokens"].([]string)), slices.Clone(base[p+"token_type"].([]int64)), slices.Clone(base[p+"scores"].([]float64))
		for i, token := range strings.Split(tokens, "\n") {
			list, kinds, s = append(list, token), append(kinds, 1), append(s, s[len(s)-1]-1)
			if i < len(types) {
				kinds[len(kinds)-1] = int64(int8(types[i]))
			}
			if i < len(scores) {
				s[len(s)-1] = s[len(base[p+"scores"].([]float64))-1] - float64(int8(scores[i]))
			}
		}
		var tok *tokenizer.Tokenizer
		var err error
		meta := map[string]any{"general.architecture": "gemma3", p + "model": "llama", p + "tokens": list, p + "token_type": kinds, p + "scores": s}
		hostile.Bounds{Base: 4 << 20, PerByte: 1000}.Hold(t, len(tokens), func() { tok, err = tokenizer.FromGGUF(meta) })
		if err != nil {
			if !strings.HasPrefix(err.Error(), "tokenizer: ") {
				t.Errorf("error %q does not name the package", err)
			}
			return
		}
		for _, text := range []string{tokens, "the the <b>" + tokens, strings.ReplaceAll(tokens, "\n", " ")} {
			checkRoundTrip(t, tok, tok.Encode(text))
			for _, id := range tok.EncodeOrdinary(text) {
				if tok.IsSpecial(id) {
					t.Errorf("EncodeOrdinary(%q) made the special token %q", text, tok.Token(id))
				}
			}
		}
	})
}
