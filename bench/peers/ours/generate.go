//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/opencharacter/opencharacter/lm/sample"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// generate times prefill and decoding of all rows together; no token ends a row.
// Decoding alone is what comes after every row has its first token.
func generate(m *transformer.Model, j job) (line, error) {
	r, ctx := rand.New(rand.NewPCG(1, 1)), context.Background()
	requests := func(rows, prompt, shared, tokens int) []sample.Request {
		prefix, reqs := ids(r, m.Vocab, shared), make([]sample.Request, rows)
		for i := range reqs {
			row := append(append([]int32{}, prefix...), ids(r, m.Vocab, prompt-shared)...)
			reqs[i] = sample.Request{Key: uint64(i), Prompt: row,
				Params: sample.Params{Temperature: j.temperature, TopP: j.topP, MaxTokens: tokens, Seed: 1}}
		}
		return reqs
	}
	made := 0
	emit := func(_ int, res sample.Result) error { made += len(res.Tokens); return nil }
	warm := requests(min(j.rows, 2), min(j.prompt, 16), 0, 4)
	if err := sample.Generate(ctx, m, nil, warm, sample.Options{MaxRows: j.rows}, emit); err != nil {
		return line{}, err
	}
	made = 0
	resetPeak()
	reqs := requests(j.rows, j.prompt, j.shared, j.new)
	begun, drawn := map[int]bool{}, 0 // rows with a token; tokens since all have one
	var since time.Time
	o := sample.Options{MaxRows: j.rows, OnToken: func(i int, _ int32) {
		if len(begun) == j.rows {
			drawn++
			return
		}
		if begun[i] = true; len(begun) == j.rows {
			since = time.Now()
		}
	}}
	l, err := measure(j.rows*j.new, func() error { return sample.Generate(ctx, m, nil, reqs, o, emit) })
	if err != nil {
		return l, err
	}
	if made != j.rows*j.new {
		return l, fmt.Errorf("drew %d tokens, wanted %d", made, j.rows*j.new)
	}
	if drawn > 0 {
		l.DecodeTokens, l.DecodeSeconds = drawn, time.Since(since).Seconds()
	}
	return l, nil
}
