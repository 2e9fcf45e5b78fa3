package cpu

import "unsafe"

const (
	chunk   = 16 // reduction steps per line of packed A
	maxRows = 12 // rows of the tallest tile
	maxWide = 4  // panels of the widest tile
)

// tileFunc computes one tile of dst (+)= a . b over kc reduction steps, each
// element as one chain in ascending order.
//
// a holds the tile's rows as chunks of 16 steps, [ceil(kc/16)][rows][16]; b
// one or more panels of 32 columns, ldb bytes apart, float32 [kc][32] or
// bfloat16 [ceil(kc/2)][32][2] (then kc is even, or a is 0 beyond it); c is
// dst with ldc bytes between rows. acc != 0 starts from dst, else from 0.
type tileFunc func(kc int, a, b, c unsafe.Pointer, ldc, ldb, acc int)

// tiles holds the tile functions of one variant and type of b.
type tiles struct {
	rows int // tallest tile
	f    [maxWide + 1][maxRows + 1]tileFunc
}

// widest returns the most panels one tile of r rows can take.
func (t *tiles) widest(r int) int {
	for w := maxWide; w > 1; w-- {
		if t.f[w][r] != nil {
			return w
		}
	}
	return 1
}

func genericTiles(f func(rows int) tileFunc) tiles {
	t := tiles{rows: maxRows}
	for r := 1; r <= maxRows; r++ {
		t.f[1][r] = f(r)
	}
	return t
}

func tileF32(rows int) tileFunc {
	return func(kc int, a, b, c unsafe.Pointer, ldc, _, acc int) {
		bs := unsafe.Slice((*float32)(b), kc*panel)
		as := unsafe.Slice((*float32)(a), (kc+chunk-1)/chunk*chunk*rows)
		for r := range rows {
			dst := (*[panel]float32)(unsafe.Add(c, r*ldc))
			var sum [panel]float32
			if acc != 0 {
				sum = *dst
			}
			for k := range kc {
				x := as[k/chunk*chunk*rows+r*chunk+k%chunk]
				row := (*[panel]float32)(bs[k*panel:])
				for j := range sum {
					sum[j] += float32(x * row[j])
				}
			}
			*dst = sum
		}
	}
}

func tileBF16(rows int) tileFunc {
	f := tileF32(rows)
	return func(kc int, a, b, c unsafe.Pointer, ldc, ldb, acc int) {
		var wide [chunk * panel]float32
		kc = (kc + 1) &^ 1
		for k := 0; k < kc; k += chunk {
			n := min(chunk, kc-k)
			h := unsafe.Slice((*uint16)(unsafe.Add(b, k*panel*2)), n*panel)
			for i, v := range h {
				wide[(i/(2*panel)*2+i%2)*panel+i/2%panel] = widen(v)
			}
			f(n, unsafe.Add(a, k*rows*4), unsafe.Pointer(&wide), c, ldc, ldb, acc)
			acc = 1
		}
	}
}
