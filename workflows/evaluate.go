package workflows

import (
	"errors"
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
)

// EvaluateCharacter asks and scores base, DPO and final model without any constitution, side by side.
func EvaluateCharacter(ctx workflow.Context, input Input) (activities.Stage, error) {
	in, err := stageInput(input)
	if err != nil {
		return activities.Stage{}, err
	}
	if in.DPO == nil || in.DPO.Adapter == nil || in.SFT == nil || in.SFT.Adapter == nil {
		return activities.Stage{}, badInput(errors.New("EvaluateCharacter: give the results of the dpo and the sft stage as dpo and sft"))
	}
	s, err := begin(ctx, in, activities.KindEvaluation, "models")
	if err != nil {
		return activities.Stage{}, err
	}
	stacks := []activities.EvaluateInput{
		{Which: activities.WhichBase},
		{Which: activities.WhichDPO, Adapters: []activities.AdapterRef{*in.DPO.Adapter}},
		{Which: activities.WhichCharacter, Adapters: []activities.AdapterRef{*in.DPO.Adapter, *in.SFT.Adapter}},
	}
	key, have, err := s.find(ctx, activities.KindEvaluation, nil, stacks[2].Adapters)
	if err != nil || have != nil {
		return deref(have), err
	}
	s.Total = int64(len(stacks))
	s.limits.adjust = func(ask) error { return nil }
	s.limits.enough = func(activities.Sizes) error {
		return fmt.Errorf("evaluation cannot end early: it compares base, dpo and character, and %d of the 3 are measured; adjust evaluation.scored or evaluation.prompts before it begins", s.Done)
	}
	var outs [3]activities.EvaluateOutput
	for i, e := range stacks {
		if err := s.gate(ctx); err != nil {
			return activities.Stage{}, err
		}
		s.Step = "ask and score " + e.Which
		s.tell(ctx)
		e.Plan = s.brief.Plan
		if i > 0 {
			e.Plain = ref(outs[0].Result)
		}
		if err := workflow.ExecuteActivity(onEngine(ctx, s.Step), engine.EvaluateModel, e).Get(ctx, &outs[i]); err != nil {
			return activities.Stage{}, err
		}
		s.Done++
	}
	s.close(ending)
	var st activities.Stage
	err = workflow.ExecuteActivity(onData(ctx, "compare the models"), data.JoinEvaluation,
		activities.JoinEvaluationInput{Key: key, Base: outs[0].Result, DPO: outs[1].Result, Character: outs[2].Result}).Get(ctx, &st)
	if err != nil {
		return activities.Stage{}, err
	}
	return s.commit(ctx, st)
}
