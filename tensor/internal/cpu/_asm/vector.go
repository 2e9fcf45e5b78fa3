package main

import "fmt"

// Vector loops take n elements, a multiple of 32, and do 32 per turn, one
// register after the other; the processor overlaps them.

var vectorNames = []string{"dot", "fold", "max", "exp", "add", "scale", "norm", "normBack", "swiglu", "swigluBack", "geglu", "gegluBack", "rotate", "adamw", "softBack", "transpose", "copy", "prefetch", "peak"}

func ptrs(names ...string) (a []arg) {
	for _, n := range names {
		a = append(a, arg{n, "*float32"})
	}
	return append(a, arg{"n", "int"})
}

func floats(names ...string) (a []arg) {
	for _, n := range names {
		a = append(a, arg{n, "float32"})
	}
	return a
}

// broadcast loads float parameter name into register r.
func (u *unit) broadcast(at map[string]int, name string, r int) {
	u.p("VBROADCASTSS %s+%d(FP), %s", name, at[name], u.v(r))
}

// loop runs body once per register's worth of elements; AX counts bytes and
// CX holds their number.
func (u *unit) loop(l string, body func(g int, mem func(base string) string)) {
	u.p("XORQ AX, AX")
	u.label(l)
	for g := range u.group() {
		body(g, func(base string) string { return fmt.Sprintf("%d(%s)(AX*1)", g*u.bytes, base) })
	}
	u.p("ADDQ $%d, AX", 4*lanes)
	u.p("CMPQ AX, CX")
	u.p("JLT %s", u.at(l))
}

