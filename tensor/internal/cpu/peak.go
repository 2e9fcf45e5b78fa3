package cpu

import "time"

// Peak measures what this variant's multiply-adds, or products of pairs, can reach
// at most: for about d, all threads run chains of them in registers. It returns the operations done.
func (k *Kernels) Peak(d time.Duration) float64 {
	const turns = 10000
	t, rounds := threads(), 0
	start := time.Now()
	run, each := k.micro.peak, 2
	if k.pairs != nil && k.pairs.peak != nil {
		run, each = k.pairs.peak, 4
	}
	for time.Since(start) < d {
		parallel(t, func(int) { run(turns) })
		rounds++
	}
	return float64(each * 24 * k.micro.width * turns * t * rounds)
}
