package transformer

import (
	"errors"

	"github.com/opencharacter/opencharacter/tensor"
)

// SetCompute sets the arithmetic of the products with the weights and with adapters,
// tensor.Exact at first. Call it before the model is used: caches and recorded numbers
// belong to one mode. All that is promised of bits holds in either mode. The sums over
// tokens that make an adapter's gradient are exact in both, because they may be cut
// anywhere. A model with quantised weights has mode tensor.Exact alone; for another one
// the error says so and nothing changes.
func (m *Model) SetCompute(c tensor.Compute) error {
	if c != tensor.Exact && m.Quantized() {
		return errors.New("transformer: a model with quantized weights computes in mode exact only, not in " + c.String() + "; load it with bf16 weights for that")
	}
	for _, w := range m.matrices() {
		w.SetCompute(c)
	}
	m.compute = c
	return nil
}

// Compute returns the arithmetic of the model's products; tensor.VariantOf names the
// kernels for it.
func (m *Model) Compute() tensor.Compute { return m.compute }
