package cpu

import (
	"math"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// The log-sum-exp of a row is taken over chunks of kernel.HeadChunk logits:
// each gives its greatest value and the sum of exponentials below it (32
// lanes), and the chunks are joined in float64, in order. LogSumExp and
// HeadLogProb share every step.

type partial struct{ max, sum float32 }

func (m *micro) partialOf(dst, logits []float32) partial {
	top := m.maxOf(logits)
	if top == negInf { // also when all are NaN: then the sum says so
		top = -math.MaxFloat32
	}
	return partial{top, m.expOf(dst, logits, 1, -top)}
}

func join(ps []partial) float32 {
	top := float64(negInf)
	for _, p := range ps {
		top = max(top, float64(p.max))
	}
	var sum float64
	for _, p := range ps {
		sum += float64(p.sum) * math.Exp(float64(p.max)-top)
	}
	return float32(top + math.Log(sum))
}

// LogSumExp returns log sum exp(logits).
func (k *Kernels) LogSumExp(logits []float32) float32 {
	ps := make([]partial, 0, len(logits)/kernel.HeadChunk+1)
	buf := scratch(kernel.HeadChunk)
	for o := 0; o < len(logits); o += kernel.HeadChunk {
		ps = append(ps, k.micro.partialOf(buf.f, logits[o:min(o+kernel.HeadChunk, len(logits))]))
	}
	buf.free()
	return join(ps)
}

// Softmax sets dst = softmax(logits*invTemperature).
func (k *Kernels) Softmax(dst, logits []float32, invTemperature float32) {
	if len(dst) == 0 {
		return
	}
	top := k.micro.maxOf(logits)
	sum := k.micro.expOf(dst, logits, invTemperature, -top*invTemperature)
	inv := 1 / sum
	k.scale(dst, inv)
}

const (
	headPanels = kernel.HeadChunk / panel
	headStride = kernel.HeadChunk + chunk // keeps rows apart in the cache
)

// headLogits fills out [rows of a, headStride] with the logits of chunk c and
// returns how many there are. Columns beyond them are left as they are.
func headLogits(out []float32, a side, w *weight, op operand, c int) int {
	n := min(kernel.HeadChunk, w.out-c*kernel.HeadChunk)
	op.base = op.panel(c*headPanels, 0)
	block(out, headStride, n, a, op, false)
	return n
}

// headRows makes the rows of x a left side.
func (k *Kernels) headRows(x kernel.Matrix) side {
	l := left{data: x.Data, m: x.Rows, k: x.Cols, ld: x.Cols}
	return k.leftSide(l, &k.micro.bf16)
}

// HeadLogProb computes log-probabilities chunk by chunk.
func (k *Kernels) HeadLogProb(logprob, lse []float32, x kernel.Matrix, kw kernel.Weight, targets []int32) {
	w := kw.(*weight)
	op := w.operand(&k.micro.bf16)
	a := k.headRows(x)
	defer a.free()
	chunks := (w.out + kernel.HeadChunk - 1) / kernel.HeadChunk
	parts := make([]partial, x.Rows*chunks)
	// One chunk of weights stays in the cache while all rows pass over it.
	parallel(chunks, func(c int) {
		buf := scratch((a.height + 1) * headStride)
		defer buf.free()
		for i := 0; i < x.Rows; i += a.height {
			i1 := min(i+a.height, x.Rows)
			n := headLogits(buf.f, a.from(i, i1), w, op, c)
			for r := i; r < i1; r++ {
				row := buf.f[(r-i)*headStride:][:n]
				if t := int(targets[r]) - c*kernel.HeadChunk; t >= 0 && t < n {
					logprob[r] = row[t]
				}
				parts[r*chunks+c] = k.micro.partialOf(buf.f[a.height*headStride:], row)
			}
		}
	})
	for r := range x.Rows {
		lse[r] = join(parts[r*chunks : (r+1)*chunks])
		logprob[r] -= lse[r]
	}
}

// HeadLogProbBackward computes the logits of a chunk again, turns them into
// coefficients of the weight's rows, and adds those rows up: one chain per
// chunk, and the chunks in order. A single chain over a vocabulary would lose a
// digit.
func (k *Kernels) HeadLogProbBackward(dx, x kernel.Matrix, kw kernel.Weight, targets []int32, lse, g []float32) {
	if x.Rows == 0 {
		return
	}
	w := kw.(*weight)
	t := w.transposed()
	op, opT := w.operand(&k.micro.bf16), t.operand(&k.micro.bf16)
	a := k.headRows(x)
	defer a.free()
	chunks := (w.out + kernel.HeadChunk - 1) / kernel.HeadChunk
	// Tasks split the rows; each walks the whole vocabulary.
	rb := (x.Rows + threads() - 1) / threads()
	rb = min((rb+a.height-1)/a.height, max(blockRows/a.height, 1)) * a.height
	parallel((x.Rows+rb-1)/rb, func(task int) {
		i0, i1 := task*rb, min((task+1)*rb, x.Rows)
		buf, part := scratch(rb*headStride), scratch(rb*dx.Cols)
		defer buf.free()
		defer part.free()
		rows := dx.Data[i0*dx.Cols : i1*dx.Cols]
		for c := range chunks {
			n := headLogits(buf.f, a.from(i0, i1), w, op, c)
			for r := i0; r < i1; r++ {
				row := buf.f[(r-i0)*headStride:][:n]
				k.micro.expOf(row, row, 1, -lse[r])
				k.scale(row, -g[r])
				if v := int(targets[r]) - c*kernel.HeadChunk; v >= 0 && v < n {
					row[v] += g[r]
				}
			}
			coef := k.leftSide(left{data: buf.f, m: i1 - i0, k: n, ld: headStride}, opT.tiles)
			o := opT
			o.base = opT.panel(0, c*kernel.HeadChunk)
			if c == 0 {
				block(rows, dx.Cols, t.out, coef, o, false)
			} else {
				block(part.f, dx.Cols, t.out, coef, o, false)
				k.add(rows, part.f)
			}
			coef.free()
		}
	})
}
