// Package sample generates answers for many prompts at once with one model.
//
// Generate is all there is to call. It keeps up to MaxRows answers in work,
// starts the next prompt as soon as one ends (continuous batching), computes
// beginnings that prompts share once, and feeds long prompts in pieces.
// None of this shows in the results: an answer depends on the model, its own
// request and nothing else, bit for bit, because the kernels under
// transformer.Extend keep that law and the random numbers are a function of
// the request's seed, its key and the position in the answer.
//
// The package does not know text: prompts and answers are token ids. lm/chat
// makes the prompts, lm/tokenizer reads the answers.
package sample

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/opencharacter/opencharacter/lm/transformer"
)

// Params say how tokens are drawn. The steps are those of Hugging Face's
// generate, in its order: repetition penalty, temperature, top-k, top-p.
type Params struct {
	// Temperature divides the logits; 0 (and anything below 1e-5) takes the
	// most probable token, the lowest id among equals.
	Temperature float64
	// TopP keeps the most probable tokens until their mass reaches TopP; 0 and
	// 1 keep all.
	TopP float64
	// TopK keeps the K most probable tokens; 0 keeps all.
	TopK int
	// RepetitionPenalty divides the positive logits, and multiplies the
	// negative ones, of all tokens in prompt and answer; 0 and 1 change nothing.
	RepetitionPenalty float64
	// MaxTokens bounds the answer; 0 leaves it to the model's context.
	MaxTokens int
	Seed      uint64
	// StopTokens end an answer; they are not part of it.
	StopTokens []int32
	// StopTexts end an answer whose text contains one; they need Options.Decode.
	StopTexts []string
}

// Request is one prompt. The draws of its answer are a function of
// (Params.Seed, Key, position), so a row keeps its answer wherever it runs.
type Request struct {
	Key    uint64
	Prompt []int32
	Params Params
}

// How an answer ended.
const (
	FinishStop    = "stop"    // an end token or a stop text
	FinishLength  = "length"  // MaxTokens
	FinishContext = "context" // the model's context is full
)

// Result is one answer.
type Result struct {
	// Tokens are all tokens drawn, without the end token. After a stop text
	// they reach to the token that completed it.
	Tokens []int32
	// LogProbs are the model's own log-probs of Tokens: temperature 1, no
	// penalty, nothing cut off. They equal transformer.LogProbs bit for bit.
	LogProbs []float32
	// Finish is FinishStop, FinishLength or FinishContext.
	Finish string
	// EndLogProb is the log-prob of the end token; 0 when none was drawn.
	EndLogProb float32
	// Text is the decoded answer up to the stop text; "" without Options.Decode.
	Text string
}

// Options say how the work is done. Nothing in here changes a result.
type Options struct {
	// MaxRows bounds the answers in work at once; 0 is 16.
	MaxRows int
	// PrefillTokens bounds the prompt tokens of one forward pass; 0 is 256.
	PrefillTokens int
	// Decode turns an answer's tokens into text, for StopTexts and Result.Text.
	Decode func([]int32) string
	// OnToken is called with every token of request i as it is drawn.
	OnToken func(i int, token int32)
	// Progress is called after every forward pass that drew tokens, with the
	// number of answers finished so far and of tokens drawn since the last call.
	Progress func(doneRows, newTokens int)
	// Alive is called before every layer of every forward pass: a sign of life within a long one.
	Alive func()
}

// ScoreError says that the model's scores for a token of an answer are not finite
// numbers: its weights or an adapter are damaged, or its training diverged.
type ScoreError struct {
	Request, Token int // indices of the request and of the token in its answer
}

func (e *ScoreError) Error() string {
	return fmt.Sprintf("sample: request %d: the model's scores for token %d of the answer are not finite; its weights or an adapter are damaged", e.Request, e.Token)
}

// Generate answers all requests and hands each result to emit as it ends, in
// any order. Callbacks run on the calling goroutine. A prompt that leaves no
// room in the model's context gives an empty answer with FinishContext; a
// request that makes no sense is an error before any work. Generate stops with
// ctx.Err() before the next layer of a forward pass, with a *ScoreError, or with the
// first error of emit.
func Generate(ctx context.Context, m *transformer.Model, stack []*transformer.Adapter, reqs []Request, o Options, emit func(i int, r Result) error) error {
	if o.MaxRows == 0 {
		o.MaxRows = 16
	}
	if o.PrefillTokens == 0 {
		o.PrefillTokens = 256
	}
	if o.MaxRows < 0 || o.PrefillTokens < 0 {
		return fmt.Errorf("sample: MaxRows %d and PrefillTokens %d must not be negative", o.MaxRows, o.PrefillTokens)
	}
	if emit == nil {
		return errors.New("sample: no function to emit results to")
	}
	for i := range reqs {
		if err := check(m, &reqs[i], o); err != nil {
			return fmt.Errorf("sample: request %d: %w", i, err)
		}
	}
	return newBatch(m, stack, reqs, o, emit).run(ctx)
}

// check refuses requests that make no sense.
func check(m *transformer.Model, r *Request, o Options) error {
	p := r.Params
	switch {
	case len(r.Prompt) == 0:
		return errors.New("the prompt is empty; give at least one token, such as the model's begin token")
	case !(p.Temperature >= 0) || math.IsInf(p.Temperature, 1):
		return fmt.Errorf("temperature %v must be 0 or more", p.Temperature)
	case !(p.TopP >= 0 && p.TopP <= 1):
		return fmt.Errorf("top-p %v must be between 0 and 1", p.TopP)
	case p.TopK < 0:
		return fmt.Errorf("top-k %d must not be negative", p.TopK)
	case !(p.RepetitionPenalty >= 0) || math.IsInf(p.RepetitionPenalty, 1):
		return fmt.Errorf("repetition penalty %v must be positive", p.RepetitionPenalty)
	case p.MaxTokens < 0:
		return fmt.Errorf("max tokens %d must not be negative", p.MaxTokens)
	case len(p.StopTexts) > 0 && o.Decode == nil:
		return errors.New("stop texts need Options.Decode")
	}
	for _, s := range p.StopTexts {
		if s == "" {
			return errors.New("a stop text is empty")
		}
	}
	for at, id := range r.Prompt {
		if id < 0 || int(id) >= m.Vocab {
			return fmt.Errorf("token %d at position %d of the prompt is outside the vocabulary of %d; is this the model's own tokenizer?", id, at, m.Vocab)
		}
	}
	return nil
}
