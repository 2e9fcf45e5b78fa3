package train

import (
	"fmt"
	"math"

	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// Pair is one preference: two answers to one prompt and their log-probs under the
// frozen reference: the sums that SumLogProbs gives and, where the loss has a
// divergence term, those of every token as TokenLogProbs gives.
type Pair struct {
	ID                     string
	Chosen, Rejected       Example
	RefChosen, RefRejected float64
	RefTokens              [2][]float32 // chosen, rejected; used with Options.KL only
}

// dpo collects the loss of a step over its pairs. With N pairs (Rafailov et al.,
// arXiv:2305.18290)
//
//	u    = beta * ((chosen - refChosen) - (rejected - refRejected))
//	loss = mean(-log sigmoid(u)) + NLL * mean(-chosen / tokens of chosen)
//	     + KL * mean over both answers of sum_t (logprob_t - ref_t)^2 / tokens
//
// where chosen and rejected are summed log-probs. The last term, an approximation of
// the squared divergence from the reference, is that of Open Character Training
// (arXiv:2511.01689).
type dpo struct {
	beta, nll, kl float64
	pairs         int // N

	loss, preference, accuracy, chosen, rejected, margin mean

	nllSum    float64
	nllTokens int
}

// pair adds one pair and appends dLoss/d(log-prob) for every token of the chosen and
// then of the rejected answer. dLoss/du = -sigmoid(-u)/N.
func (d *dpo) pair(deriv []float32, p Pair, chosenTokens, rejectedTokens []float32) []float32 {
	chosen, rejected, tokens := Total(chosenTokens), Total(rejectedTokens), len(chosenTokens)
	rc, rr := d.beta*(chosen-p.RefChosen), d.beta*(rejected-p.RefRejected)
	u := d.beta * ((chosen - rejected) - (p.RefChosen - p.RefRejected))
	n := float64(d.pairs)
	d.preference.add(softplus(-u))
	d.chosen.add(rc)
	d.rejected.add(rr)
	d.margin.add(u)
	d.accuracy.add(preferred(u))
	d.nllSum -= chosen
	d.nllTokens += tokens
	g := d.beta * sigmoid(-u) / n
	drift := 0.0
	for side, t := range [][]float32{chosenTokens, rejectedTokens} {
		c := g
		if side == 0 {
			c = -g - d.nll/(n*float64(tokens))
		}
		if d.kl == 0 {
			for range t {
				deriv = append(deriv, float32(c))
			}
			continue
		}
		squares := 0.0
		for i, v := range t {
			diff := float64(v) - float64(p.RefTokens[side][i])
			squares += diff * diff
			deriv = append(deriv, float32(c+d.kl*diff/(n*float64(len(t)))))
		}
		drift += squares / float64(len(t)) / 2
	}
	d.loss.add(softplus(-u) - d.nll*chosen/float64(tokens) + d.kl*drift)
	return deriv
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
		if err := p.checkTokens(t.o.KL); err != nil {
			return Metrics{}, fmt.Errorf("train: step %d: pair %q: %w", t.step+1, p.ID, err)
		}
	}
	if err := t.begin(LossDPO, m.Rows, ex); err != nil {
		return Metrics{}, err
	}
	d := &dpo{beta: t.o.Beta, nll: t.o.NLL, kl: t.o.KL, pairs: len(pairs)}
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
// once for both answers. It is a constant because what is done with longer pairs rounds the
// gradient differently, and MicroTokens must not change a bit.
const wholePair = 512

// dpoSpan adds the gradients of some pairs.
func (t *Trainer) dpoSpan(d *dpo, pairs []Pair, ex []Example) error {
	for from := 0; from < len(pairs); {
		to := from
		for to < len(pairs) && len(ex[2*to].Tokens)+len(ex[2*to+1].Tokens) <= wholePair {
			to++
		}
		var err error
		switch {
		case to > from:
			share := func(i int) bool { return i%2 == 1 }
			err = t.grad(ex[2*from:2*to], share, t.derivatives(d, pairs[from:to]))
		case t.o.KL == 0:
			to++
			err = t.longPair(d, pairs[from], ex[2*from], ex[2*from+1])
		default:
			to++
			err = t.longPairKL(d, pairs[from:to], ex[2*from:2*to])
		}
		if err != nil {
			return err
		}
		from = to
	}
	return nil
}

// derivatives adds pairs to the loss, for grad.
func (t *Trainer) derivatives(d *dpo, pairs []Pair) func(deriv []float32, logprobs [][]float32) ([]float32, error) {
	return func(deriv []float32, logprobs [][]float32) ([]float32, error) {
		for i, p := range pairs {
			deriv = d.pair(deriv, p, logprobs[2*i], logprobs[2*i+1])
			if !finite(d.loss.value) {
				return nil, t.nonFinite("loss", d.loss.value, []string{p.ID})
			}
		}
		return deriv, nil
	}
}

// longPair passes one answer after the other, for half the memory. The loss gives all tokens of an answer
// the same derivative, which is known only when both are scored: so first the gradient of the chosen
// answer's log-prob is taken by itself, and multiplied when the rejected one's pass has found its factor.
func (t *Trainer) longPair(d *dpo, p Pair, chosen, rejected Example) error {
	if t.single == nil {
		t.single = transformer.NewGradients(t.adapter)
	}
	t.single.Zero()
	all, own := t.grads, []float32(nil)
	t.grads = t.single
	err := t.grad([]Example{chosen}, never, func(deriv []float32, logprobs [][]float32) ([]float32, error) {
		own = append(own, logprobs[0]...)
		for range own {
			deriv = append(deriv, 1)
		}
		return deriv, nil
	})
	t.grads = all
	if err != nil {
		return err
	}
	factor := float32(0)
	err = t.grad([]Example{rejected}, never, func(deriv []float32, logprobs [][]float32) ([]float32, error) {
		both, err := t.derivatives(d, []Pair{p})(deriv, [][]float32{own, logprobs[0]})
		if err != nil {
			return nil, err
		}
		factor = both[0]
		return both[len(own):], nil
	})
	if err != nil {
		return err
	}
	sum := t.grads.Matrices()
	for i, g := range t.single.Matrices() {
		tensor.Scale(g.T, factor)
		tensor.Add(sum[i].T, g.T)
	}
	return nil
}

// longPairKL is for the divergence term, whose derivative is another one for each token: above
// the bound of a micro-batch a pair is first scored and then passes back one answer at a time, to the same
// bits in half the memory.
func (t *Trainer) longPairKL(d *dpo, pair []Pair, ex []Example) error {
	derivatives := t.derivatives(d, pair)
	if len(ex[0].Tokens)+len(ex[1].Tokens) <= t.o.MicroTokens {
		return t.grad(ex, never, derivatives)
	}
	logprobs, err := TokenLogProbs(t.m, t.ws, ex, t.stack)
	if err != nil {
		return fmt.Errorf("train: step %d: pair %q: %w", t.step+1, pair[0].ID, err)
	}
	all, err := derivatives(nil, logprobs)
	if err != nil {
		return err
	}
	chosen := len(logprobs[0])
	for i, own := range [][]float32{all[:chosen], all[chosen:]} {
		if err := t.grad(ex[i:i+1], never, func([]float32, [][]float32) ([]float32, error) { return own, nil }); err != nil {
			return err
		}
	}
	return nil
}

// checkTokens reports reference log-probs of tokens that the divergence term cannot use.
func (p Pair) checkTokens(kl float64) error {
	if kl == 0 {
		return nil
	}
	for i, e := range []Example{p.Chosen, p.Rejected} {
		n := 0
		for _, m := range e.Mask {
			if m {
				n++
			}
		}
		if len(p.RefTokens[i]) != n {
			return fmt.Errorf("%d answer tokens have %d reference log-probs; the kl term needs one each: compute the reference again", n, len(p.RefTokens[i]))
		}
		if !finite(Total(p.RefTokens[i])) {
			return fmt.Errorf("a token's reference log-prob is %w; compute the reference again", ErrNonFinite)
		}
	}
	return nil
}
