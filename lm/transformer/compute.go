package transformer

import "github.com/opencharacter/opencharacter/tensor"

// SetCompute sets the arithmetic of the products with the weights and with adapters,
// tensor.Exact at first. Call it before the model is used: caches and recorded numbers
// belong to one mode. All that is promised of bits holds in either mode. The sums over
// tokens that make an adapter's gradient are exact in both, because they may be cut
// anywhere.
func (m *Model) SetCompute(c tensor.Compute) {
	for _, t := range m.tensors() {
		if t.matrix != nil {
			t.matrix.SetCompute(c)
		}
	}
	m.compute = c
}

// Compute returns the arithmetic of the model's products; tensor.VariantOf names the
// kernels for it.
func (m *Model) Compute() tensor.Compute { return m.compute }
