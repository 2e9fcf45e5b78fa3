package workflows

import (
	"errors"
	"fmt"
	"slices"

	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/store"
)

// referenceChunk is how many pairs one reference activity scores: some tens of seconds on a laptop.
const referenceChunk = 128

// workReference names the scoring of a training's pairs in [Continued].
const workReference = "reference"

// TrainAdapter trains one adapter: kind dpo on preference pairs, kind sft on introspection on top of the frozen DPO
// adapter. Each segment is an activity that ends in a committed checkpoint.
func TrainAdapter(ctx workflow.Context, input Input) (activities.Stage, error) {
	in, err := stageInput(input)
	if err != nil {
		return activities.Stage{}, err
	}
	var source *activities.Stage
	var frozen []activities.AdapterRef
	switch in.Kind {
	case activities.KindDPO:
		source = in.Preferences
	case activities.KindSFT:
		source = in.Introspection
		if in.DPO == nil || in.DPO.Adapter == nil {
			return activities.Stage{}, badInput(errors.New("TrainAdapter: kind sft trains on top of a DPO adapter; give the dpo stage's result as dpo"))
		}
		frozen = []activities.AdapterRef{*in.DPO.Adapter}
	default:
		return activities.Stage{}, badInput(fmt.Errorf("TrainAdapter: kind %q is not dpo or sft", in.Kind))
	}
	if source == nil || len(source.Parts) == 0 {
		return activities.Stage{}, badInput(fmt.Errorf("TrainAdapter: kind %s needs a data set; give the earlier stage's result as preferences (dpo) or introspection (sft)", in.Kind))
	}
	s, err := begin(ctx, in, in.Kind, "steps")
	if err != nil {
		return activities.Stage{}, err
	}
	var hashes []string // the rows themselves, not the stage that made them: equal rows train equally
	for _, p := range source.Parts {
		hashes = append(hashes, p.SHA256)
	}
	key, have, err := s.find(ctx, in.Kind, hashes, frozen)
	if err != nil || have != nil {
		return deref(have), err
	}
	// The checkpoints keep the name that the stage had when it began, also when an adjustment gives it another key.
	t := activities.TrainInput{Plan: s.brief.Plan, Kind: in.Kind, Key: key, Data: source.Parts, Frozen: frozen}
	if in.Continued != nil && in.Continued.Stream != "" {
		t.Key = in.Continued.Stream
	}
	s.limits = s.trainingLimits()
	s.rows = func() activities.Rows { return activities.Rows{Training: t.Key} }
	s.Step = "tokenise"
	s.tell(ctx)
	var prep activities.PrepareOutput
	if err := workflow.ExecuteActivity(onEngine(ctx, "tokenise and check the rows"), engine.PrepareTraining, t).Get(ctx, &prep); err != nil {
		return activities.Stage{}, err
	}
	s.Total, s.Kept, s.Rows, s.Dropped = int64(prep.Steps), int64(prep.Kept), source.Kept, prep.Dropped
	scored := &Work{Set: activities.PromptSet{Count: prep.Rows, Engines: prep.Lanes}}
	if c := in.Continued; c != nil {
		t.Reference = c.Reference
		if w := c.Work[workReference]; w != nil {
			scored = w
		}
	} else if prep.EarlyMessages > 0 {
		s.Said = append(s.Said, fmt.Sprintf("%s: %d early messages of conversations longer than %s.max_length are left out", in.Kind, prep.EarlyMessages, in.Kind))
	}
	if in.Kind == activities.KindDPO && t.Reference == nil {
		t.Reference, err = s.reference(ctx, t, scored)
		if errors.Is(err, errLong) {
			return activities.Stage{}, s.goOn(ctx, in, TrainAdapter, Continued{Stream: t.Key, Work: map[string]*Work{workReference: scored}})
		}
		if err != nil {
			return activities.Stage{}, err
		}
	}
	out, err := s.segments(ctx, t, in)
	if err != nil {
		return activities.Stage{}, err
	}
	if key, have, err = s.again(ctx, key, in.Kind, hashes, frozen); err != nil || have != nil {
		return deref(have), err
	}
	return s.commit(ctx, activities.Stage{Kind: in.Kind, Key: key, Rows: source.Kept, Kept: int64(prep.Kept), Dropped: prep.Dropped,
		Adapter: out.Adapter, Metrics: out.Metrics, Timings: out.Timings, Values: out.Values})
}

// reference scores all pairs once under the frozen model, on as many workers as there are.
func (s *stage) reference(ctx workflow.Context, t activities.TrainInput, w *Work) (*store.Ref, error) {
	s.engines = w.Set.Engines
	count, size := func() int { return w.Set.Count }, func() int { return referenceChunk }
	err := s.chunks(ctx, w, count, size, s.lanes, nil, func(ctx workflow.Context, p *piece) error {
		t := t
		t.From, t.To, t.Previous = p.from, p.to, w.previous(p, 0)
		what := fmt.Sprintf("reference log-probs of pairs %d to %d", t.From, t.To)
		s.doing(ctx, what)
		var o activities.ChunkOutput
		if err := workflow.ExecuteActivity(onEngine(ctx, what), engine.ReferenceLogProbs, t).Get(ctx, &o); err != nil {
			return err
		}
		s.heardOf(&s.engines, o)
		p.nodes, p.tried, p.kept = []store.Ref{o.Chain}, o.Rows, o.Kept
		return nil
	})
	if err != nil || len(w.Chains) == 0 {
		return nil, err
	}
	return ref(w.Chains[0]), nil
}

func (s *stage) segments(ctx workflow.Context, t activities.TrainInput, in StageInput) (activities.SegmentOutput, error) {
	for {
		if room(ctx) < 0 {
			return activities.SegmentOutput{}, s.goOn(ctx, in, TrainAdapter, Continued{Stream: t.Key, Reference: t.Reference})
		}
		if err := s.gate(ctx); err != nil {
			return activities.SegmentOutput{}, err
		}
		if s.finish && s.closing == "" { // one more segment, of no steps, hands over what the last one committed
			if err := s.early(ctx, map[string]any{t.Kind + ".steps": s.Done}); err != nil {
				return activities.SegmentOutput{}, err
			}
		}
		t.Plan = s.brief.Plan
		seen := s.version
		s.Step = fmt.Sprintf("train from step %d", s.Done)
		s.tell(ctx)
		var o activities.SegmentOutput
		s.training = true
		if err := workflow.ExecuteActivity(onEngine(ctx, t.Kind+": "+s.Step), engine.TrainSegment, t).Get(ctx, &o); err != nil {
			return o, err
		}
		s.training = false
		s.Done, s.Total, s.Values = int64(o.Step), int64(o.Total), o.Values
		s.Tokens += o.Tokens
		if o.Changed != "" && !slices.Contains(s.Said, o.Changed) {
			s.Said = append(s.Said, o.Changed)
		}
		if o.Done && seen == s.version { // an early end that was asked for meanwhile has come to nothing
			s.close("has made its last step and ends by itself")
			return o, nil
		}
	}
}
