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
		var rows []dataset.Reference
		for i := in.From; i < to; i += referenceBatch {
			if ctx.Err() != nil {
				return out, context.Cause(ctx)
			}
			var ex []train.Example
			batch := r.pairs[i:min(i+referenceBatch, to)]
			for _, x := range batch {
				ex = append(ex, x.Chosen, x.Rejected)
			}
			each, err := train.TokenLogProbs(m.Model, e.workspace(), ex, frozen)
			if err != nil {
				return out, notFinite(err, "reference", func(j int) string { return batch[j/2].ID })
			}
			for j, x := range batch {
				c, r := each[2*j], each[2*j+1]
				row := dataset.Reference{ID: x.ID, Chosen: train.Total(c), Rejected: train.Total(r), ChosenTokens: len(c), RejectedTokens: len(r)}
				if p.Spec.DPO.KL != 0 {
					row.ChosenEach, row.RejectedEach = c, r
				}
				rows = append(rows, row)
				e.did(ctx, "reference", x.ID)
				out.Tokens += int64(len(x.Chosen.Tokens) + len(x.Rejected.Tokens))
			}
			live.set(func(l *Live) { l.Done = len(rows); l.Tokens = int(out.Tokens) })
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
	ref := map[string]dataset.Reference{}
	for _, n := range nodes {
		rows, err := dataset.ReadParts[dataset.Reference](ctx, s, []store.Ref{n.Part})
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			ref[r.ID] = r
		}
	}
	out := make([]train.Pair, len(pairs))
	for i, p := range pairs {
		r, ok := ref[p.ID]
		if !ok {
			return nil, fatal(StageFailed, fmt.Errorf("dpo: pair %s has no stored reference log-prob; reset the workflow to the reference step", p.ID))
		}
		p.RefChosen, p.RefRejected, p.RefTokens = r.Chosen, r.Rejected, [2][]float32{r.ChosenEach, r.RejectedEach}
		out[i] = p
	}
	return out, nil
}
