package sample

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014), a bijection
// of 64-bit words that flips about half of the bits for each bit of its input.
func mix(x uint64) uint64 {
	x += 0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// uniform returns the random number in [0, 1) of one draw: a pure function of
// the seed, the row's key and the position in the answer.
func uniform(seed, key uint64, position int) float64 {
	h := mix(mix(mix(seed)^key) ^ uint64(position))
	return float64(h>>11) / (1 << 53)
}
