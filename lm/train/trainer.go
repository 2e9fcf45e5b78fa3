package train

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// ErrNonFinite marks a step whose loss, gradient or new weights were infinite or NaN, and
// scores that were. The step was not applied; trying again gives the same.
var ErrNonFinite = errors.New("not a finite number")

// Metrics describes one step. DPO rewards are beta * (log-prob - reference log-prob),
// means over pairs; Accuracy is the share of pairs with a positive margin, a tie
// counting one half. Perplexity is exp of the mean token loss of the chosen answers
// (DPO) or of all learned tokens (SFT).
type Metrics struct {
	Step           int      `json:"step"` // counted from 1
	Loss           float64  `json:"loss"`
	PreferenceLoss float64  `json:"preference_loss"` // dpo: the loss without its NLL and KL terms; ln 2 at first
	LR             float64  `json:"lr"`
	GradNorm       float64  `json:"grad_norm"` // before clipping
	Accuracy       float64  `json:"accuracy"`
	Margin         float64  `json:"margin"`
	ChosenReward   float64  `json:"chosen_reward"`
	RejectedReward float64  `json:"rejected_reward"`
	Perplexity     float64  `json:"perplexity"`
	Tokens         int      `json:"tokens"` // of the rows, prompts included
	Rows           []string `json:"rows"`   // ids, in order
}

// Trainer teaches one adapter on top of a model and frozen adapters. It is used by one
// goroutine at a time.
type Trainer struct {
	m       *transformer.Model
	stack   []*transformer.Adapter // frozen ones, then the trained one
	adapter *transformer.Adapter
	o       Options

	ws     *transformer.Workspace
	grads  *transformer.Gradients
	single *transformer.Gradients // see longPair; nil until there is one
	moment [][2][]float32         // first and second moment of each matrix of the adapter
	step   int                    // steps applied
	pack   packed
	deriv  []float32
	reach  reach
	trial  [4][]float32 // weights, gradient and moments of the greatest matrix; see try
}

// New prepares a trainer. The adapter is trained in place; frozen adapters apply
// below it and do not change.
func New(m *transformer.Model, frozen []*transformer.Adapter, adapter *transformer.Adapter, o Options) (*Trainer, error) {
	o, err := o.Resolve()
	if err != nil {
		return nil, err
	}
	if m.Quantized() {
		return nil, errors.New("train: the model's weights are quantized; load the model without quantized weights to train")
	}
	stack := append(append([]*transformer.Adapter(nil), frozen...), adapter)
	if err := m.CheckStack(stack); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	for _, f := range frozen {
		if f == adapter {
			return nil, errors.New("train: the trained adapter is also among the frozen ones; pass a copy")
		}
	}
	t := &Trainer{m: m, stack: stack, adapter: adapter, o: o, ws: cmp.Or(o.Workspace, transformer.NewWorkspace()), grads: transformer.NewGradients(adapter)}
	for _, p := range adapter.Matrices() {
		n := len(p.T.Data())
		t.moment = append(t.moment, [2][]float32{make([]float32, n), make([]float32, n)})
	}
	t.reach = t.measure()
	return t, nil
}

// Step counts the steps applied so far.
func (t *Trainer) Step() int { return t.step }

// Options returns the settings with their defaults filled in.
func (t *Trainer) Options() Options { return t.o }

// begin checks the rows of a step and clears the gradients.
func (t *Trainer) begin(loss string, ids []string, ex []Example) error {
	if t.o.Loss != loss {
		return fmt.Errorf("train: step %d: the trainer was made for the %s loss, not %s", t.step+1, t.o.Loss, loss)
	}
	if len(ex) == 0 {
		return fmt.Errorf("train: step %d: the batch is empty", t.step+1)
	}
	per := len(ex) / len(ids)
	for i, e := range ex {
		if err := e.check(t.m.Context); err != nil {
			return fmt.Errorf("train: step %d: row %q%s: %w", t.step+1, ids[i/per], sideOf(i, per), err)
		}
	}
	t.grads.Zero()
	return nil
}

// sideOf names the half of a pair for an error.
func sideOf(i, per int) string {
	if per == 1 {
		return ""
	}
	return [2]string{" (chosen)", " (rejected)"}[i%per]
}

// grad runs one packed pass over examples; share is that of packed.fill. derivatives gets
// the log-probs of every row's scored tokens and appends dLoss/d(log-prob) of each, in order.
func (t *Trainer) grad(ex []Example, share func(i int) bool, derivatives func(deriv []float32, logprobs [][]float32) ([]float32, error)) error {
	t.pack.fill(ex, share)
	rows := make([][]float32, len(ex))
	var failed error
	err := t.m.Grad(t.ws, t.pack.rows, t.pack.positions, t.stack, t.grads, func(logprobs []float32) []float32 {
		for i := range ex {
			rows[i] = t.pack.of(logprobs, i)
		}
		if t.deriv, failed = derivatives(t.deriv[:0], rows); failed != nil {
			return nil
		}
		return t.deriv
	})
	return errors.Join(err, failed)
}

