package train

import (
	"errors"
	"fmt"

	"github.com/opencharacter/opencharacter/lm/transformer"
)

// Example is a row of tokens. Mask[i] says that token i is to be learned, or scored:
// its log-probability given the tokens before it counts.
type Example struct {
	Tokens []int32
	Mask   []bool
}

// check reports why a row cannot be used with a model of the given context.
func (e Example) check(context int) error {
	if len(e.Mask) != len(e.Tokens) {
		return fmt.Errorf("%d mask values for %d tokens", len(e.Mask), len(e.Tokens))
	}
	if len(e.Tokens) > context {
		return fmt.Errorf("%d tokens exceed the model's context of %d; drop the row or whole early turns", len(e.Tokens), context)
	}
	any := false
	for _, m := range e.Mask {
		any = any || m
	}
	if !any {
		return errors.New("the mask selects no token, so the row would teach nothing; drop it")
	}
	if e.Mask[0] {
		return errors.New("the mask selects the first token, which has nothing before it to be predicted from")
	}
	return nil
}

// span is a range [from, to) of examples that share a forward pass.
type span struct{ from, to int }

// spans cuts examples into passes of at most limit tokens, in order and as few and even
// as may be: an even cut needs less memory than a full pass and a small rest, and keeps
// all threads busy. group examples (a pair) stay together; a group above the limit has a
// span of its own.
func spans(ex []Example, group, limit int) []span {
	list, total := cut(ex, group, limit)
	if len(list) < 2 {
		return list
	}
	for even := (total + len(list) - 1) / len(list); even < limit; even += 1 + limit/64 {
		if l, _ := cut(ex, group, even); len(l) == len(list) {
			return l
		}
	}
	return list
}

// cut fills one span after the other, and counts all tokens.
func cut(ex []Example, group, limit int) (list []span, total int) {
	used := 0
	for i := 0; i < len(ex); i += group {
		size := 0
		for _, e := range ex[i : i+group] {
			size += len(e.Tokens)
		}
		if len(list) == 0 || used+size > limit {
			list, used = append(list, span{i, i}), 0
		}
		list[len(list)-1].to, used, total = i+group, used+size, total+size
	}
	return list, total
}

// scoringSpans are the spans of rows that are only scored. Rows that for the most part begin
// as the one before, such as answers after one long prompt, cost little more than what they
// do not share, so many of them fit a pass: its bound is on what is computed beside that beginning.
func scoringSpans(ex []Example, limit int) []span {
	own := make([]int, len(ex)+1) // tokens that row i does not share with the one before; large: it shares little
	any := false
	for i, e := range ex {
		own[i] = len(e.Tokens)
		if i > 0 {
			if n := own[i] - common(ex[i-1].Tokens, e.Tokens); n < own[i]/2 {
				own[i], any = n, true
			}
		}
	}
	if !any {
		return spans(ex, 1, limit)
	}
	var list []span
	computed, unfolded := 0, 0
	for i, e := range ex {
		n := len(e.Tokens)
		if len(list) == 0 || computed+own[i] > limit || unfolded+n > maxUnfolded*limit {
			list, computed, unfolded = append(list, span{i, i}), n, 0
			if i+1 < len(ex) && own[i+1] < len(ex[i+1].Tokens) {
				computed = 0 // the beginning that the next rows share
			}
		} else {
			computed += own[i]
		}
		list[len(list)-1].to, unfolded = i+1, unfolded+n
	}
	return list
}

// maxUnfolded times the limit of a pass is the most tokens, shared ones counted for each of
// their rows, that attention sees at once: 4 kB each in a small model.
const maxUnfolded = 32

// packed is one forward pass: rows side by side and their scored positions. Row i
// owns positions[starts[i]:starts[i+1]].
type packed struct {
	rows      transformer.Rows
	positions []int32
	starts    []int
}

