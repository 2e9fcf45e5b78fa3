package gguf

import (
	"errors"
	"fmt"
	"math"
)

// pack returns what appends the stored form of a row, or nil where a type is only read. Every operation is rounded
// to float32 on its own, so the bytes are the same on every machine.
func pack(name string) func(b []byte, row []float32) ([]byte, error) {
	switch name {
	case "F32":
		return packF32
	case "BF16":
		return packBF16
	case "Q8_0":
		return packQ8_0
	}
	return nil
}

var errNotFinite = errors.New("it holds a value that is not finite in this type")

func packF32(b []byte, row []float32) ([]byte, error) {
	for _, v := range row {
		if v-v != 0 {
			return nil, errNotFinite
		}
		b = le.AppendUint32(b, math.Float32bits(v))
	}
	return b, nil
}

// packBF16 rounds to nearest, ties to even.
func packBF16(b []byte, row []float32) ([]byte, error) {
	for _, v := range row {
		u := math.Float32bits(v)
		u += 0x7fff + u>>16&1
		if v-v != 0 || u&0x7f800000 == 0x7f800000 {
			return nil, errNotFinite
		}
		b = le.AppendUint16(b, uint16(u>>16))
	}
	return b, nil
}

// packQ8_0 is ggml's quantize_row_q8_0_ref: d is the greatest magnitude of a block by 127, q the weight by d, halves
// away from zero, and d is then stored as fp16.
func packQ8_0(b []byte, row []float32) ([]byte, error) {
	for block := range len(row) / BlockSize {
		x := row[block*BlockSize:][:BlockSize]
		most := float32(0)
		for _, v := range x {
			if v-v != 0 {
				return nil, errNotFinite
			}
			most = max(most, float32(math.Abs(float64(v))))
		}
		d, inverse := most/127, float32(0)
		stored := toHalf(d)
		if d >= 0x1p-126 { // below, the inverse may be infinite, and all weights of the block vanish anyway
			inverse = 1 / d
		}
		if !finiteHalf(stored) {
			return nil, fmt.Errorf("block %d: a scale of %g is no float16", block, d)
		}
		b = le.AppendUint16(b, stored)
		for _, v := range x {
			b = append(b, byte(int8(math.Round(float64(v*inverse)))))
		}
	}
	return b, nil
}

// toHalf rounds a float32 of at least 0 to float16, to nearest, ties to even; too great ones become infinite.
func toHalf(v float32) uint16 {
	const infinite, least = 0x7c00, 0x1p-14 // least: the least normal float16
	if v < least {
		// Subnormal: a whole number of 2^-24, which may be 1024, the least normal one.
		return uint16(math.RoundToEven(float64(v) * 0x1p24))
	}
	u := math.Float32bits(v)
	u += 0xfff + u>>13&1
	exponent := int(u>>23) - 112
	if exponent >= 31 {
		return infinite
	}
	return uint16(exponent<<10 | int(u>>13&0x3ff))
}
