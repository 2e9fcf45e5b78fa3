package train

import (
	"cmp"
	"fmt"
	"slices"
)

// Order returns the row index at every position of a run over n rows: epochs
// shuffles of 0..n-1, one after the other. It is a pure function of its arguments:
// row i stands in epoch e where the counter-based random number of (seed, e, i)
// places it, so any position can be found again without a generator's history.
func Order(n, epochs int, seed uint64) []int {
	if n < 0 || epochs < 0 {
		panic(fmt.Sprintf("train: Order(%d, %d): negative count", n, epochs))
	}
	order := make([]int, 0, n*epochs)
	for e := range epochs {
		order = append(order, shuffle(n, e, seed)...)
	}
	return order
}

// shuffle orders 0..n-1 by random key, and by index should two keys be equal.
func shuffle(n, epoch int, seed uint64) []int {
	keys, rows := make([]uint64, n), make([]int, n)
	for i := range rows {
		rows[i] = i
		keys[i] = mix(mix(mix(seed)+uint64(epoch)) + uint64(i))
	}
	slices.SortFunc(rows, func(a, b int) int {
		return cmp.Or(cmp.Compare(keys[a], keys[b]), cmp.Compare(a, b))
	})
	return rows
}

// mix is the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Steps is the number of optimiser steps over n rows or pairs: each epoch ends with
// a smaller batch if BatchSize does not divide n. It is 0 for n = 0 or options that
// cannot be resolved.
func (o Options) Steps(n int) int {
	batch, epochs := cmp.Or(o.BatchSize, 8), cmp.Or(o.Epochs, 1)
	if n <= 0 || batch < 0 || epochs < 0 {
		return 0
	}
	return epochs * ((n + batch - 1) / batch)
}

// Batch returns the rows of step k, counted from 0, of a run over n rows: a pure
// function, consecutive positions of Order within one epoch. It is nil from Steps(n) on.
func (o Options) Batch(n, k int) []int {
	if k < 0 || k >= o.Steps(n) {
		return nil
	}
	batch := cmp.Or(o.BatchSize, 8)
	perEpoch := (n + batch - 1) / batch
	from := k % perEpoch * batch
	return shuffle(n, k/perEpoch, o.Seed)[from:min(from+batch, n)]
}
