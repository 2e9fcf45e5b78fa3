package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/store"
)

// referenceBatch is how many pairs are scored between two looks at the context.
const referenceBatch = 8

// ReferenceLogProbs scores pairs [From, To) under the frozen stack and commits the sums. The reference is computed once,
// before training, by the same forward pass as the policy, so that the first step's loss is exactly ln 2.
func (e *Engine) ReferenceLogProbs(ctx context.Context, in TrainInput) (ChunkOutput, error) {
	var live progress
	return onDevice(ctx, e, &live, func(ctx context.Context) (out ChunkOutput, err error) {
		start := time.Now()
		p, err := getPlan(ctx, e.Store, in.Plan)
		if err != nil {
			return out, err
		}
		m, frozen, err := e.open(ctx, &live, p.Model, in.Frozen)
		if err != nil {
			return out, err
		}
		if out.Said, err = e.kernels(ctx, p, m); err != nil {
			return out, err
		}
		r, err := e.tokens(ctx, in, p, m)
		if err != nil {
			return out, err
		}
		to := min(in.To, len(r.pairs))
		live.set(func(l *Live) { l.Total = to - in.From })
		told := 0
		rows, err := References(ctx, p, m, e.workspace(), r.pairs[in.From:to], frozen, func(rows []dataset.Reference) {
			for _, x := range r.pairs[in.From+told : in.From+len(rows)] {
				e.did(ctx, "reference", x.ID)
				n := len(x.Chosen.Tokens) + len(x.Rejected.Tokens)
				out.Tokens += int64(n)
				e.meter().Scored("reference", n)
			}
			told = len(rows)
			live.set(func(l *Live) { l.Done = told; l.Tokens = int(out.Tokens) })
		})
		if err != nil {
			return out, err
		}
		parts, err := dataset.WriteParts(ctx, e.Store, "parts/reference", rows)
		if err != nil {
			return out, err
		}
		if len(parts) != 1 {
			return out, fmt.Errorf("activities: reference chunk of %d rows made %d parts", len(rows), len(parts))
		}
		out.Rows, out.Kept = int64(len(rows)), int64(len(rows))
		out.Chain, err = putJSON(ctx, e.Store, "parts/reference", chunk{Previous: in.Previous, Part: parts[0], From: in.From, To: to, Kept: out.Kept})
		out.Seconds, out.Lanes = time.Since(start).Seconds(), lanesOf(ctx, e.Lanes, EngineQueue)
		return out, err
	})
}

// withReference puts the stored sums into the pairs. Every pair must have its own.
func withReference(ctx context.Context, s *store.Store, last *store.Ref, pairs []train.Pair) ([]train.Pair, error) {
	nodes, err := chain(ctx, s, last)
	if err != nil {
		return nil, err
	}
	var rows []dataset.Reference
	for _, n := range nodes {
		more, err := dataset.ReadParts[dataset.Reference](ctx, s, []store.Ref{n.Part})
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return WithReference(pairs, rows)
}
