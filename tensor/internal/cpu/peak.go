package cpu

import "time"

// Peak measures what this variant's multiply-adds can reach at most: for about
// d, all threads run chains of them in registers. It returns the operations done.
func (k *Kernels) Peak(d time.Duration) float64 {
	const turns = 10000
	t, rounds := threads(), 0
	start := time.Now()
	for time.Since(start) < d {
		parallel(t, func(int) { k.micro.peak(turns) })
		rounds++
	}
	return float64(2 * 24 * k.micro.width * turns * t * rounds)
}