// apply clips the gradients and takes the AdamW step. Nothing changes if the norm of
// the gradients, or anything that the step would write, is not finite: a learning rate
// that is far too high overflows the weights, and a huge gradient its square. Such steps
// are tried on copies first.
func (t *Trainer) apply(m *Metrics) error {
	var squares float64
	grads := t.grads.Matrices()
	for _, g := range grads {
		squares += tensor.SumSquares(g.T.Data())
	}
	m.Step, m.LR, m.GradNorm = t.step+1, t.o.rate(t.step), math.Sqrt(squares)
	if !finite(m.GradNorm) {
		return t.nonFinite("gradient norm", m.GradNorm, m.Rows)
	}
	// torch.nn.utils.clip_grad_norm_ divides by norm + 1e-6.
	scale := float32(1)
	if c := t.o.ClipNorm / (m.GradNorm + 1e-6); t.o.ClipNorm > 0 && c < 1 {
		scale = float32(c)
	}
	adam := tensor.AdamW{
		LR: float32(m.LR), Beta1: float32(t.o.Beta1), Beta2: float32(t.o.Beta2), Eps: float32(t.o.Eps),
		WeightDecay: float32(t.o.WeightDecay), Step: m.Step,
	}
	for i := range grads {
		if scale != 1 {
			tensor.Scale(grads[i].T, scale)
		}
	}
	matrices := t.adapter.Matrices()
	next, safe := t.reach.after(m.GradNorm*float64(scale), adam)
	for i, p := range matrices {
		if safe {
			break
		}
		if what, value := t.try(adam, p.T.Data(), grads[i].T.Data(), t.moment[i]); what != "" {
			return t.nonFinite(what+" of "+p.Name, value, m.Rows)
		}
	}
	for i, p := range matrices {
		adam.Apply(p.T.Data(), grads[i].T.Data(), t.moment[i][0], t.moment[i][1])
	}
	t.step++
	if t.reach = next; !safe {
		t.reach = t.measure()
	}
	return nil
}

// reach bounds how large weights and first moments can be. As long as the bounds are far
// from what float32 holds, a step need not be tried before it is taken.
type reach struct{ weight, moment float64 }

// measure takes the bounds from the numbers themselves.
func (t *Trainer) measure() reach {
	var r reach
	for i, p := range t.adapter.Matrices() {
		r.weight, r.moment = math.Max(r.weight, largest(p.T.Data())), math.Max(r.moment, largest(t.moment[i][0]))
	}
	return r
}

func largest(x []float32) float64 {
	var most float32
	for _, v := range x {
		most = max(most, v, -v)
	}
	return float64(most)
}

// after gives the bounds after a step with gradients of the given norm, and whether they say
// that all it writes is finite: a mean of moments is never larger than the largest, and a
// weight moves by the first moment over eps at most.
func (r reach) after(norm float64, o tensor.AdamW) (reach, bool) {
	r.moment = math.Max(r.moment, norm)
	r.weight += float64(o.LR) * (float64(o.WeightDecay)*r.weight + r.moment/(1-float64(o.Beta1))/float64(o.Eps))
	return r, r.moment < 1e18 && r.weight < 1e37 // squares of moments below 1e36
}

// try takes the step of one matrix in copies and names what of it is not finite. It costs
// more than the step itself.
func (t *Trainer) try(adam tensor.AdamW, weights, grad []float32, moment [2][]float32) (what string, value float64) {
	parts := [4][]float32{weights, grad, moment[0], moment[1]}
	var c [4][]float32
	for i, part := range parts {
		t.trial[i] = append(t.trial[i][:0], part...)
		c[i] = t.trial[i]
	}
	adam.Apply(c[0], c[1], c[2], c[3])
	for i, name := range [4]string{"new weights", "", "first moment", "second moment"} {
		if i == 1 {
			continue // the gradient is read only
		}
		// Squares of finite float32 do not overflow float64, so the sum tells whether one is not finite.
		if !finite(tensor.SumSquares(c[i])) {
			for _, v := range c[i] {
				if value = float64(v); !finite(value) {
					break
				}
			}
			return name, value
		}
	}
	return "", 0
}

// nonFinite describes a step that was not applied.
func (t *Trainer) nonFinite(what string, value float64, ids []string) error {
	return fmt.Errorf("train: step %d: the %s is %v, %w; rows %s. The step was not applied: look at these rows, or lower the learning rate and go on from the last checkpoint",
		t.step+1, what, value, ErrNonFinite, strings.Join(ids, ", "))
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// mean averages so that equal values give exactly that value, which sum / n does not.
type mean struct {
	n     int
	value float64
}

func (m *mean) add(x float64) {
	m.n++
	m.value += (x - m.value) / float64(m.n)
}
