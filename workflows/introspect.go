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
	// sampled makes one kind of rows and returns its chain.
	sampled := func(kind, what string, target int, run any) (*store.Ref, error) {
		if target == 0 {
			return nil, nil
		}
		var set activities.PromptSet
		if err := workflow.ExecuteActivity(onData(ctx, "write the "+kind+" prompts"), data.MakePrompts, activities.MakePromptsInput{Plan: b.Plan, Kind: kind}).Get(ctx, &set); err != nil {
			return nil, err
		}
		var last *store.Ref
		before := s.Kept
		err := s.chunks(ctx, set.Count, target, b.Chunk, func(ctx workflow.Context, from, to int) (int64, int64, error) {
			s.Step = fmt.Sprintf("%s %d to %d", what, from, to)
			s.tell(ctx)
			var o activities.ChunkOutput
			err := workflow.ExecuteActivity(onEngine(ctx, s.Step), run,
				activities.ChunkInput{Plan: b.Plan, Role: kind, Prompts: set.Index, From: from, To: to, Adapters: adapters, Previous: last}).Get(ctx, &o)
			if err != nil {
				return 0, 0, err
			}
			last = ref(o.Chain)
			s.count(ctx, prefixed(kind+": ", o))
			s.Kept = min(s.Kept+o.Kept, before+int64(target))
			s.Done = s.Kept
			return o.Kept, o.Rows, nil
		})
		return last, err
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
