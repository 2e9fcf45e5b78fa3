package train

import (
	"math/rand/v2"
	"testing"
)

// TestSpans: passes are as few as filling them up gives, none is above the limit unless it is one group, and they are even.
func TestSpans(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	for range 500 {
		group, limit := 1+r.IntN(2), 20+r.IntN(200)
		ex := make([]Example, group*(1+r.IntN(20)))
		for i := range ex {
			ex[i].Tokens = make([]int32, 1+r.IntN(60))
		}
		full, _ := cut(ex, group, limit)
		got, at := spans(ex, group, limit), 0
		for _, s := range got {
			size := 0
			for _, e := range ex[s.from:s.to] {
				size += len(e.Tokens)
			}
			if s.from != at || (s.to-s.from)%group != 0 || size > limit && s.to-s.from > group {
				t.Fatalf("span %+v of %d tokens after %d, groups of %d, limit %d", s, size, at, group, limit)
			}
			at = s.to
		}
		if at != len(ex) || len(got) != len(full) {
			t.Fatalf("%d spans up to %d of %d, filling up gives %d", len(got), at, len(ex), len(full))
		}
	}
	ex := make([]Example, 8)
	for i := range ex {
		ex[i].Tokens = make([]int32, 100)
	}
	if got := spans(ex, 1, 512); len(got) != 2 || got[0].to != 4 {
		t.Errorf("800 tokens under a limit of 512: %v, want halves", got)
	}
}

// TestScoringSpans: rows after one long prompt pass together, up to what attention may see at once; others as ever.
func TestScoringSpans(t *testing.T) {
	row := func(prompt, shared, own int) Example {
		tokens := make([]int32, shared+own)
		for i := range tokens {
			tokens[i] = int32(prompt)
			if i >= shared {
				tokens[i] = int32(1000*prompt + i)
			}
		}
		return Example{Tokens: tokens}
	}
	var ex []Example
	for i := range 30 {
		e := row(1, 1000, 40)
		e.Tokens[1000] = int32(2000 + i)
		ex = append(ex, e)
	}
	got := scoringSpans(ex, 512)
	for i, s := range got {
		if n := s.to - s.from; n > 13 || n*1040 > maxUnfolded*512 || (i+1 < len(got) && n < 12) {
			t.Errorf("long prompt: %v", got)
		}
	}
	for i := range 20 {
		ex = append(ex, row(100+i, 0, 200))
	}
	at, computed := 0, 0
	for _, s := range scoringSpans(ex, 512) {
		if s.from != at || s.to <= s.from {
			t.Fatalf("span %+v after %d", s, at)
		}
		if at = s.to; s.from >= 30 {
			if computed = (s.to - s.from) * 200; computed > 512 {
				t.Errorf("%d tokens of rows that share nothing in one pass", computed)
			}
		}
	}
	if at != len(ex) || computed == 0 {
		t.Errorf("spans end at %d of %d", at, len(ex))
	}
	if got, want := scoringSpans(ex[30:], 512), spans(ex[30:], 1, 512); len(got) != len(want) || got[0] != want[0] {
		t.Errorf("nothing shared: %v, want %v", got, want)
	}
}
