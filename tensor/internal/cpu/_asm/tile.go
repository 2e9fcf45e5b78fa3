package main

import "fmt"

// A product tile keeps rows x 32 accumulators in registers and walks the reduction
// once: each accumulator is one chain of fused multiply-adds, which is never split.
// Tiles of one to three rows wait for the latency of their chains, but then they wait
// for memory anyway, which is read best from end to end, one panel at a time. Kinds F32 and BF16 say what b holds; for DP and FMA see pair.go, for Q4 and
// Q8 blocks.go.

const (
	chunk    = 16 // steps between lines of a
	prefetch = 2048
)

func tileName(kind string, rows int) string { return fmt.Sprintf("tile%s_%dx32", kind, rows) }

func genTiles(u *unit) {
	for _, kind := range []string{"F32", "BF16"} {
		for r := 1; r <= u.maxRow; r++ {
			if u.is512() {
				u.tile512(kind, r)
			} else {
				u.tile256(kind, r)
			}
		}
	}
	genOuters(u)
}

var tileArgs = []arg{{"kc", "int"}, {"a", "unsafe.Pointer"}, {"b", "unsafe.Pointer"}, {"c", "unsafe.Pointer"}, {"lda", "int"}, {"step", "int"}, {"ldc", "int"}, {"acc", "int"}}

// R13 is three times lda; SI, R14 and BX point at rows 0, 4 and 8 of a.
var tileRegs = []string{"CX", "SI", "DI", "DX", "R15", "AX", "R8", "R10"}

var rowBase = []string{"SI", "R14", "BX"}

// rowMem addresses step k of row r of a.
func rowMem(r, k int) string {
	return fmt.Sprintf("%d(%s)", k*4, rowBase[r/4]) + []string{"", "(R15*1)", "(R15*2)", "(R13*1)"}[r%4]
}

// rowBases sets the pointers to the rows of a.
func (u *unit) rowBases(rows int) {
	u.p("LEAQ (R15)(R15*2), R13")
	for i := 1; i < (rows+3)/4; i++ {
		u.p("LEAQ (%s)(R15*4), %s", rowBase[i-1], rowBase[i])
	}
}

func (u *unit) tile512(kind string, rows int) {
	if kind == "FMA" {
		u.frame = 16
	}
	u.begin(tileName(kind, rows), "", tileArgs, tileRegs)
	acc := func(r, h int) int { return 32 - 2*rows + 2*r + h }
	first := acc(0, 0) // registers below it are free
	u.rowBases(rows)
	masked := kind == "BF16" || kind == "FMA" // takes words apart
	if kind == "FMA" {
		u.flush(true)
	}
	if masked {
		u.p("MOVL $0xffff0000, R12")
		u.p("VPBROADCASTD R12, Z4")
	}
	// Start from 0 or dst.
	u.p("TESTQ R10, R10")
	u.p("JNZ %s", u.at("load"))
	for i := first; i < 32; i++ {
		u.p("VPXORD Z%d, Z%d, Z%d", i, i, i)
	}
	u.p("JMP %s", u.at("start"))
	u.label("load")
	u.rowsOf(rows, func(r, h int, mem string) { u.p("VMOVUPS %s, Z%d", mem, acc(r, h)) })
	u.label("start")

	// Registers 0-3 hold b, 4 the mask, the rest below first broadcast a.
	turn, free := 0, first-4
	base := 4
	if masked {
		free, base = first-5, 5
	}
	free = min(free, 3)
	bcast := func(r, k int) int {
		t := base + turn%free
		turn++
		u.p("VBROADCASTSS %s, Z%d", rowMem(r, k), t)
		return t
	}
	steps := func(k0, n int) { // n steps from k0 of this chunk
		for k := k0; k < k0+n; {
			if kind == "FMA" {
				u.pairStep(rows, k, acc, base, free)
				k++
				continue
			}
			if kind != "BF16" {
				u.p("VMOVUPS %d(DI), Z0", k*128)
				u.p("VMOVUPS %d(DI), Z1", k*128+64)
				if n > 1 {
					u.p("PREFETCHT0 %d(DI)", k*128+prefetch)
					u.p("PREFETCHT0 %d(DI)", k*128+prefetch+64)
				}
				for r := range rows {
					t := bcast(r, k)
					for h := range 2 {
						if kind == "DP" {
							u.dp(h, t, acc(r, h))
						} else {
							u.p("VFMADD231PS Z%d, Z%d, Z%d", h, t, acc(r, h))
						}
					}
				}
				k++
				continue
			}
			u.p("VMOVUPS %d(DI), Z1", k*64)
			u.p("VMOVUPS %d(DI), Z3", k*64+64)
			if n > 2 {
				u.p("PREFETCHT0 %d(DI)", k*64+prefetch)
				u.p("PREFETCHT0 %d(DI)", k*64+prefetch+64)
			}
			u.p("VPSLLD $16, Z1, Z0")
			u.p("VPSLLD $16, Z3, Z2")
			u.p("VPANDD Z4, Z1, Z1")
			u.p("VPANDD Z4, Z3, Z3")
			for h := range 2 {
				for r := range rows {
					t := bcast(r, k+h)
					u.p("VFMADD231PS Z%d, Z%d, Z%d", h, t, acc(r, 0))
					u.p("VFMADD231PS Z%d, Z%d, Z%d", 2+h, t, acc(r, 1))
				}
			}
			k += 2
		}
	}
	u.walk(kind, rows, steps)
	u.rowsOf(rows, func(r, h int, mem string) { u.p("VMOVUPS Z%d, %s", acc(r, h), mem) })
	if kind == "FMA" {
		u.flush(false)
	}
	u.end()
}

