package tensor

// GeGLU sets dst = gelu(gate) * up, element by element, with the tanh form of
// gelu (Hendrycks and Gimpel, arXiv:1606.08415)
//
//	gelu(z) = z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3)))
//
// computed as z / (1 + exp(-2 sqrt(2/pi) (z + 0.044715 z^3))), the same value.
func GeGLU(dst, gate, up *Tensor) {
	check(same(dst, gate) && same(dst, up), "GeGLU", dst, gate, up)
	device.GeGLU(dst.data, gate.data, up.data)
}

// GeGLUBackward sets dup = dy * gelu(gate) and, with w = 2 sqrt(2/pi) (z +
// 0.044715 z^3) at z = gate and s = sigmoid(w),
//
//	dgate = dy * up * (s + gate * s * (1-s) * dw/dz)
//
// No output may share storage with an input.
func GeGLUBackward(dgate, dup, dy, gate, up *Tensor) {
	check(same(dgate, dup) && same(dgate, dy) && same(dgate, gate) && same(dgate, up), "GeGLUBackward", dgate, dup, dy, gate, up)
	device.GeGLUBackward(dgate.data, dup.data, dy.data, gate.data, up.data)
}
