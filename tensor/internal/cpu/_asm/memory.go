package main

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

// copy moves n chunks of 16; prefetch asks for n bytes.
func (u *unit) copy() {
	u.begin("copy", "", []arg{{"dst", "*float32"}, {"src", "*float32"}, {"ldd", "int"}, {"lds", "int"}, {"n", "int"}}, []string{"DI", "SI", "R8", "R9", "CX"})
	u.label("chunk")
	for i := range 64 / u.bytes {
		u.p("VMOVUPS %d(SI), %s", i*u.bytes, u.v(i))
		u.p("VMOVUPS %s, %d(DI)", u.v(i), i*u.bytes)
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
}

func (u *unit) peak() {
	// peak does n turns of 24 multiply-adds, in as many chains as registers
	// allow.
	u.begin("peak", "", []arg{{"n", "int"}}, []string{"CX"})
	chains := min(24, u.regs-4)
	for i := range chains + 2 {
		u.p("V%s %s, %s, %s", u.xor(), u.v(i), u.v(i), u.v(i))
	}
	u.label("loop")
	for i := range 24 {
		u.p("VFMADD231PS %s, %s, %s", u.v(0), u.v(1), u.v(2+i%chains))
	}
	u.p("DECQ CX")
	u.p("JNZ %s", u.at("loop"))
	u.end()
}
