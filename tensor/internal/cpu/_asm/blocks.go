package main

import "fmt"

// The tiles of weights of blocks, kinds Q4 and Q8 (the layout: quantized.go). A
// weight is widened in registers, for all rows of the tile: the integer becomes a
// float32, which is multiplied by its scale without rounding, and a minimum is
// added with one; then the tile goes on like one of kind F32. All tiles are one panel
// wide: widening leaves time for the latency of a chain, and memory is read best from
// one place at a time.

const blockSteps = 32 // that share a scale

// layout is that of one kind, in bytes: 16 steps, where the scales stand, a whole
// block, and from the first 16 columns to the others.
type layout struct{ chunk, scale, bytes, half int }

var layouts = map[string]layout{
	"Q4": {256, 512, 640, 64},
	"Q8": {512, 1024, 1088, 16},
}

var blockKinds = []string{"Q4", "Q8"}

func genBlocks(u *unit) {
	for _, kind := range blockKinds {
		for r := 1; r <= u.maxRow; r++ {
			if u.is512() {
				u.blocks512(kind, r)
			} else {
				u.blocks256(kind, r)
			}
		}
		u.widen(kind)
	}
}

// blockWalk emits the loops over blocks and their chunks of 16 steps. begin reads the
// scales; then steps does one chunk.
func (u *unit) blockWalk(kind string, rows int, begin, steps, end func()) {
	l := layouts[kind]
	u.label("block")
	begin()
	u.p("MOVQ $%d, R12", blockSteps/chunk)
	u.label("chunk")
	steps()
	u.p("ADDQ $%d, DI", l.chunk)
	for i := range (rows + 3) / 4 {
		u.p("ADDQ AX, %s", rowBase[i])
	}
	u.p("DECQ R12")
	u.p("JNZ %s", u.at("chunk"))
	u.p("ADDQ $%d, DI", l.bytes-l.scale)
	end()
	u.p("SUBQ $%d, CX", blockSteps)
	u.p("JG %s", u.at("block"))
}

func (u *unit) blocks512(kind string, rows int) {
	l := layouts[kind]
	u.begin(tileName(kind, rows), "", tileArgs, tileRegs)
	// Registers 0 and 1 hold weights, then come those for all of a block, then
	// broadcasts of a, and the accumulators are last.
	d, m, table, base := 2, 4, 6, 4
	if kind == "Q4" {
		base = 7
		u.nibbleTable(table)
	}
	acc := func(r, h int) int { return 32 - 2*rows + 2*r + h }
	free, turn := min(acc(0, 0)-base, 3), 0
	u.rowBases(rows)
	u.p("TESTQ R10, R10")
	u.p("JNZ %s", u.at("load"))
	for i := acc(0, 0); i < 32; i++ {
		u.p("VPXORD Z%d, Z%d, Z%d", i, i, i)
	}
	u.p("JMP %s", u.at("block"))
	u.label("load")
	u.rowsOf(rows, func(r, h int, mem string) { u.p("VMOVUPS %s, Z%d", mem, acc(r, h)) })
	begin := func() { u.scales512(l, d, m) }
	steps := func() {
		for k := range chunk {
			for h := range 2 {
				u.weight512(kind, h, k, d+h, m+h, table)
			}
			for r := range rows {
				t := base + turn%free
				turn++
				u.p("VBROADCASTSS %s, Z%d", rowMem(r, k), t)
				for h := range 2 {
					u.p("VFMADD231PS Z%d, Z%d, Z%d", h, t, acc(r, h))
				}
			}
		}
	}
	u.blockWalk(kind, rows, begin, steps, func() {})
	u.rowsOf(rows, func(r, h int, mem string) { u.p("VMOVUPS Z%d, %s", acc(r, h), mem) })
	u.end()
}

// nibbleTable sets a register to the floats 0 to 15: the low four bits of a lane look its
// nibble up.
func (u *unit) nibbleTable(table int) {
	u.p("MOVQ $0x0706050403020100, R12")
	u.p("VMOVQ R12, X0")
	u.p("MOVQ $0x0f0e0d0c0b0a0908, R12")
	u.p("VPINSRQ $1, R12, X0, X0")
	u.p("VPMOVZXBD X0, Z%d", table)
	u.p("VCVTDQ2PS Z%d, Z%d", table, table)
}

// scales512 reads a block's scales to two registers from d on and minimums to m.
func (u *unit) scales512(l layout, d, m int) {
	for o := 0; o < l.bytes-l.scale; o += 64 {
		u.p("PREFETCHT0 %d(DI)", l.scale+o+prefetch)
		for h := range 2 {
			u.p("VCVTPH2PS %d(DI), Z%d", l.scale+o+32*h, []int{d, m}[o/64]+h)
		}
	}
}

