package sample

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// logsOf makes logits of probabilities.
func logsOf(probs ...float64) []float32 {
	l := make([]float32, len(probs))
	for i, p := range probs {
		l[i] = float32(math.Log(p))
	}
	return l
}

// TestChoose: expected tokens worked out by hand. With probabilities
// .1 .4 .2 .3 the order by probability is 1 3 2 0.
func TestChoose(t *testing.T) {
	four := logsOf(.1, .4, .2, .3)
	tests := []struct {
		name   string
		logits []float32
		p      Params
		seen   []int32
		// u -> token; the walk is in id order without top-k and top-p, else in
		// the order of probability.
		want map[float64]int32
	}{
		{"greedy", four, Params{}, nil, map[float64]int32{0: 1, .5: 1, .999: 1}},
		{"greedy tie", []float32{1, 3, 3, 2}, Params{}, nil, map[float64]int32{.9: 1}},
		{"nearly cold", four, Params{Temperature: 1e-9}, nil, map[float64]int32{.9: 1}},
		{"all", four, Params{Temperature: 1}, nil, map[float64]int32{0: 0, .09: 0, .11: 1, .49: 1, .51: 2, .69: 2, .71: 3, .999: 3}},
		{"top-p 1 is all", four, Params{Temperature: 1, TopP: 1}, nil, map[float64]int32{.09: 0, .11: 1, .71: 3}},
		// squares: .01 .16 .04 .09 of .3 -> 1/30 16/30 4/30 9/30
		{"temperature 1/2", four, Params{Temperature: .5}, nil, map[float64]int32{.03: 0, .04: 1, .56: 1, .57: 2, .69: 2, .71: 3}},
		{"top-k 1", four, Params{Temperature: 1, TopK: 1}, nil, map[float64]int32{0: 1, .999: 1}},
		// .4 and .3 of .7: 1 up to 4/7 = .571
		{"top-k 2", four, Params{Temperature: 1, TopK: 2}, nil, map[float64]int32{0: 1, .57: 1, .573: 3, .999: 3}},
		{"top-k 99", four, Params{Temperature: 1, TopK: 99}, nil, map[float64]int32{.09: 0, .11: 1}},
		// .4 < .5 <= .7: two tokens stay
		{"top-p .5", four, Params{Temperature: 1, TopP: .5}, nil, map[float64]int32{.57: 1, .573: 3, .999: 3}},
		{"top-p .3", four, Params{Temperature: 1, TopP: .3}, nil, map[float64]int32{0: 1, .999: 1}},
		{"top-p tiny", four, Params{Temperature: 1, TopP: 1e-12}, nil, map[float64]int32{.999: 1}},
		// .4 .3 .2 of .9 stay after top-k; .45 of that is .405: two stay
		{"top-k 3, top-p .45", four, Params{Temperature: 1, TopK: 3, TopP: .45}, nil, map[float64]int32{.57: 1, .573: 3, .999: 3}},
		// after temperature 1/2 the first has .533: it alone reaches .5
		{"temperature before top-p", four, Params{Temperature: .5, TopP: .5}, nil, map[float64]int32{.999: 1}},
		{"ties by id in top-k", []float32{0, 1, 1, 1}, Params{Temperature: 1, TopK: 2}, nil, map[float64]int32{.49: 1, .51: 2, .999: 2}},
		// 4/2 = 2 and -1*2 = -2: token 1 wins over 0 and 2
		{"penalty", []float32{4, 3, -1}, Params{RepetitionPenalty: 2}, []int32{0, 2}, map[float64]int32{0: 1}},
		{"penalty on negatives", []float32{-1, -1.5, -3}, Params{RepetitionPenalty: 2}, []int32{0}, map[float64]int32{0: 1}},
		{"penalty 1", []float32{4, 3, -1}, Params{RepetitionPenalty: 1}, []int32{0}, map[float64]int32{0: 0}},
		// ln 4 / 2 = ln 2, ln 2, 0: .4 .4 .2
		{"penalty then temperature", logsOf(4, 2, 1), Params{Temperature: 1, RepetitionPenalty: 2}, []int32{0}, map[float64]int32{.39: 0, .41: 1, .79: 1, .81: 2}},
	}
	var c chooser
	for _, x := range tests {
		for u, want := range x.want {
			before := slices.Clone(x.logits)
			if got := c.choose(x.logits, &x.p, x.seen, u); got != want {
				t.Errorf("%s: u = %v gives token %d, want %d", x.name, u, got, want)
			}
			if !slices.Equal(before, x.logits) {
				t.Fatalf("%s: the logits were changed", x.name)
			}
		}
	}
}

