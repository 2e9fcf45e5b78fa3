package cpu

import "unsafe"

const (
	chunk   = 16 // reduction steps per line of packed A
	maxRows = 12 // rows of the tallest tile
)

// tileFunc computes one tile of dst (+)= a . b over kc reduction steps, each
// element as one chain in ascending order.
//
// Row i of a starts lda*i bytes after a; its steps come in chunks of 16
// neighbours, step bytes apart: either rows as they lie in memory (step 64) or
// packed, [ceil(kc/16)][rows][16] (lda 64). b is a panel of 32 columns, float32 [kc][32] or bfloat16 [ceil(kc/2)][32][2]
// (an odd kc reads one more value of a and multiplies it by 0), or blocks of 32
// steps (see quantized.go; kc is a multiple of 32). c is dst with
// ldc bytes between rows. acc != 0 starts from dst, else from 0.
//
// Tiles of the table outer read matrices with a row a step instead: step k of row
// i of a lies lda*k + 4*i bytes after a, and the columns of b step*k bytes after b.
type tileFunc func(kc int, a, b, c unsafe.Pointer, lda, step, ldc, acc int)

// tiles holds the tile functions of one variant and type of b.
type tiles struct {
	rows int // tallest tile
	f    [maxRows + 1]tileFunc
}

func genericTiles(f func(rows int) tileFunc) tiles {
	t := tiles{rows: maxRows}
	for r := 1; r <= maxRows; r++ {
		t.f[r] = f(r)
	}
	return t
}

func tileF32(rows int) tileFunc {
	return func(kc int, a, b, c unsafe.Pointer, lda, step, ldc, acc int) {
		bs := unsafe.Slice((*float32)(b), kc*panel)
		for r := range rows {
			dst := (*[panel]float32)(unsafe.Add(c, r*ldc))
			var sum [panel]float32
			if acc != 0 {
				sum = *dst
			}
			for k := range kc {
				x := *(*float32)(unsafe.Add(a, r*lda+k/chunk*step+k%chunk*4))
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
	return func(kc int, a, b, c unsafe.Pointer, lda, step, ldc, acc int) {
		var wide [chunk * panel]float32
		kc = (kc + 1) &^ 1
		for k := 0; k < kc; k += chunk {
			n := min(chunk, kc-k)
			h := unsafe.Slice((*uint16)(unsafe.Add(b, k*panel*2)), n*panel)
			for i, v := range h {
				wide[(i/(2*panel)*2+i%2)*panel+i/2%panel] = widen(v)
			}
			f(n, unsafe.Add(a, k/chunk*step), unsafe.Pointer(&wide), c, lda, step, ldc, acc)
			acc = 1
		}
	}
}

func tileOuter(rows int) tileFunc {
	return func(kc int, a, b, c unsafe.Pointer, lda, step, ldc, acc int) {
		for r := range rows {
			dst := (*[panel]float32)(unsafe.Add(c, r*ldc))
			var sum [panel]float32
			if acc != 0 {
				sum = *dst
			}
			for k := range kc {
				x := *(*float32)(unsafe.Add(a, k*lda+4*r))
				row := (*[panel]float32)(unsafe.Add(b, k*step))
				for j := range sum {
					sum[j] += float32(x * row[j])
				}
			}
			*dst = sum
		}
	}
}
