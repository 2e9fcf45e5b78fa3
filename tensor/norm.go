package tensor

// RMSNorm sets dst = x * inv * weight per row, inv = 1/sqrt(mean(x^2) + eps).
// inv[i], when inv is not nil, keeps row i's factor for RMSNormBackward.
// dst may be x.
func RMSNorm(dst, x *Tensor, weight []float32, eps float32, inv []float32) {
	check(same(dst, x) && len(weight) == x.Cols && (inv == nil || len(inv) == x.Rows), "RMSNorm", dst, x)
	device.RMSNorm(dst.matrix(), x.matrix(), weight, eps, inv)
}

// RMSNormBackward sets dx (+)= inv*weight*dy - x * inv^3/n * sum(weight*dy*x)
// per row of n columns. x is RMSNorm's input and inv what it saved.
func RMSNormBackward(dx, dy, x *Tensor, weight, inv []float32, accumulate bool) {
	check(same(dx, dy) && same(dx, x) && len(weight) == x.Cols && len(inv) == x.Rows, "RMSNormBackward", dx, dy, x)
	device.RMSNormBackward(dx.matrix(), dy.matrix(), x.matrix(), weight, inv, accumulate)
}
