package main

import (
	"fmt"
	"math"
)

// The constants of the exponential, see exp1 in generic.go, and of gelu, see
// geglu.go.
var constants = []struct {
	name  string
	value float64
}{
	{"lo", -87.33654}, {"hi", 88.37}, {"log2e", math.Log2E}, {"ln2hi", -0.693359375}, {"ln2lo", 2.12194440e-4},
	{"p5", 1.9875691500e-4}, {"p4", 1.3981999507e-3}, {"p3", 8.3334519073e-3}, {"p2", 4.1665795894e-2},
	{"p1", 1.6666665459e-1}, {"p0", 5.0000001201e-1}, {"one", 1},
	{"geluOne", 1.5957691216057308}, {"geluCube", 0.07135481627260025}, {"geluSlope", 0.21406444881780076},
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
