package gguf

import "fmt"

// BlockSize is the number of weights in a block of Q4_0, Q4_1 and Q8_0.
const BlockSize = 32

// blockMantissa are the bits of a float16 below its exponent.
const blockMantissa = 10

// BlockBits is the number of bits of a stored integer where [File.ReadBlocks] reads the
// tensor: 4 for Q4_0 and Q4_1, 8 for Q8_0; 0 for other types.
func (t TensorInfo) BlockBits() int {
	switch t.Type {
	case "Q4_0", "Q4_1":
		return 4
	case "Q8_0":
		return 8
	}
	return 0
}

// ReadBlocks reads row number row of a Q4_0, Q4_1 or Q8_0 tensor as it is stored:
// integers q, one to a byte (0 to 15, or an int8 for Q8_0), and for each BlockSize of
// them the bits of a float16 scale d and, unless the type is Q8_0, of a float16 minimum m.
// A weight is d*q + m, or d*q, rounded to float32: the number that [File.ReadRow] gives.
// (Where it is 0, the sign of that may differ for Q4_0, whose minimum -8d stands in no
// file.) Lengths must be the tensor's; scales and minimums that are not finite are
// refused. Calls may run concurrently.
func (f *File) ReadBlocks(name string, row int, q []byte, scale, minimum []uint16) error {
	return f.readRow(name, row, len(q), func(s span, raw []byte) error {
		blocks, mins := len(q)/BlockSize, len(q)/BlockSize
		switch s.format.name {
		case "Q8_0":
			mins = 0
		case "Q4_0", "Q4_1":
		default:
			return fmt.Errorf("its type %s is not stored as integers with a scale; Q4_0, Q4_1 and Q8_0 are", s.format.name)
		}
		if len(scale) != blocks || len(minimum) != mins {
			return fmt.Errorf("it has %d scales and %d minimums, the caller wants %d and %d", blocks, mins, len(scale), len(minimum))
		}
		for b := range blocks {
			if err := readBlock(s.format, raw[b*s.format.bytes:], q[b*BlockSize:], b, scale, minimum); err != nil {
				return fmt.Errorf("block %d: %w; download the file again", b, err)
			}
		}
		return nil
	})
}

// readBlock reads block b of a row from the start of src to the start of q.
func readBlock(f format, src, q []byte, b int, scale, minimum []uint16) error {
	scale[b] = le.Uint16(src)
	if !finiteHalf(scale[b]) {
		return fmt.Errorf("the scale is %g", half(scale[b]))
	}
	if f.name == "Q8_0" {
		copy(q[:BlockSize], src[2:])
		return nil
	}
	nibbles := src[2:]
	if f.name == "Q4_1" {
		if minimum[b], nibbles = le.Uint16(src[2:]), src[4:]; !finiteHalf(minimum[b]) {
			return fmt.Errorf("the minimum is %g", half(minimum[b]))
		}
	} else if minimum[b] = timesMinus8(scale[b]); !finiteHalf(minimum[b]) {
		return fmt.Errorf("the scale %g times 8 is no float16", half(scale[b]))
	}
	for i, v := range nibbles[:BlockSize/2] {
		q[i], q[i+BlockSize/2] = v&15, v>>4
	}
	return nil
}

func finiteHalf(h uint16) bool { return h&0x7c00 != 0x7c00 }

// timesMinus8 multiplies a finite float16 by -8: exactly, or the result is infinite.
func timesMinus8(h uint16) uint16 {
	sign, e, m := h&0x8000^0x8000, h>>blockMantissa&31, h&(1<<blockMantissa-1)
	if e == 0 { // subnormal, m times 2^-24: three bits more may make it normal
		if m <<= 3; m >= 1<<blockMantissa {
			for e = 1; m >= 2<<blockMantissa; e++ {
				m >>= 1
			}
			m -= 1 << blockMantissa
		}
		return sign | e<<blockMantissa | m
	}
	if e+3 >= 31 {
		return sign | 0x7c00
	}
	return sign | (e+3)<<blockMantissa | m
}
