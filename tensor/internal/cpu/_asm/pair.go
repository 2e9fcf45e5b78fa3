package main

import (
	"bytes"
	"fmt"
)

// The loops of compute mode bf16. A word holds two neighbours of the
// reduction, the even one in its low half. Per word an accumulator takes two
// fused multiply-adds, the odd neighbours first, with subnormal factors read as
// 0 and subnormal sums written as 0: what VDPBF16PS does ("DP"), and what
// the other kind ("FMA") does with MXCSR set so.

// mxcsr is round to nearest, exceptions masked, denormals are zero, flush to zero.
const mxcsr = 0x9fc0

// evex writes a 512-bit register instruction of opcode map 2 that Go's
// assembler does not know: prefix pp, operands rm and v, result r.
func (u *unit) evex(pp, op, rm, v, r int) {
	p0 := 2
	for _, b := range []struct{ off, bit int }{{r & 8, 0x80}, {rm & 16, 0x40}, {rm & 8, 0x20}, {r & 16, 0x10}} {
		if b.off == 0 {
			p0 |= b.bit
		}
	}
	p1 := 4 | pp | (^v&15)<<3
	p2 := 0x40
	if v&16 == 0 {
		p2 |= 8
	}
	modrm := 0xc0 | r&7<<3 | rm&7
	u.p("LONG $0x%02x%02x%02x62; WORD $0x%02x%02x", p2, p1, p0, modrm, op)
}

// dp is VDPBF16PS: it adds the products of the pairs in Z<b> and Z<a> to Z<acc>.
func (u *unit) dp(b, a, acc int) { u.evex(2, 0x52, b, a, acc) }

// narrow is VCVTNE2PS2BF16: it rounds Z<lo> and Z<hi> to the halves of Z<to>.
func (u *unit) narrow(hi, lo, to int) { u.evex(3, 0x72, lo, hi, to) }

// flush starts and ends the part of a function that runs with subnormals as 0.
func (u *unit) flush(on bool) {
	if on {
		u.p("STMXCSR old-8(SP)")
		u.p("MOVL $%#x, R12", mxcsr)
		u.p("MOVL R12, new-16(SP)")
		u.p("LDMXCSR new-16(SP)")
		return
	}
	u.p("LDMXCSR old-8(SP)")
}

var (
	narrowArgs = []arg{{"dst", "*float32"}, {"src", "*float32"}, {"n", "int"}}
	pairArgs   = []arg{{"dst", "*float32"}, {"even", "*float32"}, {"odd", "*float32"}, {"n", "int"}}
)

// genPairs writes the loops of one instruction set and kind.
func genPairs(u *unit, kind string) {
	for r := 1; r <= u.maxRow; r++ {
		if u.is512() {
			u.tile512(kind, r)
		} else {
			u.tile256(kind, r)
		}
	}
	u.round(kind)
	u.pair(kind)
	if kind == "DP" {
		u.peakDP()
	}
}

// rounding rounds the values of register x to bfloat16 in its high half and
// leaves rubbish in its low half. Registers 12 to 15 hold what rounders set.
func (u *unit) rounding(x, t1, t2 int) {
	v := u.v
	if u.is512() {
		u.p("VPSRLD $16, %s, %s", v(x), v(t1))
		u.p("VPANDD %s, %s, %s", v(12), v(t1), v(t1))
		u.p("VPADDD %s, %s, %s", v(13), v(t1), v(t1))
		u.p("VPADDD %s, %s, %s", v(x), v(t1), v(t1))
		u.p("VCMPPS $3, %s, %s, K1", v(x), v(x)) // a NaN stays one
		u.p("VPORD %s, %s, K1, %s", v(14), v(x), v(t1))
		u.p("VPTESTNMD %s, %s, K1", v(15), v(x)) // subnormal: only the sign
		u.p("VPANDD %s, %s, K1, %s", v(11), v(x), v(t1))
		u.p("VMOVDQA32 %s, %s", v(t1), v(x))
		return
	}
	u.p("VPSRLD $16, %s, %s", v(x), v(t1))
	u.p("VPAND %s, %s, %s", v(12), v(t1), v(t1))
	u.p("VPADDD %s, %s, %s", v(13), v(t1), v(t1))
	u.p("VPADDD %s, %s, %s", v(x), v(t1), v(t1))
	u.p("VPOR %s, %s, %s", v(14), v(x), v(t2))
	u.p("VCMPPS $3, %s, %s, %s", v(x), v(x), v(10))
	u.p("VBLENDVPS %s, %s, %s, %s", v(10), v(t2), v(t1), v(t1))
	u.p("VPAND %s, %s, %s", v(15), v(x), v(t2))
	u.p("VPXOR %s, %s, %s", v(10), v(10), v(10))
	u.p("VPCMPEQD %s, %s, %s", v(10), v(t2), v(10))
	u.p("VPAND %s, %s, %s", v(11), v(x), v(t2))
	u.p("VBLENDVPS %s, %s, %s, %s", v(10), v(t2), v(t1), v(x))
}

