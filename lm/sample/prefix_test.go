package sample

import (
	"context"
	"slices"
	"testing"

	"github.com/opencharacter/opencharacter/lm/transformer"
)

// TestShare: what prompts have in common is found at every depth, computed once, and given back.
func TestShare(t *testing.T) {
	m, err := transformer.NewRandom(transformer.Config{
		Architecture: "llama", Layers: 1, Width: 8, Heads: 2, KVHeads: 1, HeadDim: 4, FFN: 8, Vocab: 67, Context: 300, RopeBase: 10000, NormEps: 1e-5, Tied: true,
	}, 1)
	if err != nil {
		t.Fatal(err)
	}
	run := func(n int, token int32) []int32 { return slices.Repeat([]int32{token}, n) }
	system := run(40, 1)
	ask := func(parts ...[]int32) Request {
		return Request{Prompt: slices.Concat(parts...), Params: Params{MaxTokens: 2}}
	}
	reqs := []Request{
		ask(system, run(50, 2), run(3, 3)), ask(system, run(50, 2), run(9, 4)), // share 90
		ask(system, run(20, 5)), ask(system, run(20, 5)), ask(system, run(20, 5)), // the same prompt: share 59
		ask(system, run(4, 6), run(5, 7)), ask(system, run(4, 6), run(5, 8)), // share 44, too little more than 40
		ask(run(30, 9)), // nothing
		ask([]int32{1}), // shorter than what it could share
	}
	b := newBatch(m, nil, reqs, Options{MaxRows: 2, PrefillTokens: 256}, func(int, Result) error { return nil })
	for i := range reqs {
		b.queue = append(b.queue, i)
	}
	b.share()
	for i, want := range []int{90, 90, 59, 59, 59, 40, 40, 0, 0} {
		got := 0
		if p := b.leaf[i]; p != nil {
			got = len(p.tokens)
			if p.up != nil && (len(p.up.tokens) != 40 || p.up.waiting != 7) {
				t.Errorf("request %d: %d tokens and %d requests one level up", i, len(p.up.tokens), p.up.waiting)
			}
		}
		if got != want {
			t.Errorf("request %d shares %d tokens, want %d", i, got, want)
		}
	}
	b = newBatch(m, nil, reqs, Options{MaxRows: 2, PrefillTokens: 256}, func(int, Result) error { return nil })
	if err := b.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if b.done != len(reqs) || b.cache.InUse() != 0 {
		t.Errorf("%d of %d done, %d pages are still in use", b.done, len(reqs), b.cache.InUse())
	}
}
