package transformer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"

	"github.com/opencharacter/opencharacter/tensor"
)

// maxRank bounds the rank of an adapter read from a file.
const maxRank = 4096

// pair is one low-rank matrix product: A [rank, in] and B [out, rank].
type pair struct{ a, b *tensor.Tensor }

// pairs holds a pair for each projection of each layer: the shape shared by an
// adapter and its gradients.
type pairs [][projCount]pair

func newPairs(cfg Config, rank int) pairs {
	p := make(pairs, cfg.Layers)
	for l := range p {
		for k := range projCount {
			out, in := cfg.dims(k)
			p[l][k] = pair{a: tensor.New(rank, in), b: tensor.New(out, rank)}
		}
	}
	return p
}

// NamedTensor is a matrix with its name in a PEFT file.
type NamedTensor struct {
	Name string
	T    *tensor.Tensor
}

// matrices lists the matrices in their fixed order: by layer, then q, k, v, o,
// gate, up, down, and A before B.
func (p pairs) matrices() []NamedTensor {
	list := make([]NamedTensor, 0, len(p)*int(projCount)*2)
	for l := range p {
		for k := range projCount {
			name := fmt.Sprintf("base_model.model.model.layers.%d.%s.lora_", l, projNames[k])
			list = append(list,
				NamedTensor{Name: name + "A.weight", T: p[l][k].a},
				NamedTensor{Name: name + "B.weight", T: p[l][k].b})
		}
	}
	return list
}

// Adapter is a LoRA (Hu et al., arXiv:2106.09685) on the q, k, v, o, gate, up and
// down projections of every layer. With x [T, in] it adds
//
//	y += scale * (x . A^T) . B^T,   scale = Alpha / Rank,
//
// A [Rank, in] and B [out, Rank], all float32. The embedding and the head have none.
type Adapter struct {
	Rank  int
	Alpha float64

	cfg   Config
	pairs pairs
}

// NewAdapter makes an adapter that changes nothing yet: A is uniform in
// (-1/sqrt(in), 1/sqrt(in)), the Kaiming initialisation with a = sqrt(5) that PEFT
// uses, and B is zero. Every number is a function of the seed, the matrix name and
// its place in the matrix.
func NewAdapter(cfg Config, rank int, alpha float64, seed uint64) *Adapter {
	if rank < 1 {
		panic(fmt.Sprintf("transformer: NewAdapter: rank is %d; it must be at least 1", rank))
	}
	a := &Adapter{Rank: rank, Alpha: alpha, cfg: cfg, pairs: newPairs(cfg, rank)}
	for i, m := range a.Matrices() {
		if i%2 == 1 {
			continue // B stays zero
		}
		s, bound, data := newStream(seed, m.Name), 1/math.Sqrt(float64(m.T.Cols)), m.T.Data()
		for j := range data {
			data[j] = float32(bound * s.uniform(j))
		}
	}
	return a
}

// Matrices lists A and B of every projection in a fixed order, under PEFT's names.
// The tensors are the adapter's own: an optimiser writes into them.
func (a *Adapter) Matrices() []NamedTensor { return a.pairs.matrices() }

// Config returns the dimensions of the model that the adapter was made for.
func (a *Adapter) Config() Config { return a.cfg }

// Scale is the factor of the low-rank product, Alpha / Rank.
func (a *Adapter) Scale() float32 { return float32(a.Alpha / float64(a.Rank)) }

// Hash is the SHA-256, in hex, of the rank, alpha and all values.
func (a *Adapter) Hash() string {
	h := sha256.New()
	fmt.Fprintf(h, "lora rank %d alpha %g\n", a.Rank, a.Alpha)
	for _, m := range a.Matrices() {
		fmt.Fprintf(h, "%s %d %d\n", m.Name, m.T.Rows, m.T.Cols)
		hashFloats(h, m.T.Data())
	}
	return hex.EncodeToString(h.Sum(nil))
}

// CheckStack reports an adapter that does not fit the model.
func (c Config) CheckStack(stack []*Adapter) error {
	for i, a := range stack {
		if a == nil {
			return fmt.Errorf("transformer: adapter %d of the stack is nil", i)
		}
		if err := a.fits(c); err != nil {
			return fmt.Errorf("transformer: adapter %d of the stack: %w", i, err)
		}
	}
	return nil
}

// fits compares every dimension that shapes an adapter's matrices.
func (a *Adapter) fits(c Config) error {
	if a.cfg.Layers != c.Layers {
		return fmt.Errorf("it was made for %d layers, the model has %d; use an adapter of the same model", a.cfg.Layers, c.Layers)
	}
	for p := range projCount {
		ao, ai := a.cfg.dims(p)
		if o, i := c.dims(p); ao != o || ai != i {
			return fmt.Errorf("its %s is %dx%d, the model's %dx%d; use an adapter of the same model", projNames[p], ao, ai, o, i)
		}
	}
	return nil
}

// Gradients holds dLoss/dA and dLoss/dB for every matrix of one adapter.
type Gradients struct {
	rank  int
	cfg   Config
	pairs pairs
}

// NewGradients makes zeroed gradients of the adapter's shapes.
func NewGradients(a *Adapter) *Gradients {
	return &Gradients{rank: a.Rank, cfg: a.cfg, pairs: newPairs(a.cfg, a.Rank)}
}

// Zero sets every gradient to zero.
func (g *Gradients) Zero() {
	for _, m := range g.Matrices() {
		m.T.Zero()
	}
}

// Matrices lists the gradients in the order and under the names of Adapter.Matrices.
func (g *Gradients) Matrices() []NamedTensor { return g.pairs.matrices() }

// Concat returns one adapter that acts exactly like sum_i weights[i] * adapters[i]:
// the ranks stand side by side, alpha equals the total rank (scale 1), and each
// scale and weight is folded into its B, in float64 with one rounding. Averaging A
// and B separately, as some tools do, would multiply every A with every B.
func Concat(cfg Config, adapters []*Adapter, weights []float64) (*Adapter, error) {
	if len(adapters) == 0 {
		return nil, fmt.Errorf("transformer: concat: no adapters given")
	}
	if len(weights) != len(adapters) {
		return nil, fmt.Errorf("transformer: concat: %d weights for %d adapters; give one each", len(weights), len(adapters))
	}
	if err := cfg.CheckStack(adapters); err != nil {
		return nil, fmt.Errorf("transformer: concat: %w", err)
	}
	rank := 0
	for i, a := range adapters {
		if math.IsNaN(weights[i]) || math.IsInf(weights[i], 0) {
			return nil, fmt.Errorf("transformer: concat: weight %d is %v; it must be finite", i, weights[i])
		}
		rank += a.Rank
	}
	out := &Adapter{Rank: rank, Alpha: float64(rank), cfg: cfg, pairs: newPairs(cfg, rank)}
	for l := range out.pairs {
		for p := range projCount {
			dst, at := out.pairs[l][p], 0
			for i, a := range adapters {
				src, factor := a.pairs[l][p], weights[i]*a.Alpha/float64(a.Rank)
				copy(dst.a.View(at, at+a.Rank).Data(), src.a.Data())
				for r := range src.b.Rows {
					row := dst.b.Row(r)[at : at+a.Rank]
					for j, v := range src.b.Row(r) {
						row[j] = float32(factor * float64(v))
					}
				}
				at += a.Rank
			}
		}
	}
	return out, nil
}
