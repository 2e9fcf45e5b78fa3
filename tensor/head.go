package tensor

import "fmt"

// HeadLogProb computes log-probabilities under the unembedding w [vocab, In]
// without holding all logits: with logit_v = x_i . W_v,
//
//	lse[i] = log sum_v exp(logit_v)    logprob[i] = logit_targets[i] - lse[i]
//
// x is [M, In]; logprob, lse and targets have M entries.
func HeadLogProb(logprob, lse []float32, x *Tensor, w *Weight, targets []int32) {
	checkHead("HeadLogProb", x, w, targets, len(logprob), len(lse))
	w.compute.kernels().HeadLogProb(logprob, lse, x.matrix(), w.packed, targets)
}

// HeadLogProbGrad sets logprob as HeadLogProb does, bit for bit, and each row of
// grad to the gradient of logprob[i] for x_i,
//
//	grad_i = W_targets[i] - sum_v p_iv W_v    p_i = softmax(W x_i)
//
// so that the gradient of any loss is that row times dLoss/dlogprob[i]. grad and
// x are [M, In]. Knowing no loss, it needs two products over the vocabulary where
// a backward pass afterwards would need three. w must not be quantised.
func HeadLogProbGrad(logprob []float32, grad, x *Tensor, w *Weight, targets []int32) {
	check(same(grad, x), "HeadLogProbGrad", grad, x)
	checkHead("HeadLogProbGrad", x, w, targets, len(logprob), len(logprob))
	w.only("HeadLogProbGrad")
	w.compute.kernels().HeadLogProbGrad(logprob, grad.matrix(), x.matrix(), w.packed, targets)
}

func checkHead(op string, x *Tensor, w *Weight, targets []int32, n1, n2 int) {
	if x.Cols != w.In || len(targets) != x.Rows || n1 != x.Rows || n2 != x.Rows || w.Out == 0 {
		panic(fmt.Sprintf("tensor.%s: x (%d,%d) W (%d,%d), %d targets, %d and %d values", op, x.Rows, x.Cols, w.Out, w.In, len(targets), n1, n2))
	}
	for i, t := range targets {
		if t < 0 || int(t) >= w.Out {
			panic(fmt.Sprintf("tensor.%s: target %d of row %d, vocabulary %d", op, t, i, w.Out))
		}
	}
}

// LogSumExp returns log sum_v exp(logits_v). It has the bits of HeadLogProb's
// lse when the logits come from Linear(x, w).
func LogSumExp(logits []float32) float32 { return device.LogSumExp(logits) }

// Softmax sets dst = softmax(logits / temperature); temperature is positive.
// dst may be logits.
func Softmax(dst, logits []float32, temperature float32) {
	if len(dst) != len(logits) || !(temperature > 0) {
		panic(fmt.Sprintf("tensor.Softmax: %d and %d values, temperature %v", len(dst), len(logits), temperature))
	}
	device.Softmax(dst, logits, 1/temperature)
}
