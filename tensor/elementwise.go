package tensor

// Add sets dst += x.
func Add(dst, x *Tensor) {
	check(same(dst, x), "Add", dst, x)
	device.Add(dst.data, x.data)
}

// Scale sets dst *= s.
func Scale(dst *Tensor, s float32) { device.Scale(dst.data, s) }

// SwiGLU sets dst = silu(gate) * up, element by element, with
// silu(z) = z / (1 + exp(-z)).
func SwiGLU(dst, gate, up *Tensor) {
	check(same(dst, gate) && same(dst, up), "SwiGLU", dst, gate, up)
	device.SwiGLU(dst.data, gate.data, up.data)
}

// SwiGLUBackward sets dup = dy * silu(gate) and
// dgate = dy * up * s * (1 + gate*(1-s)) with s = sigmoid(gate).
// No output may share storage with an input.
func SwiGLUBackward(dgate, dup, dy, gate, up *Tensor) {
	check(same(dgate, dup) && same(dgate, dy) && same(dgate, gate) && same(dgate, up), "SwiGLUBackward", dgate, dup, dy, gate, up)
	device.SwiGLUBackward(dgate.data, dup.data, dy.data, gate.data, up.data)
}
