package cpu

import (
	"math"
	"unsafe"
)

func vec(p *float32, n int) []float32 { return unsafe.Slice(p, n) }

// The conversions float32(x*y) below forbid the compiler to fuse, so that the
// generic variant has the same bits on every architecture.

func dotGeneric(sum *[lanes]float32, a, b *float32, n int) {
	x, y := vec(a, n), vec(b, n)
	for i := range x {
		sum[i%lanes] += float32(x[i] * y[i])
	}
}

func foldGeneric(sum *[lanes]float32) float32 {
	t := *sum
	for h := lanes / 2; h > 0; h /= 2 {
		for i := range h {
			t[i] += t[i+h]
		}
	}
	return t[0]
}

func maxGeneric(src *float32, n int) float32 {
	r := negInf
	for _, v := range vec(src, n) {
		if v > r {
			r = v
		}
	}
	return r
}

// Bounds of the exponential: below expLo it is 0, above expHi it stays at
// exp(expHi), about 2.4e38.
const (
	expLo = -87.33654
	expHi = 88.37
)

// exp1 is e^x by the method of Cephes' expf: x = n ln2 + r, a polynomial of
// degree 5 in r, and 2^n. Relative error below 2e-7.
func exp1(x float32) float32 {
	if x < expLo {
		return 0
	}
	if x > expHi {
		x = expHi
	}
	n := float32(math.RoundToEven(float64(float32(x * math.Log2E))))
	r := float32(n*-0.693359375) + x
	r = float32(n*2.12194440e-4) + r
	p := float32(1.9875691500e-4)
	p = float32(p*r) + 1.3981999507e-3
	p = float32(p*r) + 8.3334519073e-3
	p = float32(p*r) + 4.1665795894e-2
	p = float32(p*r) + 1.6666665459e-1
	p = float32(p*r) + 5.0000001201e-1
	p = float32(p*r) + 1
	p = float32(p*r) + 1
	if n != n {
		return n
	}
	return p * math.Float32frombits(uint32(int32(n)+127)<<23)
}

func expGeneric(dst, src *float32, n int, scale, bias float32, sum *[lanes]float32) {
	d, s := vec(dst, n), vec(src, n)
	for i := range s {
		e := exp1(float32(s[i]*scale) + bias)
		d[i] = e
		sum[i%lanes] += e
	}
}

func addGeneric(dst, x *float32, n int) {
	d, s := vec(dst, n), vec(x, n)
	for i := range d {
		d[i] += s[i]
	}
}

func scaleGeneric(dst *float32, n int, s float32) {
	d := vec(dst, n)
	for i := range d {
		d[i] = float32(d[i]*s) + 0
	}
}

func normGeneric(dst, x, w *float32, n int, s float32) {
	d, a, b := vec(dst, n), vec(x, n), vec(w, n)
	for i := range d {
		d[i] = float32(a[i]*s) * b[i]
	}
}

func normBackGeneric(dst, dy, x, w, base *float32, n int, a, b float32) {
	d, g, xs, ws := vec(dst, n), vec(dy, n), vec(x, n), vec(w, n)
	var bs []float32
	if base != nil {
		bs = vec(base, n)
	}
	for i := range d {
		var t float32
		if bs != nil {
			t = bs[i]
		}
		t += float32(xs[i] * b)
		d[i] = t + float32(float32(g[i]*ws[i])*a)
	}
}

func swigluGeneric(dst, gate, up *float32, n int) {
	d, g, u := vec(dst, n), vec(gate, n), vec(up, n)
	for i := range d {
		d[i] = g[i] / (1 + exp1(-g[i])) * u[i]
	}
}

func swigluBackGeneric(dgate, dup, dy, gate, up *float32, n int) {
	dg, du, d, g, u := vec(dgate, n), vec(dup, n), vec(dy, n), vec(gate, n), vec(up, n)
	for i := range dg {
		s := 1 / (1 + exp1(-g[i]))
		silu := g[i] * s
		du[i] = d[i] * silu
		// s*(1+g*(1-s)) = s + silu*(1-s)
		t := float32(silu*(1-s)) + s
		dg[i] = float32(d[i]*u[i]) * t
	}
}

func rotateGeneric(x1, x2, cos, sin *float32, n int, sign float32) {
	a, b, c, s := vec(x1, n), vec(x2, n), vec(cos, n), vec(sin, n)
	for i := range a {
		sn := s[i] * sign
		p, q := a[i], b[i]
		a[i] = float32(p*c[i]) - float32(q*sn)
		b[i] = float32(q*c[i]) + float32(p*sn)
	}
}

func softBackGeneric(ds, p, dp *float32, n int, d, scale float32) {
	o, a, b := vec(ds, n), vec(p, n), vec(dp, n)
	for i := range o {
		o[i] = float32(a[i]*(b[i]-d)) * scale
	}
}

func transposeGeneric(dst, src *float32, ldd, lds, cols int) {
	for r := range chunk {
		row := vec((*float32)(unsafe.Add(unsafe.Pointer(src), r*lds)), cols)
		for c, v := range row {
			*(*float32)(unsafe.Add(unsafe.Pointer(dst), c*ldd+4*r)) = v
		}
	}
}

func copyGeneric(dst, src *float32, ldd, lds, n int) {
	for i := range n {
		copy(vec((*float32)(unsafe.Add(unsafe.Pointer(dst), i*ldd)), chunk), vec((*float32)(unsafe.Add(unsafe.Pointer(src), i*lds)), chunk))
	}
}

//lint:ignore U1000 what is written here keeps the compiler from removing the loop
var peakSink [24]float32

func peakGeneric(n int) {
	var s [24]float32
	for range n {
		for i := range s {
			s[i] += float32(s[i] * s[i])
		}
	}
	peakSink = s
}