func (u *unit) rounders() {
	for i, c := range []uint32{0x80000000, 1, 0x7fff, 0x400000, 0x7f800000} {
		u.p("MOVL $%#x, R12", c)
		if u.is512() {
			u.p("VPBROADCASTD R12, Z%d", 11+i)
		} else {
			u.p("VMOVD R12, X%d", 11+i)
			u.p("VPBROADCASTD X%d, Y%d", 11+i, 11+i)
		}
	}
}

// round writes n words from 2n neighbours of src; n is a multiple of 16.
func (u *unit) round(kind string) {
	u.begin("round"+kind, "", narrowArgs, []string{"DI", "SI", "CX"})
	v := u.v
	if kind == "FMA" {
		u.rounders()
	}
	u.label("loop")
	for i := range 64 / u.bytes {
		u.p("VMOVUPS %d(SI), %s", 2*i*u.bytes, v(0))
		u.p("VMOVUPS %d(SI), %s", (2*i+1)*u.bytes, v(1))
		if kind == "DP" {
			u.narrow(1, 0, 0)
			u.p("VMOVUPS %s, %d(DI)", v(0), i*u.bytes)
			continue
		}
		u.rounding(0, 2, 3)
		u.rounding(1, 2, 3)
		// Even values to the low halves, odd ones to the high halves: shuffle
		// both apart within 128 bits, then put the quarters in order.
		u.p("VSHUFPS $0x88, %s, %s, %s", v(1), v(0), v(2))
		u.p("VSHUFPS $0xdd, %s, %s, %s", v(1), v(0), v(3))
		u.join(2, 3, 0)
		if u.is512() {
			u.p("VPERMQ $0xd8, Z0, Z0")
			u.p("VSHUFI64X2 $0xd8, Z0, Z0, Z0")
		} else {
			u.p("VPERMQ $0xd8, Y0, Y0")
		}
		u.p("VMOVUPS %s, %d(DI)", v(0), i*u.bytes)
	}
	u.p("ADDQ $128, SI")
	u.p("ADDQ $64, DI")
	u.p("SUBQ $16, CX")
	u.p("JG %s", u.at("loop"))
	u.end()
}

// join makes words of rounded even and odd values; it spoils both.
func (u *unit) join(even, odd, to int) {
	v := u.v
	u.p("VPSRLD $16, %s, %s", v(even), v(even))
	u.p("VPSRLD $16, %s, %s", v(odd), v(odd))
	u.p("VPSLLD $16, %s, %s", v(odd), v(odd))
	if u.is512() {
		u.p("VPORD %s, %s, %s", v(even), v(odd), v(to))
	} else {
		u.p("VPOR %s, %s, %s", v(even), v(odd), v(to))
	}
}

// pair writes n words from n even and n odd values; n is a multiple of 16.
func (u *unit) pair(kind string) {
	u.begin("pair"+kind, "", pairArgs, []string{"DI", "SI", "DX", "CX"})
	v := u.v
	if kind == "FMA" {
		u.rounders()
	}
	u.label("loop")
	for i := range 64 / u.bytes {
		u.p("VMOVUPS %d(SI), %s", i*u.bytes, v(0))
		u.p("VMOVUPS %d(DX), %s", i*u.bytes, v(1))
		if kind == "DP" {
			u.narrow(1, 0, 0) // 16 even halves, then 16 odd ones
			u.p("VPMOVZXWD Y0, Z2")
			u.p("VEXTRACTI64X4 $1, Z0, Y0")
			u.p("VPMOVZXWD Y0, Z3")
			u.p("VPSLLD $16, Z3, Z3")
			u.p("VPORD Z2, Z3, Z0")
		} else {
			u.rounding(0, 2, 3)
			u.rounding(1, 2, 3)
			u.join(0, 1, 0)
		}
		u.p("VMOVUPS %s, %d(DI)", v(0), i*u.bytes)
	}
	for _, r := range []string{"SI", "DX", "DI"} {
		u.p("ADDQ $64, %s", r)
	}
	u.p("SUBQ $16, CX")
	u.p("JG %s", u.at("loop"))
	u.end()
}

// peakDP does n turns of 24 VDPBF16PS.
func (u *unit) peakDP() {
	u.begin("peakDP", "", []arg{{"n", "int"}}, []string{"CX"})
	for i := range 26 {
		u.p("VPXORD Z%d, Z%d, Z%d", i, i, i)
	}
	u.label("loop")
	for i := range 24 {
		u.dp(0, 1, 2+i)
	}
	u.p("DECQ CX")
	u.p("JNZ %s", u.at("loop"))
	u.end()
}

// genPairTable writes the table of one kind.
func genPairTable(b *bytes.Buffer, s isa, kind string) {
	name, peak := "bf16", "nil"
	if kind == "DP" {
		name, peak = "bf16dp", "peakDP"+s.name
	}
	fmt.Fprintf(b, "var pairs%s%s = &pairLoops{\nname: %q,\n", kind, s.name, name)
	tileTable(b, s, "tiles", kind)
	fmt.Fprintf(b, "round: round%s%s, pair: pair%s%s, peak: %s,\n}\n\n", kind, s.name, kind, s.name, peak)
}
