package train

import "math"

// Row is one example with its id.
type Row struct {
	ID      string
	Example Example
}

// StepSFT takes one optimiser step on the mean over rows of each row's mean token
// loss, -log-prob / tokens. On error nothing has changed.
func (t *Trainer) StepSFT(rows []Row) (Metrics, error) {
	var m Metrics
	ex := make([]Example, 0, len(rows))
	for _, r := range rows {
		m.Rows = append(m.Rows, r.ID)
		m.Tokens += len(r.Example.Tokens)
		ex = append(ex, r.Example)
	}
	if err := t.begin(LossSFT, m.Rows, ex); err != nil {
		return Metrics{}, err
	}
	var loss mean
	var nll float64
	var tokens int
	for _, s := range spans(ex, 1, t.o.MicroTokens) {
		err := t.grad(ex[s.from:s.to], never, func(deriv []float32, logprobs [][]float32) ([]float32, error) {
			for i, l := range logprobs {
				sum, count := Total(l), float64(len(l))
				loss.add(-sum / count)
				nll, tokens = nll-sum, tokens+len(l)
				if !finite(loss.value) {
					return nil, t.nonFinite("loss", loss.value, []string{rows[s.from+i].ID})
				}
				for range l {
					deriv = append(deriv, float32(-1/(float64(len(rows))*count)))
				}
			}
			return deriv, nil
		})
		if err != nil {
			return Metrics{}, err
		}
	}
	m.Loss, m.Perplexity = loss.value, math.Exp(nll/float64(tokens))
	if err := t.apply(&m); err != nil {
		return Metrics{}, err
	}
	return m, nil
}
