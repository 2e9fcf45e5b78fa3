package train

import (
	"fmt"
	"math"
)

// Pair is one preference: two answers to one prompt and their summed log-probs under
// the frozen reference, as SumLogProbs gives.
type Pair struct {
	ID                     string
	Chosen, Rejected       Example
	RefChosen, RefRejected float64
}

// dpo collects the loss of a step over its pairs. With N pairs (Rafailov et al.,
// arXiv:2305.18290)
//
//	u    = beta * ((chosen - refChosen) - (rejected - refRejected))
//	loss = mean(-log sigmoid(u)) + NLL * mean(-chosen / tokens of chosen)
//
// where chosen and rejected are summed log-probs.
type dpo struct {
	beta, nll float64
	pairs     int // N

	loss, preference, accuracy, chosen, rejected, margin mean

	nllSum    float64
	nllTokens int
}

// pair adds one pair and returns dLoss/d(log-prob) for every token of the chosen and
// of the rejected answer. dLoss/du = -sigmoid(-u)/N.
func (d *dpo) pair(p Pair, chosen, rejected float64, tokens int) (dChosen, dRejected float64) {
	rc, rr := d.beta*(chosen-p.RefChosen), d.beta*(rejected-p.RefRejected)
	u := d.beta * ((chosen - rejected) - (p.RefChosen - p.RefRejected))
	n := float64(d.pairs)
	d.loss.add(softplus(-u) - d.nll*chosen/float64(tokens))
	d.preference.add(softplus(-u))
	d.chosen.add(rc)
	d.rejected.add(rr)
	d.margin.add(u)
	d.accuracy.add(preferred(u))
	d.nllSum -= chosen
	d.nllTokens += tokens
	g := d.beta * sigmoid(-u) / n
	return -g - d.nll/(n*float64(tokens)), g
}

// preferred is 1 for a positive margin, 0 for a negative one and one half for a tie.
func preferred(u float64) float64 {
	switch {
	case u > 0:
		return 1
	case u < 0:
		return 0
	}
	return 0.5
}

// softplus is log(1 + e^x) without overflow; softplus(0) is exactly math.Ln2.
func softplus(x float64) float64 { return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

// sigmoid is 1 / (1 + e^-x); e^-x may overflow to infinity, which gives 0.
func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// StepDPO takes one optimiser step on the mean loss of the pairs. On error nothing
// has changed.
func (t *Trainer) StepDPO(pairs []Pair) (Metrics, error) {
	var m Metrics
	ex := make([]Example, 0, 2*len(pairs))
	for _, p := range pairs {
		m.Rows = append(m.Rows, p.ID)
		m.Tokens += len(p.Chosen.Tokens) + len(p.Rejected.Tokens)
		ex = append(ex, p.Chosen, p.Rejected)
		if !finite(p.RefChosen) || !finite(p.RefRejected) {
			return Metrics{}, fmt.Errorf("train: step %d: pair %q has reference log-probs %v and %v, %w; compute the reference again",
				t.step+1, p.ID, p.RefChosen, p.RefRejected, ErrNonFinite)
		}
	}
	if err := t.begin(LossDPO, m.Rows, ex); err != nil {
		return Metrics{}, err
	}
	d := &dpo{beta: t.o.Beta, nll: t.o.NLL, pairs: len(pairs)}
	for _, s := range spans(ex, 2, t.o.MicroTokens) {
		if err := t.dpoSpan(d, pairs[s.from/2:s.to/2], ex[s.from:s.to]); err != nil {
			return Metrics{}, err
		}
	}
	m.Loss, m.Accuracy, m.Margin = d.loss.value, d.accuracy.value, d.margin.value
	m.PreferenceLoss = d.preference.value
	m.ChosenReward, m.RejectedReward = d.chosen.value, d.rejected.value
	m.Perplexity = math.Exp(d.nllSum / float64(d.nllTokens))
	if err := t.apply(&m); err != nil {
		return Metrics{}, err
	}
	return m, nil
}

// wholePair is the size in tokens up to which a pair is computed in one piece, its prompt
// once for both answers. It is a constant because a shared prompt rounds the gradient
// differently, and MicroTokens must not change a bit.
const wholePair = 512

// dpoSpan adds the gradients of some pairs. A longer pair above the bound of a
// micro-batch is first scored and then passes back one answer at a time, to the same
// bits in half the memory.
func (t *Trainer) dpoSpan(d *dpo, pairs []Pair, ex []Example) error {
	size := func(pair int) int { return len(ex[2*pair].Tokens) + len(ex[2*pair+1].Tokens) }
	share := func(i int) bool { return i%2 == 1 && size(i/2) <= wholePair }
	coefficients := func(sums []float64, counts []int) ([]float64, error) {
		c := make([]float64, len(sums))
		for i, p := range pairs {
			c[2*i], c[2*i+1] = d.pair(p, sums[2*i], sums[2*i+1], counts[2*i])
			if !finite(d.loss.value) {
				return nil, t.nonFinite("loss", d.loss.value, []string{p.ID})
			}
		}
		return c, nil
	}
	if len(pairs) > 1 || size(0) <= max(t.o.MicroTokens, wholePair) {
		return t.grad(ex, share, coefficients)
	}
	sums, counts, err := SumLogProbs(t.m, t.ws, ex, t.stack)
	if err != nil {
		return fmt.Errorf("train: step %d: pair %q: %w", t.step+1, pairs[0].ID, err)
	}
	c, err := coefficients(sums, counts)
	if err != nil {
		return err
	}
	for i := range ex {
		if err := t.grad(ex[i:i+1], never, func([]float64, []int) ([]float64, error) { return c[i : i+1], nil }); err != nil {
			return err
		}
	}
	return nil
}
