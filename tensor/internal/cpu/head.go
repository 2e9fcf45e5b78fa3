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

const headPanels = kernel.HeadChunk / panel

// headLogits fills out [rows of a, HeadChunk] with the logits of chunk c and
// returns how many there are. Columns beyond them are left as they are.
func headLogits(out []float32, a packed, w *weight, op operand, c int) int {
	n := min(kernel.HeadChunk, w.out-c*kernel.HeadChunk)
	op.base = op.panel(c*headPanels, 0)
	block(out, kernel.HeadChunk, n, a, op, false)
	return n
}

// headRows packs the rows of x.
func (k *Kernels) headRows(x kernel.Matrix) packed {
	l := left{data: x.Data, m: x.Rows, k: x.Cols, ld: x.Cols}
	a := newPacked(l.m, l.k, l.height(&k.micro.bf16))
	l.pack(k.micro, a, 0, l.m, 0)
	return a
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
		buf := scratch((a.rows + 1) * kernel.HeadChunk)
		defer buf.free()
		for i := 0; i < x.Rows; i += a.rows {
			i1 := min(i+a.rows, x.Rows)
			n := headLogits(buf.f, a.from(i, i1), w, op, c)
			for r := i; r < i1; r++ {
				row := buf.f[(r-i)*kernel.HeadChunk:][:n]
				if t := int(targets[r]) - c*kernel.HeadChunk; t >= 0 && t < n {
					logprob[r] = row[t]
				}
				parts[r*chunks+c] = k.micro.partialOf(buf.f[a.rows*kernel.HeadChunk:], row)
			}
		}
	})
	for r := range x.Rows {
		lse[r] = join(parts[r*chunks : (r+1)*chunks])
		logprob[r] -= lse[r]
	}
}

// HeadLogProbBackward computes the logits of a chunk again, turns them into
// coefficients of the weight's rows, and adds those rows up in the order of
// the vocabulary.
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
	rb = min((rb+a.rows-1)/a.rows, max(blockRows/a.rows, 1)) * a.rows
	parallel((x.Rows+rb-1)/rb, func(task int) {
		i0, i1 := task*rb, min((task+1)*rb, x.Rows)
		buf := scratch(rb * kernel.HeadChunk)
		defer buf.free()
		coef := newPacked(i1-i0, kernel.HeadChunk, a.rows)
		defer coef.free()
		for c := range chunks {
			n := headLogits(buf.f, a.from(i0, i1), w, op, c)
			for r := i0; r < i1; r++ {
				row := buf.f[(r-i0)*kernel.HeadChunk:][:n]
				k.micro.expOf(row, row, 1, -lse[r])
				k.scale(row, -g[r])
				if v := int(targets[r]) - c*kernel.HeadChunk; v >= 0 && v < n {
					row[v] += g[r]
				}
			}
			l := left{data: buf.f, m: i1 - i0, k: n, ld: kernel.HeadChunk}
			coef.k, coef.kp = n, (n+chunk-1)&^(chunk-1)
			l.pack(k.micro, coef, 0, l.m, 0)
			o := opT
			o.base = opT.panel(0, c*kernel.HeadChunk)
			block(dx.Data[i0*dx.Cols:], dx.Cols, t.out, coef, o, c > 0)
		}
	})
}
