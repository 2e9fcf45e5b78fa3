package transformer

import (
	"fmt"
	"math"

	"github.com/opencharacter/opencharacter/tensor"
)

// Ways in which a model stretches its rotary positions to a longer context.
const (
	ropeLinear   = "linear"   // every frequency divided by Factor
	ropeLlama3   = "llama3"   // only the low frequencies, see divisors
	ropeDivisors = "divisors" // by a vector that stands with the weights (GGUF)
)

// ropeFreqs is the tensor of a GGUF file that holds such a vector, [HeadDim/2].
const ropeFreqs = "rope_freqs.weight"

// RopeScaling says by what the frequencies of rotary positions are divided. The zero
// value is plain rotary positions. With a Window it is about the layers without one.
type RopeScaling struct {
	Type     string  `json:"type,omitempty"` // "", "linear", "llama3" or "divisors"
	Factor   float64 `json:"factor,omitempty"`
	LowFreq  float64 `json:"low_freq_factor,omitempty"`  // llama3 only, as are the next two
	HighFreq float64 `json:"high_freq_factor,omitempty"` // above LowFreq
	Original int     `json:"original_context,omitempty"` // context before stretching, in tokens
}

// check reports the first impossible value by name.
func (r RopeScaling) check() error {
	ok := func(v float64) bool { return v > 0 && v <= 1e9 }
	switch r.Type {
	case "", ropeDivisors:
		if (r != RopeScaling{Type: r.Type}) {
			return fmt.Errorf("transformer: config: rope scaling of type %q has parameters; it takes none", r.Type)
		}
	case ropeLinear:
		if (r != RopeScaling{Type: r.Type, Factor: r.Factor}) {
			return fmt.Errorf("transformer: config: linear rope scaling has parameters beside its factor; it takes none")
		}
	case ropeLlama3:
		switch {
		case !ok(r.LowFreq) || !ok(r.HighFreq) || r.HighFreq <= r.LowFreq:
			return fmt.Errorf("transformer: config: rope scaling llama3: low_freq_factor %v and high_freq_factor %v must be positive, the second greater", r.LowFreq, r.HighFreq)
		case r.Original < 1 || r.Original > maxContext:
			return fmt.Errorf("transformer: config: rope scaling llama3: original_max_position_embeddings is %d; it must lie in 1..%d", r.Original, maxContext)
		}
	default:
		return fmt.Errorf("transformer: config: rope scaling %v is not supported; only plain, linear and llama3 rotary positions are", r.Type)
	}
	if (r.Type == ropeLinear || r.Type == ropeLlama3) && !ok(r.Factor) {
		return fmt.Errorf("transformer: config: rope scaling %s: factor is %v; it must be a positive number", r.Type, r.Factor)
	}
	return nil
}

// divisors returns the divisor of each pair's frequency base^(-2i/headDim), or nil for
// plain positions. "llama3" (Llama 3.1; transformers' modeling_rope_utils) leaves waves
// shorter than Original/HighFreq alone, divides those longer than Original/LowFreq by
// Factor, and passes smoothly from one to the other.
func (r RopeScaling) divisors(headDim int, base float64) []float64 {
	if r.Type != ropeLinear && r.Type != ropeLlama3 {
		return nil
	}
	out := make([]float64, headDim/2)
	for i := range out {
		out[i] = r.Factor
		if r.Type == ropeLinear {
			continue
		}
		waves := float64(r.Original) * math.Pow(base, -2*float64(i)/float64(headDim)) / (2 * math.Pi) // in the original context
		switch {
		case waves > r.HighFreq:
			out[i] = 1
		case waves >= r.LowFreq:
			smooth := (waves - r.LowFreq) / (r.HighFreq - r.LowFreq)
			out[i] = 1 / ((1-smooth)/r.Factor + smooth)
		}
	}
	return out
}

// setRope makes the rotary tables; divisors are those of the weights, if they have some.
func (m *Model) setRope(divisors []float32) error {
	scale := m.RopeScaling.divisors(m.HeadDim, m.RopeBase)
	for i, d := range divisors {
		if !(d > 0) {
			return fmt.Errorf("divisor %d of the rotary frequencies is %v; it must be positive", i, d)
		}
		scale = append(scale, float64(d))
	}
	m.divisors = divisors
	first := min(m.Context, 2048) // grows on demand
	m.rope = tensor.NewScaledRoPE(m.HeadDim, m.RopeBase, scale, first)
	if m.Window > 0 {
		m.localRope = tensor.NewRoPE(m.HeadDim, m.LocalRopeBase, first)
	}
	return nil
}

// ropeSettings is rope_scaling of transformers 4 or rope_parameters of transformers 5:
// for a whole model, or for the layers of one kind.
type ropeSettings map[string]any

// number returns a numeric field.
func (s ropeSettings) number(kind any, key string) (float64, error) {
	switch v := s[key].(type) {
	case float64:
		return v, nil
	case nil:
		return 0, fmt.Errorf("rope scaling %v: %s is missing", kind, key)
	default:
		return 0, fmt.Errorf("rope scaling %v: %s is %v; it must be a number", kind, key, v)
	}
}

// apply overwrites the base and the scaling with what the settings name.
func (s ropeSettings) apply(base *float64, scaling *RopeScaling) (err error) {
	if s["rope_theta"] != nil {
		if *base, err = s.number("of rope_theta", "rope_theta"); err != nil {
			return fmt.Errorf("rope_theta is %v; it must be a number", s["rope_theta"])
		}
	}
	if part, ok := s["partial_rotary_factor"]; ok && part != 1.0 {
		return fmt.Errorf("partial_rotary_factor %v is not supported; only 1 is", part)
	}
	kind := s["rope_type"]
	if old, ok := s["type"]; ok && (kind == nil || kind == "default") {
		kind = old
	}
	switch kind {
	case nil, "default":
		if factor, ok := s["factor"]; ok && factor != 1.0 {
			return fmt.Errorf("rope scaling with factor %v has no type; say which it is with rope_type", factor)
		}
		return nil
	case ropeLinear, ropeLlama3:
	default:
		return fmt.Errorf("rope scaling %v is not supported; only plain, linear and llama3 rotary positions are", kind)
	}
	r := RopeScaling{Type: kind.(string)}
	if r.Factor, err = s.number(kind, "factor"); err != nil || r.Type == ropeLinear {
		*scaling = r
		return err
	}
	if r.LowFreq, err = s.number(kind, "low_freq_factor"); err != nil {
		return err
	}
	if r.HighFreq, err = s.number(kind, "high_freq_factor"); err != nil {
		return err
	}
	original, err := s.number(kind, "original_max_position_embeddings")
	if err != nil {
		return err
	}
	if original != math.Trunc(original) || !(math.Abs(original) <= maxContext) {
		return fmt.Errorf("rope scaling llama3: original_max_position_embeddings is %v; it must be a whole number up to %d", original, maxContext)
	}
	r.Original = int(original)
	*scaling = r
	return nil
}
