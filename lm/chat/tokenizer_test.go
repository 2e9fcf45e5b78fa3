package chat

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

// need returns the value of an environment variable that names test data. The
// test is skipped without it, or fails where CHARACTER_REQUIRE holds word.
func need(t testing.TB, name, word string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		if slices.Contains(strings.FieldsFunc(os.Getenv("CHARACTER_REQUIRE"), func(r rune) bool { return r == ',' || r == ' ' }), word) {
			t.Fatalf("%s is not set but CHARACTER_REQUIRE asks for %q", name, word)
		}
		t.Skipf("%s is not set", name)
	}
	return v
}

// bytesOnly is a tokenizer whose tokens are the 256 bytes and the special
// tokens of the families the tests use. Some white space merges, so that text
// encoded apart and text encoded together differ.
func bytesOnly(t testing.TB) *tokenizer.Tokenizer {
	t.Helper()
	var tokens []string
	next := rune(256)
	for b := range rune(256) {
		if b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE {
			tokens = append(tokens, string(b))
			continue
		}
		tokens = append(tokens, string(next))
		next++
	}
	merges := []string{"Ċ Ċ", "Ġ Ġ"}
	tokens = append(tokens, "ĊĊ", "ĠĠ")
	types := make([]int64, len(tokens))
	for _, s := range []string{"<bos>", "<eos>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<start_of_turn>", "<end_of_turn>", "<|eot_id|>",
		"<|start_header_id|>", "<|end_header_id|>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"} {
		tokens = append(tokens, s)
		types = append(types, 3)
	}
	tokens = append(tokens, "<think>", "</think>")
	types = append(types, 4, 4)
	id := func(s string) uint64 { return uint64(slices.Index(tokens, s)) }
	tok, err := tokenizer.FromGGUF(map[string]any{
		"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
		"tokenizer.ggml.merges": merges, "tokenizer.ggml.token_type": types,
		"tokenizer.ggml.bos_token_id": id("<bos>"), "tokenizer.ggml.eos_token_id": id("<eos>"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}
