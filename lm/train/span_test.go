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
