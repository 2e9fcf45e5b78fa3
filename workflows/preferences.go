package workflows

import (
	"errors"
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
	w, err := s.work(ctx, in, activities.KindPreferences)
	if err != nil {
		return activities.Stage{}, err
	}
	err = s.chunks(ctx, w, b.Pairs, b.PairChunk, s.lanes, func(ctx workflow.Context, p *piece) error {
		what := fmt.Sprintf("teacher answers prompts %d to %d", p.from, p.to)
		s.doing(ctx, what)
		in := activities.ChunkInput{Plan: b.Plan, Role: activities.RoleTeacher, Prompts: w.Set.Index, From: p.from, To: p.to, Previous: w.previous(p, 0)}
		var t, u activities.ChunkOutput
		var err error
		if b.Teacher == "local" {
			err = workflow.ExecuteActivity(onEngine(ctx, what), engine.Generate, in).Get(ctx, &t)
			s.heardOf(&s.engines, t)
		} else {
			err = workflow.ExecuteActivity(onTeacher(ctx, what), teacher.AskTeacher, in).Get(ctx, &t)
			s.heardOf(&s.teachers, t)
		}
		if err != nil {
			return err
		}
		what = fmt.Sprintf("student answers %d prompts", t.Kept)
		s.doing(ctx, what)
		in.Role, in.Only, in.Previous = activities.RoleStudent, ref(t.Chain), w.previous(p, 1)
		if err := workflow.ExecuteActivity(onEngine(ctx, what), engine.Generate, in).Get(ctx, &u); err != nil {
			return err
		}
		s.heardOf(&s.engines, u)
		p.nodes, p.tried, p.kept = []store.Ref{t.Chain, u.Chain}, t.Rows, u.Kept
		s.count(ctx, prefixed("chosen: ", t))
		u.Rows = 0 // the same rows, looked at twice
		s.count(ctx, prefixed("rejected: ", u))
		s.Kept += u.Kept
		s.Done = min(s.Kept, s.Total)
		s.tell(ctx)
		return nil
	})
	if errors.Is(err, errLong) {
		return activities.Stage{}, s.goOn(ctx, in, GeneratePreferences, Continued{Work: map[string]*Work{activities.KindPreferences: w}})
	}
	if err != nil {
		return activities.Stage{}, err
	}
	var chosen, rejected *store.Ref // none, where there was no prompt
	if len(w.Chains) == 2 {
		chosen, rejected = ref(w.Chains[0]), ref(w.Chains[1])
	}
	s.Step = "join"
	var st activities.Stage
	if err := workflow.ExecuteActivity(onData(ctx, "join the pairs"), data.JoinPairs, activities.JoinPairsInput{Plan: b.Plan, Key: key, Teacher: chosen, Student: rejected}).Get(ctx, &st); err != nil {
		return activities.Stage{}, err
	}
	return s.finish(ctx, st)
}

// work is how far the rows of a kind are: at the beginning, with their prompts written, or where the history before ended.
func (s *stage) work(ctx workflow.Context, in StageInput, kind string) (*Work, error) {
	var w *Work
	if c := in.Continued; c != nil {
		w = c.Work[kind]
	}
	if w == nil {
		w = &Work{}
		if err := workflow.ExecuteActivity(onData(ctx, "write the "+kind+" prompts"), data.MakePrompts, activities.MakePromptsInput{Plan: s.brief.Plan, Kind: kind}).Get(ctx, &w.Set); err != nil {
			return nil, err
		}
	}
	s.started(w.Set)
	return w, nil
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
