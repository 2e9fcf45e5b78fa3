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
	key, have, err := s.find(ctx, activities.KindPreferences, nil, nil)
	if err != nil || have != nil {
		return deref(have), err
	}
	if s.brief.OwnPairs {
		return s.imported(ctx, data.ImportPairs, key)
	}
	s.Total, s.Step = int64(s.brief.Pairs), "prompts"
	s.tell(ctx)
	teaches := s.brief.Teacher
	w, err := s.work(ctx, in, activities.KindPreferences)
	if err != nil {
		return activities.Stage{}, err
	}
	s.limits = limits{
		adjusted: func() { s.Total = int64(s.brief.Pairs); s.Done = min(s.Kept, s.Total) },
		enough: func(z activities.Sizes) error {
			if w.Kept < int64(z.MinPairs) {
				return fmt.Errorf("preferences cannot end: %d pairs are kept and preferences.min_pairs is %d, so %d are missing; wait, or adjust preferences.min_pairs", w.Kept, z.MinPairs, int64(z.MinPairs)-w.Kept)
			}
			return nil
		},
	}
	s.rows = func() (r activities.Rows) {
		if len(w.Chains) == 2 {
			r.Chosen, r.Rejected = ref(w.Chains[0]), ref(w.Chains[1])
		}
		return r
	}
	target, size := func() int { return s.brief.Pairs }, func() int { return s.brief.PairChunk }
	refresh := func(ctx workflow.Context) error { return s.prompts(ctx, w, activities.KindPreferences) }
	err = s.chunks(ctx, w, target, size, s.lanes, refresh, func(ctx workflow.Context, p *piece) error {
		what := fmt.Sprintf("teacher answers prompts %d to %d", p.from, p.to)
		s.doing(ctx, what)
		in := activities.ChunkInput{Plan: s.brief.Plan, Role: activities.RoleTeacher, Prompts: w.Set.Index, From: p.from, To: p.to, Previous: w.previous(p, 0)}
		var t, u activities.ChunkOutput
		var err error
		if teaches == "local" {
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
	if s.finish {
		if err := s.early(ctx, map[string]any{"preferences.pairs": min(w.Kept, int64(s.brief.Pairs))}); err != nil {
			return activities.Stage{}, err
		}
	}
	s.close(ending)
	if key, have, err = s.again(ctx, key, activities.KindPreferences, nil, nil); err != nil || have != nil {
		return deref(have), err
	}
	var chosen, rejected *store.Ref // none, where there was no prompt
	if len(w.Chains) == 2 {
		chosen, rejected = ref(w.Chains[0]), ref(w.Chains[1])
	}
	s.Step = "join"
	var st activities.Stage
	if err := workflow.ExecuteActivity(onData(ctx, "join the pairs"), data.JoinPairs, activities.JoinPairsInput{Plan: s.brief.Plan, Key: key, Teacher: chosen, Student: rejected}).Get(ctx, &st); err != nil {
		return activities.Stage{}, err
	}
	return s.commit(ctx, st)
}

// work is how far the rows of a kind are: at the beginning, with their prompts written, or where the history before ended.
func (s *stage) work(ctx workflow.Context, in StageInput, kind string) (*Work, error) {
	var w *Work
	if c := in.Continued; c != nil {
		w = c.Work[kind]
	}
	if w == nil {
		w = &Work{}
		if err := s.prompts(ctx, w, kind); err != nil {
			return nil, err
		}
	} else if w.Plan == "" { // of a release that did not say so: no plan was adjusted
		w.Plan = in.Brief.Plan.Key
	}
	s.started(w.Set)
	return w, nil
}

// prompts writes the table of prompts of the present plan. What is tried already stays: the table of a larger plan begins
// with that of a smaller one.
func (s *stage) prompts(ctx workflow.Context, w *Work, kind string) error {
	plan := s.brief.Plan
	var set activities.PromptSet // not into w before it is whole: a running piece reads it
	if err := workflow.ExecuteActivity(onData(ctx, "write the "+kind+" prompts"), data.MakePrompts, activities.MakePromptsInput{Plan: plan, Kind: kind}).Get(ctx, &set); err != nil {
		return err
	}
	w.Set, w.Plan = set, plan.Key
	return nil
}

// imported takes the user's rows instead of generated ones.
func (s *stage) imported(ctx workflow.Context, activity any, key string) (activities.Stage, error) {
	s.close("takes the rows of your file and ends by itself")
	s.Step = "import"
	s.tell(ctx)
	var st activities.Stage
	if err := workflow.ExecuteActivity(onData(ctx, "import the rows of your file"), activity, activities.ImportInput{Plan: s.brief.Plan, Key: key}).Get(ctx, &st); err != nil {
		return activities.Stage{}, err
	}
	s.Total, s.Done, s.Kept, s.Rows, s.Dropped = st.Kept, st.Kept, st.Kept, st.Rows, st.Dropped
	return s.commit(ctx, st)
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
