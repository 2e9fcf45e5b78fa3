package workflows

import (
	"errors"
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/store"
)

// GenerateIntrospection samples reflections and interactions from the DPO model until the targets of passing rows are met.
func GenerateIntrospection(ctx workflow.Context, input Input) (activities.Stage, error) {
	in, err := stageInput(input)
	if err != nil {
		return activities.Stage{}, err
	}
	if in.DPO == nil || in.DPO.Adapter == nil {
		return activities.Stage{}, badInput(errors.New("GenerateIntrospection: the model reflects after DPO; give the dpo stage's result as dpo"))
	}
	s, err := begin(ctx, in, activities.KindIntrospection, "rows")
	if err != nil {
		return activities.Stage{}, err
	}
	b, adapters := s.brief, []activities.AdapterRef{*in.DPO.Adapter}
	key, have, err := s.find(ctx, activities.KindIntrospection, nil, adapters)
	if err != nil || have != nil {
		return deref(have), err
	}
	if b.OwnIntrospection {
		return s.imported(ctx, data.ImportIntrospection, key)
	}
	s.Total = int64(b.Reflections + b.Interactions)
	s.tell(ctx)
	all := map[string]*Work{}
	// sampled makes one kind of rows and returns its chain.
	sampled := func(kind, what string, target int, run any) (*store.Ref, error) {
		if target == 0 {
			return nil, nil
		}
		w, err := s.work(ctx, in, kind)
		if err != nil {
			return nil, err
		}
		all[kind] = w
		before := s.Kept - min(w.Kept, int64(target))
		err = s.chunks(ctx, w, target, b.Chunk, s.lanes, func(ctx workflow.Context, p *piece) error {
			step := fmt.Sprintf("%s %d to %d", what, p.from, p.to)
			s.doing(ctx, step)
			var o activities.ChunkOutput
			err := workflow.ExecuteActivity(onEngine(ctx, step), run,
				activities.ChunkInput{Plan: b.Plan, Role: kind, Prompts: w.Set.Index, From: p.from, To: p.to, Adapters: adapters, Previous: w.previous(p, 0)}).Get(ctx, &o)
			if err != nil {
				return err
			}
			s.heardOf(&s.engines, o)
			p.nodes, p.tried, p.kept = []store.Ref{o.Chain}, o.Rows, o.Kept
			s.count(ctx, prefixed(kind+": ", o))
			s.Kept = min(s.Kept+o.Kept, before+int64(target))
			s.Done = s.Kept
			s.tell(ctx)
			return nil
		})
		if errors.Is(err, errLong) {
			return nil, s.goOn(ctx, in, GenerateIntrospection, Continued{Work: all})
		}
		if err != nil || len(w.Chains) == 0 {
			return nil, err
		}
		return ref(w.Chains[0]), nil
	}
	reflections, err := sampled("reflection", "reflections", b.Reflections, engine.Generate)
	if err != nil {
		return activities.Stage{}, err
	}
	interactions, err := sampled("interaction", "interactions", b.Interactions, engine.Converse)
	if err != nil {
		return activities.Stage{}, err
	}
	s.Step = "join"
	var st activities.Stage
	err = workflow.ExecuteActivity(onData(ctx, "join the introspection rows"), data.JoinIntrospection,
		activities.JoinIntrospectionInput{Plan: b.Plan, Key: key, Reflections: reflections, Interactions: interactions}).Get(ctx, &st)
	if err != nil {
		return activities.Stage{}, err
	}
	return s.finish(ctx, st)
}
