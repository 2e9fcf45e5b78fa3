package tokenizer_test

import (
	"go/build"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

// benchTexts returns three texts in pieces of 4,000 characters: the sources of
// Go's net/http, the comments of Go's standard library as prose, and sentences
// in many scripts (the class "multi" of the recorded cases).
func benchTexts(b *testing.B) map[string][]string {
	b.Helper()
	const most = 2 << 20
	var code, prose, multi strings.Builder
	root := filepath.Join(build.Default.GOROOT, "src")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.Contains(path, "testdata") {
			return err
		}
		if filepath.Base(filepath.Dir(path)) != "http" && (prose.Len() > most || strings.HasSuffix(path, "_test.go")) {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if filepath.Base(filepath.Dir(path)) == "http" && code.Len() < most {
			code.Write(data)
		}
		for line := range strings.Lines(string(data)) {
			if s, ok := strings.CutPrefix(line, "// "); ok && prose.Len() < most && !strings.HasPrefix(s, "Copyright") && !strings.Contains(s, "license") {
				prose.WriteString(s)
			}
		}
		return nil
	})
	if err != nil {
		b.Skipf("the sources of Go are not here: %v", err)
	}
	for _, c := range loadCases(b) {
		if c.Class == "multi" {
			multi.WriteString(c.Text + "\n")
		}
	}
	texts := map[string][]string{}
	for name, s := range map[string]string{"prose": prose.String(), "code": code.String(), "multi": multi.String()} {
		for part := range slices.Chunk([]rune(s), 4000) {
			texts[name] = append(texts[name], string(part))
		}
	}
	return texts
}

func BenchmarkEncode(b *testing.B) {
	texts := benchTexts(b)
	for _, m := range []struct {
		name string
		load func(testing.TB) *tokenizer.Tokenizer
	}{
		{"smollm2", loadSmolLM2},
		{"qwen3", func(b testing.TB) *tokenizer.Tokenizer { return loadJSON(b, "CHARACTER_TEST_QWEN3_TOKENIZER", "qwen3") }},
		{"gemma3", loadGemma3},
	} {
		b.Run(m.name, func(b *testing.B) {
			tok := m.load(b)
			for _, name := range []string{"prose", "code", "multi"} {
				b.Run(name, func(b *testing.B) {
					size := 0
					for _, s := range texts[name] {
						size += len(s)
					}
					b.SetBytes(int64(size))
					b.ReportAllocs()
					for b.Loop() {
						for _, s := range texts[name] {
							tok.Encode(s)
						}
					}
				})
			}
		})
	}
}

func BenchmarkFromJSON(b *testing.B) {
	for _, m := range []struct{ name, env string }{{"qwen3", "CHARACTER_TEST_QWEN3_TOKENIZER"}, {"gemma3", "CHARACTER_TEST_GEMMA3_TOKENIZER"}} {
		b.Run(m.name, func(b *testing.B) {
			data, err := os.ReadFile(need(b, m.env, m.name))
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := tokenizer.FromJSON(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
