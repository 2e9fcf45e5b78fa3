package gguf

// The block formats, as ggml defines them in ggml-common.h (layout) and ggml-quants.c (dequantize_row_*).
//
// d and m are the fp16 scale and minimum of a block, q a stored integer. Products are rounded to float32
// before they are added (the explicit conversions forbid the compiler a fused multiply-add on machines
// where it likes to make one), so every weight has the same bits on every machine.

import (
	"encoding/binary"
	"math"
)

var le = binary.LittleEndian

func widenF32(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(le.Uint32(src[4*i:]))
	}
}

func widenF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = half(le.Uint16(src[2*i:]))
	}
}

func widenBF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(uint32(le.Uint16(src[2*i:])) << 16)
	}
}

// half widens an IEEE fp16 number; exact. The scaling by 2^112 moves the exponent's bias from 15 to 127
// and normalises subnormal numbers.
func half(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	if h&0x7c00 == 0x7c00 { // infinity or NaN: keep the payload
		return math.Float32frombits(sign | 0x7f800000 | uint32(h&0x3ff)<<13)
	}
	v := math.Float32frombits(uint32(h&0x7fff)<<13) * 0x1p112
	return math.Float32frombits(sign | math.Float32bits(v))
}

// widenQ8_0: block {d; int8 q[32]}, w = q*d.
func widenQ8_0(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[34:] {
		d, q, out := half(le.Uint16(src)), src[2:34], dst[:32]
		for i := range out {
			out[i] = float32(int8(q[i])) * d
		}
	}
}

// widenQ4_0: block {d; nibbles[16]}, w = (q-8)*d; low nibbles are weights 0-15, high ones 16-31.
func widenQ4_0(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[18:] {
		d, q := half(le.Uint16(src)), src[2:18]
		lo, hi := dst[:16], dst[16:32]
		for i, b := range q {
			lo[i] = float32(int32(b&15)-8) * d
			hi[i] = float32(int32(b>>4)-8) * d
		}
	}
}

// widenQ4_1: block {d; m; nibbles[16]}, w = q*d + m.
func widenQ4_1(dst []float32, src []byte) {
	var table [16]float32
	for ; len(dst) >= 32; dst, src = dst[32:], src[20:] {
		d, m, q := half(le.Uint16(src)), half(le.Uint16(src[2:])), src[4:20]
		for i := range table {
			table[i] = float32(float32(i)*d) + m
		}
		lo, hi := dst[:16], dst[16:32]
		for i, b := range q {
			lo[i] = table[b&15]
			hi[i] = table[b>>4]
		}
	}
}

// widenQ5_0: block {d; uint32 fifth bits; nibbles[16]}, w = (q-16)*d.
func widenQ5_0(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[22:] {
		d, h, q := half(le.Uint16(src)), le.Uint32(src[2:]), src[6:22]
		lo, hi := dst[:16], dst[16:32]
		for i, b := range q {
			lo[i] = float32(int32(uint32(b&15)|h>>i<<4&16)-16) * d
			hi[i] = float32(int32(uint32(b>>4)|h>>(i+16)<<4&16)-16) * d
		}
	}
}

// widenQ5_1: block {d; m; uint32 fifth bits; nibbles[16]}, w = q*d + m.
func widenQ5_1(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[24:] {
		d, m, h, q := half(le.Uint16(src)), half(le.Uint16(src[2:])), le.Uint32(src[4:]), src[8:24]
		lo, hi := dst[:16], dst[16:32]
		for i, b := range q {
			lo[i] = float32(float32(uint32(b&15)|h>>i<<4&16)*d) + m
			hi[i] = float32(float32(uint32(b>>4)|h>>(i+16)<<4&16)*d) + m
		}
	}
}

// scaleMin unpacks the 6-bit scale and minimum number j (0-7) of a K block (ggml's get_scale_min_k4).
func scaleMin(j int, s []byte) (scale, minimum float32) {
	if j < 4 {
		return float32(s[j] & 63), float32(s[j+4] & 63)
	}
	return float32(s[j+4]&15 | s[j-4]>>6<<4), float32(s[j+4]>>4 | s[j]>>6<<4)
}

// widenQ4_K: block {d; dmin; scales[12]; nibbles[128]} of 256 weights in 8 groups of 32,
// w = (d*scale)*q - dmin*min.
func widenQ4_K(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[144:] {
		d, dmin, scales := half(le.Uint16(src)), half(le.Uint16(src[2:])), src[4:16]
		for g := range 4 {
			q, lo, hi := src[16+32*g:][:32], dst[64*g:][:32], dst[64*g+32:][:32]
			s1, m1 := scaleMin(2*g, scales)
			s2, m2 := scaleMin(2*g+1, scales)
			d1, d2, n1, n2 := d*s1, d*s2, dmin*m1, dmin*m2
			for i, b := range q {
				lo[i] = float32(d1*float32(b&15)) - n1
				hi[i] = float32(d2*float32(b>>4)) - n2
			}
		}
	}
}

// widenQ5_K: block {d; dmin; scales[12]; fifth bits[32]; nibbles[128]}; as Q4_K with five bits, where bit
// g of fifth byte i belongs to weight i of group g.
func widenQ5_K(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[176:] {
		d, dmin, scales, high := half(le.Uint16(src)), half(le.Uint16(src[2:])), src[4:16], src[16:48]
		for g := range 4 {
			q, lo, hi := src[48+32*g:][:32], dst[64*g:][:32], dst[64*g+32:][:32]
			s1, m1 := scaleMin(2*g, scales)
			s2, m2 := scaleMin(2*g+1, scales)
			d1, d2, n1, n2 := d*s1, d*s2, dmin*m1, dmin*m2
			for i, b := range q {
				h := high[i] >> (2 * g)
				lo[i] = float32(d1*float32(b&15|h&1<<4)) - n1
				hi[i] = float32(d2*float32(b>>4|h&2<<3)) - n2
			}
		}
	}
}

// widenQ6_K: block {low nibbles[128]; high pairs[64]; int8 scales[16]; d} of 256 weights in 16 groups of
// 16, w = (d*scale)*(q-32). Each half of 128 weights packs four runs of 32 weights side by side.
func widenQ6_K(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[210:] {
		d := half(le.Uint16(src[208:]))
		for n := range 2 {
			low, high, scales, out := src[64*n:][:64], src[128+32*n:][:32], src[192+8*n:][:8], dst[128*n:][:128]
			var s [8]float32
			for i := range s {
				s[i] = d * float32(int8(scales[i]))
			}
			for i, h := range high {
				g := i / 16
				out[i] = s[g] * float32(int32(low[i]&15|h&3<<4)-32)
				out[i+32] = s[g+2] * float32(int32(low[i+32]&15|h>>2&3<<4)-32)
				out[i+64] = s[g+4] * float32(int32(low[i]>>4|h>>4&3<<4)-32)
				out[i+96] = s[g+6] * float32(int32(low[i+32]>>4|h>>6<<4)-32)
			}
		}
	}
}
