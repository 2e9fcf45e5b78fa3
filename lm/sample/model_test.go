package sample_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/sample"
	"github.com/opencharacter/opencharacter/lm/tokenizer"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// realModel loads the chat model named by CHARACTER_TESTMODEL.
func realModel(t testing.TB, load func(*gguf.File) (*transformer.Model, error)) (*transformer.Model, *tokenizer.Tokenizer, *chat.Format) {
	t.Helper()
	path := os.Getenv("CHARACTER_TESTMODEL")
	if path == "" {
		if slices.Contains(strings.FieldsFunc(os.Getenv("CHARACTER_REQUIRE"), func(r rune) bool { return r == ',' || r == ' ' }), "model") {
			t.Fatal(`CHARACTER_TESTMODEL is not set but CHARACTER_REQUIRE asks for "model"`)
		}
		t.Skip("CHARACTER_TESTMODEL is not set")
	}
	file, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	m, err := load(file)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.FromGGUF(file.Meta)
	if err != nil {
		t.Fatal(err)
	}
	template, _ := file.Meta["tokenizer.chat_template"].(string)
	format, err := chat.New(tok, template)
	if err != nil {
		t.Fatal(err)
	}
	return m, tok, format
}

// TestRealModel: text goes in, a sensible answer comes out, and the training
// path gives it the same log-probs.
func TestRealModel(t *testing.T) {
	t.Run("bf16", func(t *testing.T) { ask(t, transformer.LoadGGUF) })
	t.Run("quantized", func(t *testing.T) { ask(t, transformer.LoadGGUFQuantized) })
}

func ask(t *testing.T, load func(*gguf.File) (*transformer.Model, error)) {
	m, tok, format := realModel(t, load)
	questions := []string{"What is the capital of France? Answer in one sentence.", "What is the capital of Italy? Answer in one sentence."}
	want := []string{"Paris", "Rome"}
	reqs := make([]sample.Request, len(questions))
	for i, q := range questions {
		prompt, err := format.Prompt([]chat.Message{{Role: "user", Content: q}})
		if err != nil {
			t.Fatal(err)
		}
		reqs[i] = sample.Request{Prompt: prompt, Params: sample.Params{MaxTokens: 24, StopTokens: format.EndTokens()}}
	}
	err := sample.Generate(context.Background(), m, nil, reqs, sample.Options{Decode: tok.DecodeText}, func(i int, r sample.Result) error {
		t.Logf("%s %q (%s)", questions[i], r.Text, r.Finish)
		if !strings.Contains(r.Text, want[i]) || r.Finish != sample.FinishStop {
			t.Errorf("%s\nanswer %q (%s), want one with %q", questions[i], r.Text, r.Finish, want[i])
		}
		row := append(slices.Concat(reqs[i].Prompt, r.Tokens), format.EndTokens()[0])
		got := score(t, m, nil, row, len(reqs[i].Prompt)-1)
		if !slices.Equal(got, append(slices.Clone(r.LogProbs), r.EndLogProb)) {
			t.Errorf("trained log-probs %v\nsampled %v, end %v", got, r.LogProbs, r.EndLogProb)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func BenchmarkRealModel(b *testing.B) {
	m, tok, format := realModel(b, transformer.LoadGGUF)
	reqs := make([]sample.Request, 32)
	for i := range reqs {
		prompt, err := format.Prompt([]chat.Message{{Role: "system", Content: strings.Repeat("You are an old sea captain who speaks of ships. ", 20)},
			{Role: "user", Content: strings.Repeat("Tell me a story. ", 1+i%4)}})
		if err != nil {
			b.Fatal(err)
		}
		reqs[i] = sample.Request{Key: uint64(i), Prompt: prompt, Params: sample.Params{Temperature: .8, TopP: .9, MaxTokens: 48, StopTokens: format.EndTokens()}}
	}
	for b.Loop() {
		start, tokens := time.Now(), 0
		err := sample.Generate(context.Background(), m, nil, reqs, sample.Options{Decode: tok.DecodeText}, func(_ int, r sample.Result) error {
			tokens += len(r.Tokens)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(tokens)/time.Since(start).Seconds(), "tokens/s")
	}
}
