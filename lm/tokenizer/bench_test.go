package tokenizer_test

import (
	"os"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

func BenchmarkEncode(b *testing.B) {
	var text strings.Builder
	for _, c := range loadCases(b) {
		if c.Class == "code" || c.Class == "src" || c.Class == "multi" {
			text.WriteString(c.Text)
			text.WriteByte('\n')
		}
	}
	for name, load := range map[string]func(testing.TB) *tokenizer.Tokenizer{
		"smollm2": loadSmolLM2,
		"qwen3":   func(b testing.TB) *tokenizer.Tokenizer { return loadJSON(b, "CHARACTER_TEST_QWEN3_TOKENIZER", "qwen3") },
	} {
		b.Run(name, func(b *testing.B) {
			tok := load(b)
			b.SetBytes(int64(text.Len()))
			b.ResetTimer()
			for b.Loop() {
				tok.Encode(text.String())
			}
		})
	}
}

func BenchmarkFromJSON(b *testing.B) {
	data, err := os.ReadFile(need(b, "CHARACTER_TEST_QWEN3_TOKENIZER", "qwen3"))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := tokenizer.FromJSON(data); err != nil {
			b.Fatal(err)
		}
	}
}
