package kerneltest

import (
	"fmt"
	"testing"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// cacheShared: rows that begin with the same pages, in any company, get the bits that
// they get alone.
func cacheShared(t *testing.T, ks kernel.Kernels) {
	rng := newRand(40)
	for _, s := range []kernel.AttentionShape{
		{Heads: 1, KVHeads: 1, HeadDim: 8, Scale: 0.3}, {Heads: 9, KVHeads: 3, HeadDim: 64, Scale: 0.125}, {Heads: 8, KVHeads: 4, HeadDim: 40, Scale: 0.2},
		{Heads: 5, KVHeads: 1, HeadDim: 33, Scale: 0.2}, {Heads: 14, KVHeads: 1, HeadDim: 16, Scale: 0.2}, {Heads: 6, KVHeads: 2, HeadDim: 32, Scale: 0.2, Window: 40},
	} {
		const pool = 40
		kv := ks.NewKV(1, pool, s)
		k, v := random(rng, pool*kernel.PageSize, s.KVHeads*s.HeadDim), random(rng, pool*kernel.PageSize, s.KVHeads*s.HeadDim)
		page, slot := make([]int32, k.Rows), make([]int32, k.Rows)
		for i := range page {
			page[i], slot[i] = int32(i/kernel.PageSize), int32(i%kernel.PageSize)
		}
		kv.Write(0, k, v, page, slot)
		for range 12 {
			var tables [][]int32
			var lengths []int32
			table := []int32{int32(rng.IntN(pool))}
			for len(tables) < 17 {
				switch rng.IntN(5) {
				case 0: // the same sequence again
				case 1: // something else
					table = nil
				default: // another one after the same beginning
					table = append([]int32{}, table[:rng.IntN(len(table)+1)]...)
				}
				for len(table) < 1 || rng.IntN(3) > 0 && len(table) < 5 {
					table = append(table[:len(table):len(table)], int32(rng.IntN(pool)))
				}
				tables = append(tables, table)
				lengths = append(lengths, int32((len(table)-1)*kernel.PageSize+1+rng.IntN(kernel.PageSize)))
			}
			q := random(rng, len(tables), s.Heads*s.HeadDim)
			whole, alone := zeros(q.Rows, q.Cols), zeros(q.Rows, q.Cols)
			ks.AttentionKV(whole, q, kv, 0, tables, lengths, s.Window)
			for i := range tables {
				ks.AttentionKV(view(alone, i, i+1), view(q, i, i+1), kv, 0, tables[i:i+1], lengths[i:i+1], s.Window)
			}
			equal(t, fmt.Sprintf("%+v, pages %v, lengths %v", s, tables, lengths), whole.Data, alone.Data)
		}
	}
}