// widen writes n steps, a multiple of 32, of a panel as float32s [n][32].
func (u *unit) widen(kind string) {
	l := layouts[kind]
	u.begin("widen"+kind, "", []arg{{"dst", "unsafe.Pointer"}, {"src", "unsafe.Pointer"}, {"n", "int"}}, []string{"DX", "DI", "CX"})
	begin := func() { u.scales512(l, 2, 4) }
	if kind == "Q4" {
		if u.is512() {
			u.nibbleTable(6)
		} else {
			u.nibbleMask()
		}
	}
	if !u.is512() {
		begin = func() {
			for minimum := range (l.bytes - l.scale) / 64 {
				for g := range 4 {
					u.p("VCVTPH2PS %d(DI), Y%d", l.scale+64*minimum+16*g, 4+4*minimum+g)
				}
			}
		}
	}
	u.blockWalk(kind, 0, begin, func() {
		for k := range chunk {
			for g := range u.group() {
				if u.is512() {
					u.weight512(kind, g, k, 2+g, 4+g, 6)
				} else {
					u.weight256(kind, g, k, g, fmt.Sprintf("Y%d", 4+g), fmt.Sprintf("Y%d", 8+g))
				}
				u.p("VMOVUPS %s, %d(DX)", u.v(g), 128*k+u.bytes*g)
			}
		}
		u.p("ADDQ $%d, DX", 128*chunk)
	}, func() {})
	u.end()
}

// weight512 leaves the weights of step k and half h of the panel in register h.
func (u *unit) weight512(kind string, h, k, d, m, table int) {
	if kind == "Q8" {
		if h == 0 && k%2 == 0 {
			u.p("PREFETCHT0 %d(DI)", k*32+prefetch)
		}
		u.p("VPMOVSXBD %d(DI), Z%d", k*32+16*h, h)
		u.p("VCVTDQ2PS Z%d, Z%d", h, h)
		u.p("VMULPS Z%d, Z%d, Z%d", d, h, h)
		return
	}
	at := k/8*128 + 64*h
	if s := k % 8; s > 0 {
		u.p("VPSRLD $%d, %d(DI), Z%d", 4*s, at, h)
	} else {
		u.p("PREFETCHT0 %d(DI)", at+prefetch)
		u.p("VMOVDQU32 %d(DI), Z%d", at, h)
	}
	u.p("VPERMPS Z%d, Z%d, Z%d", table, h, h)
	u.p("VFMADD213PS Z%d, Z%d, Z%d", m, d, h)
}

// blocks256 covers the columns as tile256 does. Scales and minimums wait on the
// stack: registers are few.
func (u *unit) blocks256(kind string, rows int) {
	l := layouts[kind]
	groups, halves := 4, 1
	if rows > 2 {
		groups, halves = 2, 2
	}
	u.frame = 2 * 32 * groups
	local := func(minimum, g int) string {
		return fmt.Sprintf("scales-%d(SP)", 2*32*groups-(minimum*groups+g)*32)
	}
	u.begin(tileName(kind, rows), "", tileArgs, tileRegs)
	u.rowBases(rows)
	acc := func(r, g int) int { return r*groups + g }
	b0 := rows * groups
	a0 := b0 + groups
	na := min(15-a0, rows, 2)
	if kind == "Q4" {
		u.nibbleMask()
	}
	u.p("LEAQ %d(DI), BX", l.scale)
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
	u.p("JMP %s", u.at("block"))
	u.label("load")
	c(func(r, g int, mem string) { u.p("VMOVUPS %s, Y%d", mem, acc(r, g)) })
	begin := func() {
		for minimum := range (l.bytes - l.scale) / 64 {
			for g := range groups {
				u.p("VCVTPH2PS %d(BX), Y%d", 64*minimum+16*g, b0)
				u.p("VMOVUPS Y%d, %s", b0, local(minimum, g))
			}
		}
	}
	turn := 0
	steps := func() {
		for k := range chunk {
			for g := range groups {
				u.weight256(kind, g, k, b0+g, local(0, g), local(1, g))
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
	u.blockWalk(kind, rows, begin, steps, func() { u.p("ADDQ $%d, BX", l.bytes) })
	c(func(r, g int, mem string) { u.p("VMOVUPS Y%d, %s", acc(r, g), mem) })
	if halves == 2 {
		u.p("MOVQ kc+0(FP), CX")
		u.p("MOVQ a+8(FP), SI")
		u.p("MOVQ b+16(FP), DI")
		u.p("LEAQ %d(DI), BX", l.scale+32)
		u.p("ADDQ $%d, DI", l.half)
		u.p("ADDQ $64, DX")
		u.rowBases(rows)
		u.p("DECQ R11")
		u.p("JNZ %s", u.at("half"))
	}
	u.end()
}

func (u *unit) nibbleMask() {
	u.p("MOVL $15, R12")
	u.p("VMOVD R12, X15")
	u.p("VPBROADCASTD X15, Y15")
}

// weight256 leaves the weights of step k and columns 8g to 8g+7 in register t; d and m are
// registers or places in memory.
func (u *unit) weight256(kind string, g, k, t int, d, m string) {
	if kind == "Q8" {
		u.p("VPMOVSXBD %d(DI), Y%d", k*32+8*g, t)
	} else {
		u.p("VMOVDQU %d(DI), Y%d", k/8*128+32*g, t)
		if s := k % 8; s > 0 {
			u.p("VPSRLD $%d, Y%d, Y%d", 4*s, t, t)
		}
		if k%8 < 7 {
			u.p("VPAND Y15, Y%d, Y%d", t, t)
		}
	}
	u.p("VCVTDQ2PS Y%d, Y%d", t, t)
	u.p("VMULPS %s, Y%d, Y%d", d, t, t)
	if kind == "Q4" { // the product was exact, so this rounds like a fused one
		u.p("VADDPS %s, Y%d, Y%d", m, t, t)
	}
}
