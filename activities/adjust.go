package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
)

// AdjustInput is a change of a run's spec while the run goes on.
type AdjustInput struct {
	Plan store.Ref `json:"plan"`
	// Changes are fields and their new values; none = only tell the sizes.
	Changes json.RawMessage `json:"changes,omitempty"`
	// Stages says how far each part is; those left out have not begun.
	Stages map[string]spec.Phase `json:"stages,omitempty"`
}

// AdjustOutput is the run's new plan.
type AdjustOutput struct {
	Brief   Brief         `json:"brief"`
	Changes []spec.Change `json:"changes,omitempty"`
	Sizes   Sizes         `json:"sizes"`
}

// Sizes are the numbers of a plan by which a stage that is under way judges what can still change.
type Sizes struct {
	MinPairs int `json:"min_pairs"`
	// Tries are how many prompts may be tried for the targets of introspection.
	ReflectionTries  int     `json:"reflection_tries"`
	InteractionTries int     `json:"interaction_tries"`
	Oversample       float64 `json:"oversample"`
	MinShare         float64 `json:"min_share"`
	DPOSteps         int     `json:"dpo_steps"` // 0 = all
	SFTSteps         int     `json:"sft_steps"`
}

// AdjustSpec lays changes over a plan's spec and stores the result as a plan of its own. The plan's pins (models, files,
// kernels) stay: what they follow from cannot be adjusted.
func (d *Data) AdjustSpec(ctx context.Context, in AdjustInput) (AdjustOutput, error) {
	p, err := getPlan(ctx, d.Store, in.Plan)
	if err != nil {
		return AdjustOutput{}, err
	}
	var out AdjustOutput
	if len(in.Changes) > 0 {
		list, err := spec.ParseAdjust(in.Changes)
		if err != nil {
			return out, fatal(BadInput, err)
		}
		if p.Spec, out.Changes, err = p.Spec.Adjust(list, func(part string) spec.Phase { return in.Stages[part] }); err != nil {
			return out, fatal(BadInput, err)
		}
		if err := p.Spec.CheckReferences(); err != nil {
			return out, fatal(BadInput, err)
		}
		if own, err := d.Own.pin(p.Spec); err != nil {
			return out, fatal(BadInput, err)
		} else {
			p.Own = repin(p.Own, own)
		}
	}
	if out.Brief, err = brief(ctx, d, p); err != nil {
		return AdjustOutput{}, err
	}
	i := p.Spec.Introspection
	out.Sizes = Sizes{MinPairs: p.Spec.Preferences.MinPairs, ReflectionTries: limit(i.Reflections, i.Oversample), InteractionTries: limit(i.Interactions, i.Oversample),
		Oversample: i.Oversample, MinShare: i.MinShare, DPOSteps: p.Spec.DPO.Steps, SFTSteps: p.Spec.SFT.Steps}
	return out, nil
}

// brief stores a plan, with its spec as an object of its own, and says what workflows need of it.
func brief(ctx context.Context, d *Data, p Plan) (Brief, error) {
	s := p.Spec
	out := Brief{Constitution: p.Name, Preset: s.Preset, Model: s.Model, Teacher: s.Teacher, Pairs: s.Preferences.Pairs, PairChunk: s.Preferences.Chunk,
		Reflections: s.Introspection.Reflections, Interactions: s.Introspection.Interactions, Chunk: s.Introspection.Chunk, OwnPairs: p.Pairs != nil, OwnIntrospection: p.Talks != nil, SegmentSeconds: max(s.DPO.SegmentSeconds, s.SFT.SegmentSeconds)}
	var err error
	if out.Plan, err = putJSON(ctx, d.Store, "plans", p); err != nil {
		return Brief{}, err
	}
	full, err := s.Full()
	if err != nil {
		return Brief{}, fmt.Errorf("the resolved spec: %w", err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, append(full, '\n'), "", "  "); err != nil {
		return Brief{}, fmt.Errorf("the resolved spec: %w", err)
	}
	r, err := d.Store.Put(ctx, "specs", ".json", b.Bytes())
	if err != nil {
		return Brief{}, err
	}
	out.Spec, out.Report = r.Key, d.Report
	if d.Attributes != nil {
		if out.Attributes, err = d.Attributes(ctx); err != nil {
			return Brief{}, fmt.Errorf("list search attributes: %w", err)
		}
	}
	return out, nil
}

// scored are the held-out answers that are scored.
func scored[T any](p Plan, held []T) []T {
	if n := p.Spec.Evaluation.Scored; n > 0 && n < len(held) {
		return held[:n]
	}
	return held
}

// steps is how many steps of its schedule a training makes.
func steps(t spec.Training, all int) int {
	if t.Steps > 0 {
		return min(t.Steps, all)
	}
	return all
}