// pairStep does one word with multiply-adds: all odd factors, then all even
// ones. acc(r, h) is the accumulator of row r and half h of the panel.
func (u *unit) pairStep(rows, k int, acc func(r, h int) int, base, free int) {
	u.p("VMOVUPS %d(DI), Z1", k*128)
	u.p("VMOVUPS %d(DI), Z3", k*128+64)
	u.p("VPSLLD $16, Z1, Z0")
	u.p("VPSLLD $16, Z3, Z2")
	u.p("VPANDD Z4, Z1, Z1")
	u.p("VPANDD Z4, Z3, Z3")
	turn := 0
	for odd := 1; odd >= 0; odd-- {
		for r := range rows {
			t := base + turn%free
			turn++
			if odd == 1 {
				u.p("VPANDD.BCST %s, Z4, Z%d", rowMem(r, k), t)
			} else {
				u.p("VPSLLD.BCST $16, %s, Z%d", rowMem(r, k), t)
			}
			u.p("VFMADD231PS Z%d, Z%d, Z%d", odd, t, acc(r, 0))
			u.p("VFMADD231PS Z%d, Z%d, Z%d", 2+odd, t, acc(r, 1))
		}
	}
}

// walk emits the loop over whole chunks of 16 steps and the loop over the
// rest: single steps for float32, pairs for bfloat16.
func (u *unit) walk(kind string, rows int, steps func(k0, n int)) {
	size, least := 128, 1
	if kind == "BF16" {
		size, least = 64, 2
	}
	u.p("SUBQ $%d, CX", chunk)
	u.p("JL %s", u.at("rest"))
	u.label("chunk")
	steps(0, chunk)
	u.p("ADDQ $%d, DI", chunk*size)
	for i := range (rows + 3) / 4 {
		u.p("ADDQ AX, %s", rowBase[i])
	}
	u.p("SUBQ $%d, CX", chunk)
	u.p("JGE %s", u.at("chunk"))
	u.label("rest")
	u.p("ADDQ $%d, CX", chunk)
	u.p("JLE %s", u.at("store"))
	u.label("step")
	steps(0, least)
	u.p("ADDQ $%d, DI", least*size)
	for i := range (rows + 3) / 4 {
		u.p("ADDQ $%d, %s", least*4, rowBase[i])
	}
	u.p("SUBQ $%d, CX", least)
	u.p("JG %s", u.at("step"))
	u.label("store")
}

// rowsOf visits every register of the tile with its address in dst.
func (u *unit) rowsOf(rows int, visit func(r, h int, mem string)) {
	u.p("MOVQ DX, R12")
	for r := range rows {
		for h := range 2 {
			visit(r, h, fmt.Sprintf("%d(R12)", h*64))
		}
		if r < rows-1 {
			u.p("ADDQ R8, R12")
		}
	}
}

