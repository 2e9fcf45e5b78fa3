package sample

import (
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/opencharacter/opencharacter/tensor"
)

// drawer draws the next tokens of many rows.
type drawer struct {
	drawn  []draw
	choose []chooser // one for each goroutine that draws
}

// draw is a row's next token with its log-prob.
type draw struct {
	id      int32
	logProb float32
	top     []Alternative
	err     error // a *ScoreError
}

// fewDraws is up to how many rows one goroutine draws for: waking another takes as long.
const fewDraws = 2

// draws sets drawn to the next tokens of the rows that are ready. A draw depends on its row
// alone, so they may run at the same time.
func (d *drawer) draws(rows []*row, scores *tensor.Tensor) {
	d.drawn = slices.Grow(d.drawn[:0], len(rows))[:len(rows)]
	clear(d.drawn)
	n := max(1, min(runtime.GOMAXPROCS(0), len(rows)/fewDraws))
	for len(d.choose) < n {
		d.choose = append(d.choose, chooser{})
	}
	var g sync.WaitGroup
	for w := range n {
		some := func() {
			for k := w; k < len(rows); k += n {
				if rows[k].ready() {
					d.drawn[k] = rows[k].draw(scores.Row(k), &d.choose[w])
				}
			}
		}
		if w == n-1 { // this goroutine's own share
			some()
		} else {
			g.Go(some)
		}
	}
	g.Wait()
}

// draw draws the row's next token from its logits.
func (r *row) draw(logits []float32, c *chooser) draw {
	p, position := &r.req.Params, len(r.out.Tokens)
	lse := tensor.LogSumExp(logits)
	if math.IsNaN(float64(lse)) || math.IsInf(float64(lse), 0) {
		return draw{err: &ScoreError{Request: r.i, Token: position}}
	}
	id := c.choose(logits, p, r.seen, uniform(p.Seed, r.req.Key, position))
	return draw{id: id, logProb: logits[id] - lse, top: alternatives(logits, lse, r.top)}
}

// Alternative is a token that could have stood at a place, with the model's own log-prob.
type Alternative struct {
	ID      int32
	LogProb float32
}

// alternatives are the n most probable tokens, the lower id first among equals.
func alternatives(logits []float32, lse float32, n int) []Alternative {
	if n <= 0 {
		return nil
	}
	best := make([]Alternative, 0, n+1)
	for id, s := range logits {
		if len(best) == n && s <= best[n-1].LogProb {
			continue
		}
		at := len(best)
		for at > 0 && best[at-1].LogProb < s {
			at--
		}
		best = slices.Insert(best, at, Alternative{int32(id), s})
		best = best[:min(len(best), n)]
	}
	for i := range best {
		best[i].LogProb -= lse
	}
	return best
}