// fill packs examples, reusing the storage of earlier calls. Where share is set, example
// i computes the beginning it has in common with the one before together with it.
func (p *packed) fill(ex []Example, share func(i int) bool) {
	p.rows.Tokens, p.rows.Offsets, p.rows.Shared = p.rows.Tokens[:0], append(p.rows.Offsets[:0], 0), p.rows.Shared[:0]
	p.positions, p.starts = p.positions[:0], append(p.starts[:0], 0)
	for i, e := range ex {
		shared := 0
		if i > 0 && share(i) {
			shared = common(ex[i-1].Tokens, e.Tokens)
		}
		p.rows.Shared = append(p.rows.Shared, int32(shared))
		at := len(p.rows.Tokens)
		p.rows.Tokens = append(p.rows.Tokens, e.Tokens...)
		p.rows.Offsets = append(p.rows.Offsets, int32(len(p.rows.Tokens)))
		for k, m := range e.Mask {
			if m {
				p.positions = append(p.positions, int32(at+k-1))
			}
		}
		p.starts = append(p.starts, len(p.positions))
	}
}

// common counts the tokens at which two rows begin alike, leaving one to the second.
func common(a, b []int32) int {
	n := 0
	for n < len(a) && n < len(b)-1 && a[n] == b[n] {
		n++
	}
	return n
}

func always(int) bool { return true }
func never(int) bool  { return false }

// of returns the log-probs of row i's scored tokens.
func (p *packed) of(logprobs []float32, i int) []float32 {
	return logprobs[p.starts[i]:p.starts[i+1]]
}

// Total adds log-probs in order, in float64.
func Total(logprobs []float32) float64 {
	var s float64
	for _, v := range logprobs {
		s += float64(v)
	}
	return s
}

// TokenLogProbs returns, for each example, the log-probs of its masked tokens. It is the
// same forward pass as training, so reference scores taken here equal the policy's at
// step 0 bit for bit. A score that is not finite is a *ScoreError. How rows are packed changes nothing. Neighbours that begin alike,
// such as the two answers of a pair, are cheaper.
func TokenLogProbs(m *transformer.Model, ws *transformer.Workspace, ex []Example, stack []*transformer.Adapter) ([][]float32, error) {
	for i, e := range ex {
		if err := e.check(m.Context); err != nil {
			return nil, fmt.Errorf("train: score: row %d: %w", i, err)
		}
	}
	out := make([][]float32, len(ex))
	var p packed
	for _, s := range scoringSpans(ex, DefaultMicroTokens) {
		p.fill(ex[s.from:s.to], always)
		logprobs, err := m.LogProbs(ws, p.rows, p.positions, stack)
		if err != nil {
			return nil, fmt.Errorf("train: score: rows %d to %d: %w", s.from, s.to-1, err)
		}
		for i := s.from; i < s.to; i++ {
			out[i] = p.of(logprobs, i-s.from)
			if sum := Total(out[i]); !finite(sum) {
				return nil, &ScoreError{Row: i, Value: sum}
			}
		}
	}
	return out, nil
}

// ScoreError says that an example's log-prob is not a finite number: weights or an adapter
// are damaged, or training diverged. errors.Is finds ErrNonFinite in it.
type ScoreError struct {
	Row   int // index of the example
	Value float64
}

func (e *ScoreError) Error() string {
	return fmt.Sprintf("train: score: the log-prob of row %d is %v, %v; the model's weights or an adapter are damaged, or its training diverged", e.Row, e.Value, ErrNonFinite)
}

// Unwrap gives ErrNonFinite.
func (e *ScoreError) Unwrap() error { return ErrNonFinite }

// SumLogProbs returns, for each example, the sum of TokenLogProbs and their number, summed
// as training sums them.
func SumLogProbs(m *transformer.Model, ws *transformer.Workspace, ex []Example, stack []*transformer.Adapter) (sums []float64, counts []int, err error) {
	logprobs, err := TokenLogProbs(m, ws, ex, stack)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range logprobs {
		sums, counts = append(sums, Total(l)), append(counts, len(l))
	}
	return sums, counts, nil
}
