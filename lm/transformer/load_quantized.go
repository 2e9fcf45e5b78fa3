package transformer

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/tensor"
)

// LoadGGUFQuantized is LoadGGUF, but leaves every matrix of type Q4_0, Q4_1 or Q8_0,
// the embedding too, as it stands in the file: nothing is rounded, and to read a weight
// takes 5 or 8.5 bits of memory instead of 16. Matrices of other types are rounded to
// bf16. A file with none of the three is refused.
//
// The model scores and samples, with adapters too, under the same laws as any other, but
// it cannot be trained on (Grad) and has mode tensor.Exact only. It is another model
// than LoadGGUF makes of the file, in its last digits and by Hash.
func LoadGGUFQuantized(f *gguf.File) (*Model, error) {
	types, some := map[string]bool{}, false
	for _, t := range f.Tensors {
		types[t.Type] = true
		some = some || len(t.Shape) == 2 && t.BlockBits() > 0
	}
	if !some {
		return nil, fmt.Errorf("gguf: no matrix is of type Q4_0, Q4_1 or Q8_0, only of %s, so nothing can stay quantised; load the model with bf16 weights, or use a Q8_0 or Q4_1 file of it",
			strings.Join(slices.Sorted(maps.Keys(types)), ", "))
	}
	return loadGGUF(f, ggufSource{f})
}

// Quantized tells whether some matrices are quantised: see LoadGGUFQuantized.
func (m *Model) Quantized() bool {
	return slices.ContainsFunc(m.matrices(), func(w *tensor.Weight) bool { return w.Format() != tensor.StoredBF16 })
}

func (s ggufSource) format(name string) tensor.Format {
	switch s.f.Tensors[name].BlockBits() {
	case 4:
		return tensor.Q4
	case 8:
		return tensor.Q8
	}
	return tensor.StoredBF16
}

func (s ggufSource) readBlocks(name string, row int, q []byte, scale, minimum []uint16) error {
	return s.f.ReadBlocks(name, row, q, scale, minimum)
}
