package tokenizer_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

// TestConvertReal turns the files of published models into GGUF keys and back: the ids of texts stay the same on the way.
func TestConvertReal(t *testing.T) {
	words := strings.Fields("The quick brown fox; jumps over 1234 lazy dogs' don't I'M naïve façade 東京 ½ ok")
	texts := []string{"", " ", strings.Join(words, " "), strings.Join(words, "\n\t  "), "<|im_start|>user\nHi<|im_end|>\n", "<start_of_turn>user\n  x<end_of_turn>"}
	for _, c := range []struct {
		name, env string
		size      int
		bos, eos  uint64
	}{{"qwen3", "CHARACTER_TEST_QWEN3_TOKENIZER", 151936, 151643, 151645}, {"gemma3", "CHARACTER_TEST_GEMMA3_TOKENIZER", 262208, 2, 1}} {
		t.Run(c.name, func(t *testing.T) {
			data, err := os.ReadFile(need(t, c.env, c.name))
			if err != nil {
				t.Fatal(err)
			}
			k, err := tokenizer.KeysFromJSON(data, c.size)
			if err != nil {
				t.Fatal(err)
			}
			meta := map[string]any{"general.architecture": c.name, "tokenizer.ggml.model": k.Model, "tokenizer.ggml.tokens": k.Tokens,
				"tokenizer.ggml.token_type": k.Types, "tokenizer.ggml.add_bos_token": k.AddBOS, "tokenizer.ggml.bos_token_id": c.bos, "tokenizer.ggml.eos_token_id": c.eos}
			if k.Model == "llama" {
				meta["tokenizer.ggml.scores"] = k.Scores
			} else {
				meta["tokenizer.ggml.pre"], meta["tokenizer.ggml.merges"] = k.Pre, k.Merges
			}
			back, err := tokenizer.JSONFromGGUF(meta)
			if err != nil {
				t.Fatal(err)
			}
			want, err := tokenizer.FromJSON(data)
			if err != nil {
				t.Fatal(err)
			}
			inGGUF, err := tokenizer.FromGGUF(meta)
			if err != nil {
				t.Fatal(err)
			}
			inJSON, err := tokenizer.FromJSON(back)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range texts {
				ids := want.Encode(s)
				if got := inGGUF.Encode(s); !slices.Equal(got, ids) {
					t.Errorf("%q in GGUF: %v, want %v", s, got, ids)
				}
				if got := inJSON.Encode(s); !slices.Equal(got, ids) {
					t.Errorf("%q in the written tokenizer.json: %v, want %v", s, got, ids)
				}
			}
		})
	}
}
