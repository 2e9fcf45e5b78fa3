package main

// geglu writes the loops of GeGLU and its gradient; see geglu.go of package cpu.
func (u *unit) geglu() {
	v, c := u.v, u.constant
	held := append(append([]string{}, expNames...), "sign", "geluOne", "geluCube", "geluSlope")
	// sigmoid sets register 3 to 1 + exp(-argument) of the gate in register 0,
	// whose square is in register 1; 2 and 4 are spent.
	sigmoid := func() {
		u.p("VMOVUPS %s, %s", c("geluCube"), v(2))
		u.p("VFMADD213PS %s, %s, %s", c("geluOne"), v(1), v(2))
		u.p("VMULPS %s, %s, %s", v(2), v(0), v(1))
		u.p("V%s %s, %s, %s", u.xor(), c("sign"), v(1), v(1))
		u.exp(1, 2, 3, 4)
		u.p("VADDPS %s, %s, %s", c("one"), v(3), v(3))
	}

	u.begin("geglu", "", ptrs("dst", "gate", "up"), []string{"DI", "SI", "DX", "CX"})
	u.p("SHLQ $2, CX")
	u.hold(16, held...)
	u.loop("loop", func(g int, mem func(string) string) {
		u.p("VMOVUPS %s, %s", mem("SI"), v(0))
		u.p("VMULPS %s, %s, %s", v(0), v(0), v(1))
		sigmoid()
		u.p("VDIVPS %s, %s, %s", v(3), v(0), v(0))
		u.p("VMULPS %s, %s, %s", mem("DX"), v(0), v(0))
		u.p("VMOVUPS %s, %s", v(0), mem("DI"))
	})
	u.end()

	u.begin("gegluBack", "", ptrs("dgate", "dup", "dy", "gate", "up"), []string{"DI", "R8", "R9", "SI", "DX", "CX"})
	u.p("SHLQ $2, CX")
	u.hold(16, held...)
	u.loop("loop", func(g int, mem func(string) string) {
		u.p("VMOVUPS %s, %s", mem("SI"), v(0))
		u.p("VMOVUPS %s, %s", mem("R9"), v(5))
		u.p("VMULPS %s, %s, %s", v(0), v(0), v(1))
		u.p("VMOVUPS %s, %s", c("geluSlope"), v(6))
		u.p("VFMADD213PS %s, %s, %s", c("geluOne"), v(1), v(6)) // slope
		sigmoid()
		u.p("VMOVUPS %s, %s", c("one"), v(2))
		u.p("VDIVPS %s, %s, %s", v(3), v(2), v(1)) // s
		u.p("VMULPS %s, %s, %s", v(1), v(0), v(0)) // gelu
		u.p("VMULPS %s, %s, %s", v(0), v(5), v(3))
		u.p("VMOVUPS %s, %s", v(3), mem("R8"))
		u.p("VSUBPS %s, %s, %s", v(1), v(2), v(2)) // 1-s
		u.p("VMULPS %s, %s, %s", v(6), v(2), v(2))
		u.p("VFMADD231PS %s, %s, %s", v(2), v(0), v(1)) // s + gelu*(1-s)*slope
		u.p("VMULPS %s, %s, %s", mem("DX"), v(5), v(5))
		u.p("VMULPS %s, %s, %s", v(1), v(5), v(5))
		u.p("VMOVUPS %s, %s", v(5), mem("DI"))
	})
	u.end()
}
