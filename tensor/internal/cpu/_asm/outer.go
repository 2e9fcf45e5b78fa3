package main

import "fmt"

// Tiles of kind Outer read both sides as they lie in memory, a row of each a
// step: the product a^T . b of two matrices with many rows, as in the gradient of
// a weight, where packing would cost a quarter of the time. Their chains are those
// of the other tiles.

func genOuters(u *unit) {
	for r := 1; r <= u.maxRow; r++ {
		u.outer(r)
	}
}

// outer: SI and DI are the current rows of a and b, R15 and AX the bytes to the next.
func (u *unit) outer(rows int) {
	u.begin(tileName("Outer", rows), "", tileArgs, tileRegs)
	groups, halves := u.group(), 1
	if !u.is512() && rows > 2 {
		groups, halves = groups/2, 2
	}
	acc := func(r, g int) int { return u.regs - rows*groups + r*groups + g }
	free := u.regs - rows*groups - groups // registers for broadcasts, after those of b
	c := func(visit func(r, g int, mem string)) {
		u.p("MOVQ DX, R12")
		for r := range rows {
			for g := range groups {
				visit(r, g, fmt.Sprintf("%d(R12)", g*u.bytes))
			}
			if r < rows-1 {
				u.p("ADDQ R8, R12")
			}
		}
	}
	if halves == 2 {
		u.p("MOVQ $2, R11")
		u.label("half")
	}
	u.p("TESTQ R10, R10")
	u.p("JNZ %s", u.at("load"))
	for i := range rows * groups {
		x := u.v(acc(0, 0) + i)
		if u.is512() {
			u.p("VPXORD %s, %s, %s", x, x, x)
		} else {
			u.p("VXORPS %s, %s, %s", x, x, x)
		}
	}
	u.p("JMP %s", u.at("start"))
	u.label("load")
	c(func(r, g int, mem string) { u.p("VMOVUPS %s, %s", mem, u.v(acc(r, g))) })
	u.label("start")

	turn := 0
	step := func() {
		for g := range groups {
			u.p("VMOVUPS %d(DI), %s", g*u.bytes, u.v(g))
		}
		u.p("PREFETCHT0 (DI)(AX*8)")
		for r := range rows {
			t := groups + turn%min(free, 3)
			turn++
			u.p("VBROADCASTSS %d(SI), %s", 4*r, u.v(t))
			for g := range groups {
				u.p("VFMADD231PS %s, %s, %s", u.v(g), u.v(t), u.v(acc(r, g)))
			}
		}
		u.p("ADDQ R15, SI")
		u.p("ADDQ AX, DI")
	}
	const unroll = 4
	u.p("SUBQ $%d, CX", unroll)
	u.p("JL %s", u.at("rest"))
	u.label("steps")
	for range unroll {
		step()
	}
	u.p("SUBQ $%d, CX", unroll)
	u.p("JGE %s", u.at("steps"))
	u.label("rest")
	u.p("ADDQ $%d, CX", unroll)
	u.p("JLE %s", u.at("store"))
	u.label("step")
	step()
	u.p("DECQ CX")
	u.p("JG %s", u.at("step"))
	u.label("store")
	c(func(r, g int, mem string) { u.p("VMOVUPS %s, %s", u.v(acc(r, g)), mem) })
	if halves == 2 {
		u.p("MOVQ kc+0(FP), CX")
		u.p("MOVQ a+8(FP), SI")
		u.p("MOVQ b+16(FP), DI")
		u.p("ADDQ $64, DI")
		u.p("ADDQ $64, DX")
		u.p("DECQ R11")
		u.p("JNZ %s", u.at("half"))
	}
	u.end()
}
