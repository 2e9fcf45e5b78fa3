package main

import (
	"fmt"
	"math"
)

// Vector loops take n elements, a multiple of 32, and do 32 per turn, one
// register after the other; the processor overlaps them.

var vectorNames = []string{"dot", "max", "exp", "add", "scale", "norm", "normBack", "swiglu", "swigluBack", "rotate", "adamw", "softBack", "transpose", "copy", "prefetch", "peak"}

// The constants of the exponential; see exp1 in generic.go.
var constants = []struct {
	name  string
	value float64
}{
	{"lo", -87.33654}, {"hi", 88.37}, {"log2e", math.Log2E}, {"ln2hi", -0.693359375}, {"ln2lo", 2.12194440e-4},
	{"p5", 1.9875691500e-4}, {"p4", 1.3981999507e-3}, {"p3", 8.3334519073e-3}, {"p2", 4.1665795894e-2},
	{"p1", 1.6666665459e-1}, {"p0", 5.0000001201e-1}, {"one", 1},
}

func (u *unit) table() string { return "const" + u.name }

func (u *unit) genConstants() {
	word := func(i int, bits uint32) {
		for l := range u.wide() {
			fmt.Fprintf(&u.b, "DATA %s<>+%d(SB)/4, $0x%08x\n", u.table(), i*u.bytes+4*l, bits)
		}
	}
	for i, c := range constants {
		word(i, math.Float32bits(float32(c.value)))
	}
	word(len(constants), 127)
	word(len(constants)+1, 1<<31)
	fmt.Fprintf(&u.b, "GLOBL %s<>(SB), RODATA|NOPTR, $%d\n\n", u.table(), (len(constants)+2)*u.bytes)
}

// constant returns an operand that may stand where memory may: a register if
// the constant was loaded, else the table.
func (u *unit) constant(name string) string {
	if r, ok := u.loads[name]; ok {
		return r
	}
	n := len(constants)
	for i, c := range constants {
		if c.name == name {
			n = i
		}
	}
	if name == "sign" {
		n++
	}
	return fmt.Sprintf("%s<>+%d(SB)", u.table(), n*u.bytes)
}

// hold loads constants into registers from first on, where there are enough.
func (u *unit) hold(first int, names ...string) {
	u.loads = map[string]string{}
	if !u.is512() {
		return
	}
	for i, n := range names {
		m := u.constant(n)
		u.p("VMOVUPS %s, %s", m, u.v(first+i))
		u.loads[n] = u.v(first + i)
	}
}

var expNames = []string{"lo", "hi", "log2e", "ln2hi", "ln2lo", "p5", "p4", "p3", "p2", "p1", "p0", "one"}

