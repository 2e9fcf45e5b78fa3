package sample

import (
	"math"
	"slices"

	"github.com/opencharacter/opencharacter/tensor"
)

// coldest is the temperature below which the most probable token is taken.
const coldest = 1e-5

// chooser turns logits into a token. It holds scratch memory only.
type chooser struct {
	scores, probs []float32
	order, space  []int32 // order is cut out of space
	sums          []float64
}

// choose draws a token from logits [vocab] with the random number u in [0, 1).
// seen are the distinct tokens of prompt and answer. logits are not changed.
//
// Tokens are ordered by score, the lower id first among equals; top-k and
// top-p keep a beginning of this order, and with either the draw walks along
// it. Without them the draw walks in the order of ids. All sums are in float64
// and in a fixed order.
func (c *chooser) choose(logits []float32, p *Params, seen []int32, u float64) int32 {
	scores := c.penalise(logits, p.RepetitionPenalty, seen)
	if p.Temperature < coldest {
		best, top := 0, scores[0]
		for i, s := range scores {
			if s > top {
				best, top = i, s
			}
		}
		return int32(best)
	}
	c.probs = grow(c.probs, len(scores))
	tensor.Softmax(c.probs, scores, float32(p.Temperature))
	topK := p.TopK > 0 && p.TopK < len(scores)
	topP := p.TopP > 0 && p.TopP < 1
	if !topK && !topP {
		return c.draw(u)
	}
	limit := len(scores)
	if topK {
		limit = p.TopK
		c.top(scores, limit, math.Inf(1), p.Temperature)
	}
	if topP {
		// The share is of what top-k has left.
		total := c.total()
		if topK {
			total = 0
			for _, id := range c.order {
				total += float64(c.probs[id])
			}
		}
		c.top(scores, limit, p.TopP*total, p.Temperature)
	}
	total := 0.0
	for _, id := range c.order {
		total += float64(c.probs[id])
	}
	target, sum := u*total, 0.0
	for _, id := range c.order {
		if sum += float64(c.probs[id]); sum > target {
			return id
		}
	}
	return c.order[len(c.order)-1]
}

// penalise returns the scores after the repetition penalty (Keskar et al. 2019,
// as in transformers' RepetitionPenaltyLogitsProcessor).
func (c *chooser) penalise(logits []float32, penalty float64, seen []int32) []float32 {
	if penalty == 0 || penalty == 1 {
		return logits
	}
	c.scores = grow(c.scores, len(logits))
	copy(c.scores, logits)
	f := float32(penalty)
	for _, id := range seen {
		if s := c.scores[id]; s > 0 {
			c.scores[id] = s / f
		} else {
			c.scores[id] = s * f
		}
	}
	return c.scores
}

// top sets order to the beginning of the token order that has limit tokens or,
// before that, the fewest tokens whose mass reaches mass; at least one. Only
// tokens near the best score are looked at, in a window that widens until it
// holds enough, so what is sorted is far smaller than the vocabulary.
func (c *chooser) top(scores []float32, limit int, mass, temperature float64) {
	best := greatest(scores)
	for width := 4.0; ; width *= 2 {
		floor := float32(float64(best) - width*max(temperature, 0.25))
		all := width > 1e3
		c.order = c.space[:0]
		inside := 0.0
		for i, s := range scores {
			if s >= floor || all {
				c.order = append(c.order, int32(i))
				inside += float64(c.probs[i])
			}
		}
		c.space = c.order
		// A first, cheap look; the walk below decides.
		if len(c.order) < limit && inside < mass && !all {
			continue
		}
		if c.walk(scores, limit, mass) || all {
			return
		}
	}
}

// greatest is the greatest of finite scores, which are at least one.
func greatest(scores []float32) float32 {
	best := [4]float32{scores[0], scores[0], scores[0], scores[0]} // four chains, because one would wait for each comparison
	for ; len(scores) >= 4; scores = scores[4:] {
		s := (*[4]float32)(scores)
		if s[0] > best[0] {
			best[0] = s[0]
		}
		if s[1] > best[1] {
			best[1] = s[1]
		}
		if s[2] > best[2] {
			best[2] = s[2]
		}
		if s[3] > best[3] {
			best[3] = s[3]
		}
	}
	for i, s := range scores {
		best[i] = max(best[i], s)
	}
	return max(best[0], best[1], best[2], best[3])
}

// walk sorts order from its beginning until it holds limit tokens or the mass
// and cuts the rest off; it reports false when order ends before that. A heap
// sorts no more than what is kept.
func (c *chooser) walk(scores []float32, limit int, mass float64) bool {
	h := c.order
	before := func(a, b int32) bool { return scores[a] > scores[b] || scores[a] == scores[b] && a < b }
	sift := func(i, n int) {
		for {
			k := 2*i + 1
			if k >= n {
				return
			}
			if k+1 < n && before(h[k+1], h[k]) {
				k++
			}
			if !before(h[k], h[i]) {
				return
			}
			h[i], h[k] = h[k], h[i]
			i = k
		}
	}
	for i := len(h)/2 - 1; i >= 0; i-- {
		sift(i, len(h))
	}
	// The best token goes to the end of the shrinking heap, so the order grows
	// from the back and is turned round at the end.
	sum, n, done := 0.0, len(h), false
	for n > 0 && !done {
		n--
		h[0], h[n] = h[n], h[0]
		sum += float64(c.probs[h[n]])
		done = len(h)-n == limit || sum >= mass
		sift(0, n)
	}
	c.order = h[n:]
	slices.Reverse(c.order)
	return done
}

const blockTokens = 256

// blocks sums the probabilities in blocks of ids.
func (c *chooser) blocks() []float64 {
	c.sums = c.sums[:0]
	for from := 0; from < len(c.probs); from += blockTokens {
		block := c.probs[from:min(from+blockTokens, len(c.probs))]
		var sum [4]float64 // four chains, because one would wait for each addition
		for ; len(block) >= 4; block = block[4:] {
			sum[0] += float64(block[0])
			sum[1] += float64(block[1])
			sum[2] += float64(block[2])
			sum[3] += float64(block[3])
		}
		for i, p := range block {
			sum[i] += float64(p)
		}
		c.sums = append(c.sums, sum[0]+sum[1]+(sum[2]+sum[3]))
	}
	return c.sums
}

func (c *chooser) total() float64 {
	total := 0.0
	for _, s := range c.blocks() {
		total += s
	}
	return total
}

// draw walks over all tokens by id: first block by block, then inside one.
func (c *chooser) draw(u float64) int32 {
	target := u * c.total()
	sum, last := 0.0, int32(0)
	for b, s := range c.sums {
		if sum+s <= target && b+1 < len(c.sums) {
			sum += s
			continue
		}
		from := b * blockTokens
		for i, p := range c.probs[from:min(from+blockTokens, len(c.probs))] {
			if p > 0 {
				last = int32(from + i)
			}
			if sum += float64(p); sum > target {
				return int32(from + i)
			}
		}
	}
	return last
}

func grow(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n)
	}
	return s[:n]
}
