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
func (k *Kernels) headRows(x kernel.Matrix, op operand) side {
	return k.sideFor(left{data: x.Data, m: x.Rows, k: x.Cols, ld: x.Cols}, op)
}

// HeadLogProb computes log-probabilities chunk by chunk.
func (k *Kernels) HeadLogProb(logprob, lse []float32, x kernel.Matrix, kw kernel.Weight, targets []int32) {
	w := kw.(*weight)
	op := k.operand(w)
	a := k.headRows(x, op)
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

// HeadLogProbGrad computes log-probabilities and their gradients in one pass.
// The sum over the vocabulary that a gradient holds is carried like the
// log-sum-exp: each chunk gives sum_v exp(logit_v - top) W_v below its own
// greatest logit, one chain from 0, and the chunks are added in order below the
// greatest so far. A single chain over a vocabulary would lose a digit. The
// target stays out of the sum: its part, (1-p) W, is added last, with 1-p taken
// from the log-probability, so that nothing cancels where p is close to 1.
func (k *Kernels) HeadLogProbGrad(logprob []float32, grad, x kernel.Matrix, kw kernel.Weight, targets []int32) {
	if x.Rows == 0 {
		return
	}
	w := kw.(*weight)
	op := k.operand(w)
	a := k.headRows(x, op)
	defer a.free()
	w.transposed()
	// Tasks split the rows evenly; each walks the whole vocabulary.
	tasks := (x.Rows + blockRows - 1) / blockRows
	tasks = (tasks + threads() - 1) / threads() * threads()
	rb := (x.Rows + tasks - 1) / tasks
	parallel((x.Rows+rb-1)/rb, func(task int) {
		i0, i1 := task*rb, min((task+1)*rb, x.Rows)
		k.headGrad(logprob[i0:i1], grad.Data[i0*grad.Cols:i1*grad.Cols], a.from(i0, i1), w, op, targets[i0:i1])
	})
}

// headGrad does one task's rows.
func (k *Kernels) headGrad(logprob, grad []float32, a side, w *weight, op operand, targets []int32) {
	t := w.transposed()
	opT := k.operand(t)
	rows, cols, chunks := len(targets), t.out, (w.out+kernel.HeadChunk-1)/kernel.HeadChunk
	buf, part := scratch(rows*headStride), scratch(rows*cols)
	defer buf.free()
	defer part.free()
	parts, tops := make([]partial, rows*chunks), make([]float32, rows)
	for c := range chunks {
		n := headLogits(buf.f, a, w, op, c)
		for r, target := range targets {
			row := buf.f[r*headStride:][:n]
			at := int(target) - c*kernel.HeadChunk
			if at >= 0 && at < n {
				logprob[r] = row[at]
			}
			parts[r*chunks+c] = k.micro.partialOf(row, row)
			if at >= 0 && at < n {
				row[at] = 0
			}
		}
		coef := k.sideFor(left{data: buf.f, m: rows, k: n, ld: headStride}, opT)
		o := opT
		o.base = opT.panel(0, opT.steps(c*kernel.HeadChunk))
		if c == 0 {
			block(grad, cols, cols, coef, o, false)
		} else {
			block(part.f, cols, cols, coef, o, false)
		}
		coef.free()
		for r := range rows {
			top := parts[r*chunks+c].max
			if c > 0 {
				sum, more := grad[r*cols:(r+1)*cols], part.f[r*cols:(r+1)*cols]
				if top > tops[r] {
					k.scale(sum, exp32(tops[r]-top))
				} else {
					k.scale(more, exp32(top-tops[r]))
					top = tops[r]
				}
				k.add(sum, more)
			}
			tops[r] = top
		}
	}
	for r, target := range targets {
		lse := join(parts[r*chunks : (r+1)*chunks])
		logprob[r] -= lse
		sum, own := grad[r*cols:(r+1)*cols], part.f[:cols]
		k.scale(sum, -exp32(tops[r]-lse))
		w.Row(int(target), own)
		k.scale(own, float32(-math.Expm1(float64(logprob[r]))))
		k.add(sum, own)
	}
}

func exp32(x float32) float32 { return float32(math.Exp(float64(x))) }