// exp sets register p to the exponential of x; x, n, t are spent.
func (u *unit) exp(x, n, p, t int) {
	X, N, P, T := u.v(x), u.v(n), u.v(p), u.v(t)
	c := u.constant
	// Below lo the result is 0; the predicate is "not less than", so that a
	// NaN passes. The minimum returns its first operand here if x is a NaN.
	if u.is512() {
		u.p("VCMPPS $21, %s, %s, K1", c("lo"), X)
	} else {
		u.p("VCMPPS $21, %s, %s, %s", c("lo"), X, T)
	}
	u.p("VMOVUPS %s, %s", c("hi"), P)
	u.p("VMINPS %s, %s, %s", X, P, X)
	u.p("VMULPS %s, %s, %s", c("log2e"), X, N)
	if u.is512() {
		u.p("VRNDSCALEPS $8, %s, %s", N, N)
	} else {
		u.p("VROUNDPS $8, %s, %s", N, N)
	}
	u.p("VFMADD231PS %s, %s, %s", c("ln2hi"), N, X)
	u.p("VFMADD231PS %s, %s, %s", c("ln2lo"), N, X)
	u.p("VMOVUPS %s, %s", c("p5"), P)
	for _, k := range []string{"p4", "p3", "p2", "p1", "p0", "one", "one"} {
		u.p("VFMADD213PS %s, %s, %s", c(k), X, P)
	}
	if u.is512() {
		u.p("VSCALEFPS.Z %s, %s, K1, %s", N, P, P)
		return
	}
	u.p("VCVTPS2DQ %s, %s", N, N)
	u.p("VPADDD %s, %s, %s", c("127"), N, N)
	u.p("VPSLLD $23, %s, %s", N, N)
	u.p("VMULPS %s, %s, %s", N, P, P)
	u.p("VANDPS %s, %s, %s", T, P, P)
}

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

	at = u.begin("max", "float32", ptrs("src"), []string{"SI", "CX"})
	count()
	for g := range u.group() {
		load(fmt.Sprintf("%d(SI)", g*u.bytes), g)
	}
	u.loop("loop", func(g int, mem func(string) string) { u.p("VMAXPS %s, %s, %s", mem("SI"), v(g), v(g)) })
	for h := u.group() / 2; h > 0; h /= 2 {
		for g := range h {
			u.p("VMAXPS %s, %s, %s", v(g+h), v(g), v(g))
		}
	}
	if u.is512() {
		u.p("VEXTRACTF64X4 $1, Z0, Y1")
		u.p("VMAXPS Y1, Y0, Y0")
	}
	u.p("VEXTRACTF128 $1, Y0, X1")
	u.p("VMAXPS X1, X0, X0")
	u.p("VPERMILPS $0x4e, X0, X1")
	u.p("VMAXPS X1, X0, X0")
	u.p("VPERMILPS $0xb1, X0, X1")
	u.p("VMAXPS X1, X0, X0")
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
	u.loop("loop", func(g int, mem func(string) string) {
		u.p("VMULPS %s, %s, %s", mem("DI"), v(8), v(g))
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
	u.transpose()

	u.begin("copy", "", []arg{{"dst", "*float32"}, {"src", "*float32"}, {"ldd", "int"}, {"lds", "int"}, {"n", "int"}}, []string{"DI", "SI", "R8", "R9", "CX"})
	u.label("chunk")
	for i := range 64 / u.bytes {
		load(fmt.Sprintf("%d(SI)", i*u.bytes), i)
		store(i, fmt.Sprintf("%d(DI)", i*u.bytes))
	}
	u.p("ADDQ R8, DI")
	u.p("ADDQ R9, SI")
	u.p("DECQ CX")
	u.p("JNZ %s", u.at("chunk"))
	u.end()

	u.begin("prefetch", "", []arg{{"p", "unsafe.Pointer"}, {"n", "int"}}, []string{"SI", "CX"})
	u.label("line")
	for i := range 8 {
		u.p("PREFETCHT1 %d(SI)", 64*i)
	}
	u.p("ADDQ $512, SI")
	u.p("SUBQ $512, CX")
	u.p("JG %s", u.at("line"))
	u.p("RET")
	u.b.WriteString("\n")

	// peak does n turns of 24 multiply-adds, in as many chains as registers
	// allow.
	u.begin("peak", "", []arg{{"n", "int"}}, []string{"CX"})
	chains := min(24, u.regs-4)
	for i := range chains + 2 {
		u.p("V%s %s, %s, %s", u.xor(), v(i), v(i), v(i))
	}
	u.label("loop")
	for i := range 24 {
		u.p("VFMADD231PS %s, %s, %s", v(0), v(1), v(2+i%chains))
	}
	u.p("DECQ CX")
	u.p("JNZ %s", u.at("loop"))
	u.end()
}

func (u *unit) xor() string {
	if u.is512() {
		return "PXORD"
	}
	return "XORPS"
}

// transpose writes dst[c*ldd+r] = src[r*lds+c] for 16 rows r and cols columns;
// ldd and lds are bytes. A register collects four columns of every fourth row,
// and four such registers are transposed within their 128-bit lanes.
func (u *unit) transpose() {
	u.begin("transpose", "", []arg{{"dst", "*float32"}, {"src", "*float32"}, {"ldd", "int"}, {"lds", "int"}, {"cols", "int"}}, []string{"DI", "SI", "R8", "R9", "CX"})
	u.p("LEAQ (R9)(R9*2), R10") // three rows
	u.p("LEAQ (R8)(R8*2), R11")
	parts := u.bytes / 16 // 128-bit lanes
	rows := []string{"BX", "DX", "R12", "R13"}[:parts]
	// The next 16 rows, which most callers ask for next.
	u.p("MOVQ R9, R12")
	u.p("SHLQ $4, R12")
	u.p("ADDQ SI, R12")
	for range 4 {
		for _, idx := range []string{"", "(R9*1)", "(R9*2)", "(R10*1)"} {
			u.p("PREFETCHT0 (R12)%s", idx)
		}
		u.p("LEAQ (R12)(R9*4), R12")
	}
	u.label("columns")
	u.p("MOVQ SI, BX")
	for half := range 16 / (4 * parts) {
		for i := 1; i < parts; i++ {
			u.p("LEAQ (%s)(R9*4), %s", rows[i-1], rows[i])
		}
		for i := range 4 {
			idx := []string{"", "(R9*1)", "(R9*2)", "(R10*1)"}[i]
			u.p("VMOVUPS (%s)%s, X%d", rows[0], idx, i)
			for l := 1; l < parts; l++ {
				if u.is512() {
					u.p("VINSERTF32X4 $%d, (%s)%s, Z%d, Z%d", l, rows[l], idx, i, i)
				} else {
					u.p("VINSERTF128 $%d, (%s)%s, Y%d, Y%d", l, rows[l], idx, i, i)
				}
			}
		}
		v := u.v
		u.p("VUNPCKLPS %s, %s, %s", v(1), v(0), v(4))
		u.p("VUNPCKHPS %s, %s, %s", v(1), v(0), v(5))
		u.p("VUNPCKLPS %s, %s, %s", v(3), v(2), v(6))
		u.p("VUNPCKHPS %s, %s, %s", v(3), v(2), v(7))
		u.p("VUNPCKLPD %s, %s, %s", v(6), v(4), v(8))
		u.p("VUNPCKHPD %s, %s, %s", v(6), v(4), v(9))
		u.p("VUNPCKLPD %s, %s, %s", v(7), v(5), v(10))
		u.p("VUNPCKHPD %s, %s, %s", v(7), v(5), v(11))
		for j := range 4 {
			idx := []string{"", "(R8*1)", "(R8*2)", "(R11*1)"}[j]
			u.p("VMOVUPS %s, %d(DI)%s", v(8+j), half*u.bytes, idx)
		}
		if half == 0 && !u.is512() {
			u.p("LEAQ (%s)(R9*4), BX", rows[parts-1])
		}
	}
	u.p("ADDQ $16, SI")
	u.p("LEAQ (DI)(R8*4), DI")
	u.p("SUBQ $4, CX")
	u.p("JG %s", u.at("columns"))
	u.end()
}
