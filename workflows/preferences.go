package workflows

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/store"
)

// GeneratePreferences makes preference pairs: the teacher answers with the constitution, the student without.
func GeneratePreferences(ctx workflow.Context, input Input) (activities.Stage, error) {
	in, err := stageInput(input)
	if err != nil {
		return activities.Stage{}, err
	}
	s, err := begin(ctx, in, activities.KindPreferences, "pairs")
	if err != nil {
		return activities.Stage{}, err
	}
	b := s.brief
	key, have, err := s.find(ctx, activities.KindPreferences, nil, nil)
	if err != nil || have != nil {
		return deref(have), err
	}
	if b.OwnPairs {
		return s.imported(ctx, data.ImportPairs, key)
	}
	s.Total, s.Step = int64(b.Pairs), "prompts"
	s.tell(ctx)
	var set activities.PromptSet
	if err := workflow.ExecuteActivity(onData(ctx, "write the prompts"), data.MakePrompts, activities.MakePromptsInput{Plan: b.Plan, Kind: activities.KindPreferences}).Get(ctx, &set); err != nil {
		return activities.Stage{}, err
	}
	var chosen, rejected *store.Ref
	err = s.chunks(ctx, set.Count, b.Pairs, b.PairChunk, func(ctx workflow.Context, from, to int) (int64, int64, error) {
		s.Step = fmt.Sprintf("teacher answers prompts %d to %d", from, to)
		s.tell(ctx)
		in := activities.ChunkInput{Plan: b.Plan, Role: activities.RoleTeacher, Prompts: set.Index, From: from, To: to, Previous: chosen}
		var t, u activities.ChunkOutput
		var err error
		if b.Teacher == "local" {
			err = workflow.ExecuteActivity(onEngine(ctx, s.Step), engine.Generate, in).Get(ctx, &t)
		} else {
			err = workflow.ExecuteActivity(onTeacher(ctx, s.Step), teacher.AskTeacher, in).Get(ctx, &t)
		}
		if err != nil {
			return 0, 0, err
		}
		chosen = ref(t.Chain)
		s.Step = fmt.Sprintf("student answers %d prompts", t.Kept)
		s.tell(ctx)
		in.Role, in.Only, in.Previous = activities.RoleStudent, chosen, rejected
		if err := workflow.ExecuteActivity(onEngine(ctx, s.Step), engine.Generate, in).Get(ctx, &u); err != nil {
			return 0, 0, err
		}
		rejected = ref(u.Chain)
		s.count(ctx, prefixed("chosen: ", t))
		u.Rows = 0 // the same rows, looked at twice
		s.count(ctx, prefixed("rejected: ", u))
		s.Kept += u.Kept
		s.Done = min(s.Kept, s.Total)
		return u.Kept, t.Rows, nil
	})
	if err != nil {
		return activities.Stage{}, err
	}
	s.Step = "join"
	var st activities.Stage
	if err := workflow.ExecuteActivity(onData(ctx, "join the pairs"), data.JoinPairs, activities.JoinPairsInput{Plan: b.Plan, Key: key, Teacher: chosen, Student: rejected}).Get(ctx, &st); err != nil {
		return activities.Stage{}, err
	}
	return s.finish(ctx, st)
}

// imported takes the user's rows instead of generated ones.
func (s *stage) imported(ctx workflow.Context, activity any, key string) (activities.Stage, error) {
	s.Step = "import"
	s.tell(ctx)
	var st activities.Stage
	if err := workflow.ExecuteActivity(onData(ctx, "import the rows of your file"), activity, activities.ImportInput{Plan: s.brief.Plan, Key: key}).Get(ctx, &st); err != nil {
		return activities.Stage{}, err
	}
	s.Total, s.Done, s.Kept, s.Rows, s.Dropped = st.Kept, st.Kept, st.Kept, st.Rows, st.Dropped
	return s.finish(ctx, st)
}

// prefixed says in every drop reason which side it was.
func prefixed(p string, o activities.ChunkOutput) activities.ChunkOutput {
	d := map[string]int64{}
	for _, n := range sorted(o.Dropped) {
		d[p+n.name] = n.n
	}
	o.Dropped = d
	return o
}

func deref(s *activities.Stage) activities.Stage {
	if s == nil {
		return activities.Stage{}
	}
	return *s
}