// tile256 covers the 32 columns at once for up to two rows and in two halves
// for more, as registers allow.
func (u *unit) tile256(kind string, rows int) {
	if kind == "FMA" {
		u.frame = 16
	}
	u.begin(tileName(kind, rows), "", tileArgs, tileRegs)
	u.rowBases(rows)
	groups, halves := 4, 1
	if rows > 2 {
		groups, halves = 2, 2
	}
	// Registers: accumulators, then b, then broadcasts of a; the mask is 15.
	acc := func(r, g int) int { return r*groups + g }
	b0 := rows * groups
	a0 := b0 + groups
	na := 15 - a0
	if kind == "F32" {
		na++
	}
	na = min(na, rows, 2)
	if kind == "FMA" {
		u.flush(true)
	}
	if kind != "F32" {
		u.p("MOVL $0xffff0000, R12")
		u.p("VMOVD R12, X15")
		u.p("VPBROADCASTD X15, Y15")
	}
	if halves == 2 {
		u.p("MOVQ $2, R11")
		u.label("half")
	}
	c := func(visit func(r, g int, mem string)) {
		u.p("MOVQ DX, R12")
		for r := range rows {
			for g := range groups {
				visit(r, g, fmt.Sprintf("%d(R12)", g*32))
			}
			if r < rows-1 {
				u.p("ADDQ R8, R12")
			}
		}
	}
	u.p("TESTQ R10, R10")
	u.p("JNZ %s", u.at("load"))
	for i := range rows * groups {
		u.p("VXORPS Y%d, Y%d, Y%d", i, i, i)
	}
	u.p("JMP %s", u.at("start"))
	u.label("load")
	c(func(r, g int, mem string) { u.p("VMOVUPS %s, Y%d", mem, acc(r, g)) })
	u.label("start")
	turn := 0
	steps := func(k0, n int) {
		for k := k0; k < k0+n; k++ {
			if kind == "FMA" {
				for odd := 1; odd >= 0; odd-- {
					for g := range groups {
						u.half(odd, fmt.Sprintf("%d(DI)", k*128+g*32), b0+g)
					}
					for r := range rows {
						t := a0 + turn%na
						turn++
						u.p("VBROADCASTSS %s, Y%d", rowMem(r, k), t)
						u.half(odd, "", t)
						for g := range groups {
							u.p("VFMADD231PS Y%d, Y%d, Y%d", b0+g, t, acc(r, g))
						}
					}
				}
				continue
			}
			for g := range groups {
				switch {
				case kind == "F32":
					u.p("VMOVUPS %d(DI), Y%d", k*128+g*32, b0+g)
				case k%2 == 0: // the low half of each pair
					u.p("VMOVDQU %d(DI), Y%d", k*64+g*32, b0+g)
					u.p("VPSLLD $16, Y%d, Y%d", b0+g, b0+g)
				default:
					u.p("VPAND %d(DI), Y15, Y%d", (k-1)*64+g*32, b0+g)
				}
			}
			for r := range rows {
				t := a0 + turn%na
				turn++
				u.p("VBROADCASTSS %s, Y%d", rowMem(r, k), t)
				for g := range groups {
					u.p("VFMADD231PS Y%d, Y%d, Y%d", b0+g, t, acc(r, g))
				}
			}
		}
	}
	u.walk(kind, rows, steps)
	c(func(r, g int, mem string) { u.p("VMOVUPS Y%d, %s", acc(r, g), mem) })
	if halves == 2 {
		u.p("MOVQ kc+0(FP), CX")
		u.p("MOVQ a+8(FP), SI")
		u.p("MOVQ b+16(FP), DI")
		u.p("ADDQ $64, DI")
		u.p("ADDQ $64, DX")
		u.rowBases(rows)
		u.p("DECQ R11")
		u.p("JNZ %s", u.at("half"))
	}
	if kind == "FMA" {
		u.flush(false)
	}
	u.end()
}

// half leaves one half of the words at mem, or of register x itself, in x as
// float32s.
func (u *unit) half(odd int, mem string, x int) {
	switch {
	case odd == 1 && mem == "":
		u.p("VPAND Y%d, Y15, Y%d", x, x)
	case odd == 1:
		u.p("VPAND %s, Y15, Y%d", mem, x)
	default:
		if mem != "" {
			u.p("VMOVDQU %s, Y%d", mem, x)
		}
		u.p("VPSLLD $16, Y%d, Y%d", x, x)
	}
}
