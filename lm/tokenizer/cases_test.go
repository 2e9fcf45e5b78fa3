package tokenizer_test

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

type recorded struct {
	IDs []int32 `json:"ids"`
}

type testCase struct {
	Class    string   `json:"class"`
	Text     string   `json:"text"`
	SmolLM2  recorded `json:"smollm2"`
	Qwen3    recorded `json:"qwen3"`
	Llama3_1 recorded `json:"llama3_1"`
	Gemma3   recorded `json:"gemma3"`
}

// loadCases reads ids that the reference (tokenizers 0.23.2) gave.
func loadCases(t testing.TB) []testCase {
	t.Helper()
	f, err := os.Open(filepath.Join(need(t, "CHARACTER_TESTDATA", "testdata"), "tokenizers", "cases.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var cases []testCase
	for d := json.NewDecoder(z); ; {
		var c testCase
		if err := d.Decode(&c); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	if len(cases) < 1000 {
		t.Fatalf("only %d cases", len(cases))
	}
	return cases
}

func TestReferenceCases(t *testing.T) {
	models := []struct {
		name  string
		load  func(testing.TB) *tokenizer.Tokenizer
		want  func(testCase) []int32
		whole bool // every byte is in the vocabulary
	}{
		{"smollm2", loadSmolLM2, func(c testCase) []int32 { return c.SmolLM2.IDs }, false},
		{"qwen3", func(t testing.TB) *tokenizer.Tokenizer { return loadJSON(t, "CHARACTER_TEST_QWEN3_TOKENIZER", "qwen3") },
			func(c testCase) []int32 { return c.Qwen3.IDs }, true},
		{"llama3.1", func(t testing.TB) *tokenizer.Tokenizer {
			return loadJSON(t, "CHARACTER_TEST_LLAMA3_TOKENIZER", "llama3")
		},
			func(c testCase) []int32 { return c.Llama3_1.IDs }, true},
		{"gemma3", loadGemma3, func(c testCase) []int32 { return c.Gemma3.IDs }, true},
	}
	for _, m := range models {
		t.Run(m.name, func(t *testing.T) {
			tok := m.load(t)
			cases := loadCases(t)
			bad := 0
			for i, c := range cases {
				got, want := tok.Encode(c.Text), m.want(c)
				if !slices.Equal(got, want) {
					if bad++; bad <= 5 {
						t.Errorf("case %d (%s): Encode(%.200q)\n got %v\nwant %v", i, c.Class, c.Text, trim(got), trim(want))
					}
					continue
				}
				checkRoundTrip(t, tok, got)
				if back := tok.Decode(got); m.whole && back != c.Text && back != norm.NFC.String(c.Text) && back != strings.ReplaceAll(c.Text, "▁", " ") {
					t.Errorf("case %d (%s): Decode(Encode(%.200q)) is %.200q", i, c.Class, c.Text, back)
				}
			}
			t.Logf("%d of %d cases equal", len(cases)-bad, len(cases))
		})
	}
}

// checkRoundTrip compares the ways to turn ids into text with each other.
func checkRoundTrip(t testing.TB, tok *tokenizer.Tokenizer, ids []int32) {
	t.Helper()
	var joined []byte
	var text strings.Builder
	s := tok.NewStream()
	for _, id := range ids {
		joined = append(joined, tok.TokenBytes(id)...)
		text.WriteString(s.Push(id))
	}
	text.WriteString(s.Flush())
	if got, want := text.String(), tok.DecodeText(ids); got != want {
		t.Errorf("stream gave %q, DecodeText %q", got, want)
	}
	if got := tok.Decode(ids); utf8.Valid(joined) && got != string(joined) {
		t.Errorf("Decode gave %q of the bytes %q", got, joined)
	}
}

func trim(ids []int32) []int32 { return ids[:min(len(ids), 40)] }