func genVectors(u *unit) {
	u.genConstants()
	v := u.v
	var at map[string]int
	load := func(mem string, r int) { u.p("VMOVUPS %s, %s", mem, v(r)) }
	store := func(r int, mem string) { u.p("VMOVUPS %s, %s", v(r), mem) }
	count := func() { u.p("SHLQ $2, CX") }
	sum := arg{"sum", "*[lanes]float32"}

	at = u.begin("dot", "", append([]arg{sum}, ptrs("a", "b")...), []string{"DI", "SI", "DX", "CX"})
	count()
	for g := range u.group() {
		load(fmt.Sprintf("%d(DI)", g*u.bytes), g)
	}
	u.loop("loop", func(g int, mem func(string) string) {
		load(mem("SI"), 4+g)
		u.p("VFMADD231PS %s, %s, %s", mem("DX"), v(4+g), v(g))
	})
	for g := range u.group() {
		store(g, fmt.Sprintf("%d(DI)", g*u.bytes))
	}
	u.end()

	at = u.begin("fold", "float32", []arg{sum}, []string{"DI"})
	for g := range u.group() {
		load(fmt.Sprintf("%d(DI)", g*u.bytes), g)
	}
	u.reduce("VADDPS")
	u.p("VMOVSS X0, ret+%d(FP)", at["ret"])
	u.end()

	at = u.begin("max", "float32", ptrs("src"), []string{"SI", "CX"})
	count()
	for g := range u.group() {
		load(fmt.Sprintf("%d(SI)", g*u.bytes), g)
	}
	u.loop("loop", func(g int, mem func(string) string) { u.p("VMAXPS %s, %s, %s", mem("SI"), v(g), v(g)) })
	u.reduce("VMAXPS")
	u.p("VMOVSS X0, ret+%d(FP)", at["ret"])
	u.end()

	at = u.begin("exp", "", append(append(ptrs("dst", "src"), floats("scale", "bias")...), sum), []string{"DI", "SI", "CX", "DX"})
	count()
	u.broadcast(at, "scale", 8)
	u.broadcast(at, "bias", 9)
	u.hold(16, expNames...)
	for g := range u.group() {
		load(fmt.Sprintf("%d(DX)", g*u.bytes), g)
	}
	u.loop("loop", func(g int, mem func(string) string) {
		load(mem("SI"), 4)
		u.p("VFMADD213PS %s, %s, %s", v(9), v(8), v(4))
		u.exp(4, 5, 6, 7)
		u.p("VADDPS %s, %s, %s", v(6), v(g), v(g))
		store(6, mem("DI"))
	})
	for g := range u.group() {
		store(g, fmt.Sprintf("%d(DX)", g*u.bytes))
	}
	u.end()

	u.begin("add", "", ptrs("dst", "x"), []string{"DI", "SI", "CX"})
	count()
	u.loop("loop", func(g int, mem func(string) string) {
		load(mem("DI"), g)
		u.p("VADDPS %s, %s, %s", mem("SI"), v(g), v(g))
		store(g, mem("DI"))
	})
	u.end()

	at = u.begin("scale", "", append(ptrs("dst"), floats("s")...), []string{"DI", "CX"})
	count()
	u.broadcast(at, "s", 8)
	u.p("VXORPS X9, X9, X9")
	u.loop("loop", func(g int, mem func(string) string) {
		load(mem("DI"), g)
		u.p("VFMADD213PS %s, %s, %s", v(9), v(8), v(g))
		store(g, mem("DI"))
	})
	u.end()

	at = u.begin("norm", "", append(ptrs("dst", "x", "w"), floats("s")...), []string{"DI", "SI", "DX", "CX"})
	count()
	u.broadcast(at, "s", 8)
	u.loop("loop", func(g int, mem func(string) string) {
		u.p("VMULPS %s, %s, %s", mem("SI"), v(8), v(g))
		u.p("VMULPS %s, %s, %s", mem("DX"), v(g), v(g))
		store(g, mem("DI"))
	})
	u.end()

	at = u.begin("normBack", "", append(ptrs("dst", "dy", "x", "w", "base"), floats("a", "b")...), []string{"DI", "SI", "DX", "R8", "R9", "CX"})
	count()
	u.broadcast(at, "a", 8)
	u.broadcast(at, "b", 9)
	body := func(base bool) func(int, func(string) string) {
		return func(g int, mem func(string) string) {
			if base {
				load(mem("R9"), 0)
			} else {
				u.p("VXORPS X0, X0, X0")
			}
			u.p("VFMADD231PS %s, %s, %s", mem("DX"), v(9), v(0))
			load(mem("SI"), 1)
			u.p("VMULPS %s, %s, %s", mem("R8"), v(1), v(1))
			u.p("VFMADD231PS %s, %s, %s", v(8), v(1), v(0))
			store(0, mem("DI"))
		}
	}
	u.p("TESTQ R9, R9")
	u.p("JZ %s", u.at("fresh"))
	u.loop("loop", body(true))
	u.p("VZEROUPPER")
	u.p("RET")
	u.label("fresh")
	u.loop("loop2", body(false))
	u.end()

	u.begin("swiglu", "", ptrs("dst", "gate", "up"), []string{"DI", "SI", "DX", "CX"})
	count()
	u.hold(16, append(expNames, "sign")...)
	u.loop("loop", func(g int, mem func(string) string) {
		load(mem("SI"), 0)
		u.p("V%s %s, %s, %s", u.xor(), u.constant("sign"), v(0), v(1))
		u.exp(1, 2, 3, 4)
		u.p("VADDPS %s, %s, %s", u.constant("one"), v(3), v(3))
		u.p("VDIVPS %s, %s, %s", v(3), v(0), v(0))
		u.p("VMULPS %s, %s, %s", mem("DX"), v(0), v(0))
		store(0, mem("DI"))
	})
	u.end()

	u.begin("swigluBack", "", ptrs("dgate", "dup", "dy", "gate", "up"), []string{"DI", "R8", "R9", "SI", "DX", "CX"})
	count()
	u.hold(16, append(expNames, "sign")...)
	u.loop("loop", func(g int, mem func(string) string) {
		load(mem("SI"), 0)
		load(mem("R9"), 5)
		u.p("V%s %s, %s, %s", u.xor(), u.constant("sign"), v(0), v(1))
		u.exp(1, 2, 3, 4)
		u.p("VMOVUPS %s, %s", u.constant("one"), v(2))
		u.p("VADDPS %s, %s, %s", v(2), v(3), v(3))
		u.p("VDIVPS %s, %s, %s", v(3), v(2), v(1)) // s
		u.p("VMULPS %s, %s, %s", v(1), v(0), v(0)) // silu
		u.p("VMULPS %s, %s, %s", v(0), v(5), v(3))
		store(3, mem("R8"))
		u.p("VSUBPS %s, %s, %s", v(1), v(2), v(2))      // 1-s
		u.p("VFMADD231PS %s, %s, %s", v(2), v(0), v(1)) // s + silu*(1-s)
		u.p("VMULPS %s, %s, %s", mem("DX"), v(5), v(5))
		u.p("VMULPS %s, %s, %s", v(1), v(5), v(5))
		store(5, mem("DI"))
	})
	u.end()

	at = u.begin("rotate", "", append(ptrs("x1", "x2", "cos", "sin"), floats("sign")...), []string{"DI", "SI", "DX", "R8", "CX"})
	count()
	u.broadcast(at, "sign", 8)
	u.loop("loop", func(g int, mem func(string) string) {
		load(mem("DI"), 0)
		load(mem("SI"), 1)
		load(mem("DX"), 2)
		u.p("VMULPS %s, %s, %s", mem("R8"), v(8), v(3))
		u.p("VMULPS %s, %s, %s", v(2), v(0), v(4))
		u.p("VMULPS %s, %s, %s", v(2), v(1), v(5))
		u.p("VFNMADD231PS %s, %s, %s", v(3), v(1), v(4))
		u.p("VFMADD231PS %s, %s, %s", v(3), v(0), v(5))
		store(4, mem("DI"))
		store(5, mem("SI"))
	})
	u.end()

	u.begin("adamw", "", append(ptrs("param", "grad", "m", "v"), arg{"c", "*[8]float32"}), []string{"DI", "SI", "DX", "R8", "CX", "R9"})
	count()
	for i := range 8 {
		u.p("VBROADCASTSS %d(R9), %s", 4*i, v(8+i))
	}
	u.loop("loop", func(g int, mem func(string) string) {
		load(mem("SI"), 0)
		u.p("VMULPS %s, %s, %s", v(9), v(0), v(1))
		u.p("VMULPS %s, %s, %s", v(0), v(0), v(2))
		u.p("VMULPS %s, %s, %s", v(11), v(2), v(2))
		u.p("VFMADD231PS %s, %s, %s", mem("DX"), v(8), v(1))
		u.p("VFMADD231PS %s, %s, %s", mem("R8"), v(10), v(2))
		store(1, mem("DX"))
		store(2, mem("R8"))
		u.p("VSQRTPS %s, %s", v(2), v(2))
		u.p("VFMADD213PS %s, %s, %s", v(15), v(14), v(2))
		u.p("VMULPS %s, %s, %s", v(13), v(1), v(1))
		u.p("VDIVPS %s, %s, %s", v(2), v(1), v(1))
		u.p("VFMADD231PS %s, %s, %s", mem("DI"), v(12), v(1))
		store(1, mem("DI"))
	})
	u.end()

	at = u.begin("softBack", "", append(ptrs("ds", "p", "dp"), floats("d", "scale")...), []string{"DI", "SI", "DX", "CX"})
	count()
	u.broadcast(at, "d", 8)
	u.broadcast(at, "scale", 9)
	u.loop("loop", func(g int, mem func(string) string) {
		load(mem("DX"), 0)
		u.p("VSUBPS %s, %s, %s", v(8), v(0), v(0))
		u.p("VMULPS %s, %s, %s", mem("SI"), v(0), v(0))
		u.p("VMULPS %s, %s, %s", v(9), v(0), v(0))
		store(0, mem("DI"))
	})
	u.end()
	u.geglu()
	u.transpose()
	u.copy()
	u.peak()
}

// reduce folds 32 lanes by halves into the first of X0.
func (u *unit) reduce(op string) {
	for h := u.group() / 2; h > 0; h /= 2 {
		for g := range h {
			u.p("%s %s, %s, %s", op, u.v(g+h), u.v(g), u.v(g))
		}
	}
	if u.is512() {
		u.p("VEXTRACTF64X4 $1, Z0, Y1")
		u.p("%s Y1, Y0, Y0", op)
	}
	u.p("VEXTRACTF128 $1, Y0, X1")
	u.p("%s X1, X0, X0", op)
	u.p("VPERMILPS $0x4e, X0, X1")
	u.p("%s X1, X0, X0", op)
	u.p("VPERMILPS $0xb1, X0, X1")
	u.p("%s X1, X0, X0", op)
}

func (u *unit) xor() string {
	if u.is512() {
		return "PXORD"
	}
	return "XORPS"
}
