package cpu

// Modes returns k in mode exact and in mode bf16 with each way there is to compute it.
func (k *Kernels) Modes() []*Kernels {
	all := []*Kernels{k.with(nil)}
	for _, p := range k.bf16 {
		all = append(all, k.with(p))
	}
	return all
}