// TestTopAgainstSort compares the windowed selection with a full sort.
func TestTopAgainstSort(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var c chooser
	for trial := range 300 {
		n := 1 + r.IntN(3000)
		spread := []float64{0, .1, 1, 5, 40}[trial%5]
		logits := make([]float32, n)
		for i := range logits {
			logits[i] = float32(math.Round(r.NormFloat64()*spread*8) / 8) // with ties
		}
		p := Params{Temperature: []float64{.01, .3, 1, 4}[trial%4], TopK: r.IntN(n + 2), TopP: r.Float64()}
		u := r.Float64()
		got := c.choose(logits, &p, nil, u)

		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int {
			if logits[a] > logits[b] {
				return -1
			} else if logits[a] < logits[b] {
				return 1
			}
			return 0
		})
		if p.TopK > 0 && p.TopK < n {
			order = order[:p.TopK]
		}
		weight := func(i int) float64 { return math.Exp((float64(logits[i]) - float64(logits[order[0]])) / p.Temperature) }
		total := 0.0
		for _, i := range order {
			total += weight(i)
		}
		kept, sum := 0, 0.0
		for kept < len(order) && (kept == 0 || sum < p.TopP*total) {
			sum += weight(order[kept])
			kept++
		}
		// The token at u, give or take the rounding of float32 probabilities.
		near := func(u float64) int {
			walk := 0.0
			for _, i := range order[:kept] {
				if walk += weight(i); walk > u*sum {
					return i
				}
			}
			return order[kept-1]
		}
		if g := int(got); g != near(u) && g != near(max(0, u-1e-4)) && g != near(u+1e-4) {
			t.Errorf("trial %d: %+v u %v: got %d, want %d of %d kept", trial, p, u, g, near(u), kept)
		}
	}
}

func TestUniform(t *testing.T) {
	// SplitMix64 started at 0 begins with these words (reference code by Vigna).
	for i, want := range []uint64{0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F} {
		if got := mix(uint64(i) * 0x9E3779B97F4A7C15); got != want {
			t.Errorf("word %d is %#x, want %#x", i, got, want)
		}
	}
	const n, bins = 200_000, 100
	for name, f := range map[string]func(i int) float64{
		"by position": func(i int) float64 { return uniform(1, 2, i) },
		"by key":      func(i int) float64 { return uniform(1, uint64(i), 0) },
		"by seed":     func(i int) float64 { return uniform(uint64(i), 2, 0) },
		"pairs":       func(i int) float64 { return math.Mod(uniform(0, uint64(i), 1)-uniform(0, uint64(i+1), 0)+1, 1) },
	} {
		var count [bins]float64
		for i := range n {
			u := f(i)
			if u < 0 || u >= 1 {
				t.Fatalf("%s: %v", name, u)
			}
			count[int(u*bins)]++
		}
		chi := 0.0
		for _, k := range count {
			chi += (k - n/bins) * (k - n/bins) / (n / bins)
		}
		// 99 degrees of freedom: mean 99, deviation 14; six deviations to either side.
		if chi < 15 || chi > 183 {
			t.Errorf("%s: chi square %v", name, chi)
		}
	}
	if uniform(1, 2, 3) == uniform(2, 1, 3) || uniform(1, 2, 3) == uniform(1, 3, 2) || uniform(0, 0, 0) == uniform(0, 0, 1) {
		t.Error("arguments can be exchanged")
	}
}

// TestFrequencies: draws follow the probabilities, on both ways of drawing.
func TestFrequencies(t *testing.T) {
	probs := []float64{.05, .4, .15, .3, .1}
	for _, p := range []Params{{Temperature: 1}, {Temperature: 1, TopK: 4}, {Temperature: 1, TopP: .94}} {
		want := slices.Clone(probs)
		if p.TopK > 0 || p.TopP > 0 { // both leave the smallest out
			for i := range want {
				want[i] /= .95
			}
			want[0] = 0
		}
		var c chooser
		const n = 100_000
		got := make([]float64, len(probs))
		for i := range n {
			got[c.choose(logsOf(probs...), &p, nil, uniform(9, 7, i))]++
		}
		for i := range got {
			if math.Abs(got[i]/n-want[i]) > .008 { // five deviations
				t.Errorf("%+v: token %d has frequency %v, want %v", p, i, got[i]/n, want[i])
			}
		}
	}
}

func BenchmarkChoose(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	logits := make([]float32, 49152)
	for i := range logits {
		logits[i] = float32(r.NormFloat64() * 3)
	}
	for i := range 30 {
		logits[i*1000] += 12
	}
	for name, p := range map[string]Params{"all": {Temperature: .8}, "top-p": {Temperature: .8, TopP: .9}, "top-k": {Temperature: .8, TopK: 50}, "greedy": {},
		"flat-top-p": {Temperature: 4, TopP: .95}, "penalty": {RepetitionPenalty: 1.1}} {
		b.Run(name, func(b *testing.B) {
			var c chooser
			i := 0
			for b.Loop() {
				i++
				c.choose(logits, &p, []int32{1, 2, 3}, uniform(1, 2, i))
			}
		})
	}
}
