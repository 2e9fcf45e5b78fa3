package workflows

import (
	"errors"
	"fmt"
	"math"
	"strings"

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
	adapters := []activities.AdapterRef{*in.DPO.Adapter}
	key, have, err := s.find(ctx, activities.KindIntrospection, nil, adapters)
	if err != nil || have != nil {
		return deref(have), err
	}
	if s.brief.OwnIntrospection {
		return s.imported(ctx, data.ImportIntrospection, key)
	}
	r := &introspection{stage: s, in: in, adapters: adapters}
	r.kinds = []*talking{
		{name: "reflection", what: "reflections", run: engine.Generate, target: func() int { return s.brief.Reflections }},
		{name: "interaction", what: "interactions", run: engine.Converse, target: func() int { return s.brief.Interactions }},
	}
	s.limits = r.limits()
	s.rows = func() activities.Rows {
		return activities.Rows{Reflections: r.kinds[0].chain(), Interactions: r.kinds[1].chain()}
	}
	s.Total = int64(s.brief.Reflections + s.brief.Interactions)
	s.tell(ctx)
	for seen := -1; seen != s.version && !s.finish; { // an adjustment may want more of a kind that was complete
		seen = s.version
		for _, k := range r.kinds {
			if err := r.sample(ctx, k); err != nil {
				return activities.Stage{}, err
			}
		}
	}
	if s.finish {
		if err := s.early(ctx, r.whole()); err != nil {
			return activities.Stage{}, err
		}
	}
	s.close(ending)
	if key, have, err = s.again(ctx, key, activities.KindIntrospection, nil, adapters); err != nil || have != nil {
		return deref(have), err
	}
	s.Step = "join"
	var st activities.Stage
	err = workflow.ExecuteActivity(onData(ctx, "join the introspection rows"), data.JoinIntrospection,
		activities.JoinIntrospectionInput{Plan: s.brief.Plan, Key: key, Reflections: r.kinds[0].chain(), Interactions: r.kinds[1].chain()}).Get(ctx, &st)
	if err != nil {
		return activities.Stage{}, err
	}
	return s.commit(ctx, st)
}

// introspection is the stage with its two kinds of rows.
type introspection struct {
	*stage
	in       StageInput
	adapters []activities.AdapterRef
	kinds    []*talking
}

// talking is one kind of rows.
type talking struct {
	name, what string
	run        any
	target     func() int
	work       *Work // nil = not begun
}

// kept is how many rows count: those beyond the target do not.
func (k *talking) kept() int64 {
	if k.work == nil {
		return 0
	}
	return min(k.work.Kept, int64(k.target()))
}

func (k *talking) chain() *store.Ref {
	if k.work == nil || k.target() == 0 || len(k.work.Chains) == 0 {
		return nil
	}
	return ref(k.work.Chains[0])
}

// sample makes rows of one kind until its target is met.
func (r *introspection) sample(ctx workflow.Context, k *talking) error {
	if k.target() == 0 || r.finish {
		return nil
	}
	if k.work == nil {
		w, err := r.stage.work(ctx, r.in, k.name)
		if err != nil {
			return err
		}
		k.work = w
	}
	w := k.work
	refresh := func(ctx workflow.Context) error { return r.prompts(ctx, w, k.name) }
	others := func() (n int64) {
		for _, o := range r.kinds {
			if o != k {
				n += o.kept()
			}
		}
		return n
	}
	err := r.chunks(ctx, w, k.target, func() int { return r.brief.Chunk }, r.lanes, refresh, func(ctx workflow.Context, p *piece) error {
		step := fmt.Sprintf("%s %d to %d", k.what, p.from, p.to)
		r.doing(ctx, step)
		var o activities.ChunkOutput
		err := workflow.ExecuteActivity(onEngine(ctx, step), k.run,
			activities.ChunkInput{Plan: r.brief.Plan, Role: k.name, Prompts: w.Set.Index, From: p.from, To: p.to, Adapters: r.adapters, Previous: w.previous(p, 0)}).Get(ctx, &o)
		if err != nil {
			return err
		}
		r.heardOf(&r.engines, o)
		p.nodes, p.tried, p.kept = []store.Ref{o.Chain}, o.Rows, o.Kept
		r.count(ctx, prefixed(k.name+": ", o))
		r.Kept = min(r.Kept+o.Kept, others()+int64(k.target()))
		r.Done = r.Kept
		r.tell(ctx)
		return nil
	})
	if errors.Is(err, errLong) {
		all := map[string]*Work{}
		for _, k := range r.kinds {
			if k.work != nil {
				all[k.name] = k.work
			}
		}
		return r.goOn(ctx, r.in, GenerateIntrospection, Continued{Work: all})
	}
	return err
}

// limits are what can still change of the stage.
func (r *introspection) limits() limits {
	return limits{
		adjust: func(a ask) error {
			for i, tries := range []int{a.Sizes.ReflectionTries, a.Sizes.InteractionTries} {
				if k := r.kinds[i]; k.work != nil && k.work.begun > tries && tries > 0 {
					return fmt.Errorf("%d prompts are tried for %s already, and with these values only %d may be: raise introspection.oversample too", k.work.begun, k.what, tries)
				}
			}
			return nil
		},
		adjusted: func() {
			r.Total, r.Kept = int64(r.brief.Reflections+r.brief.Interactions), 0
			for _, k := range r.kinds {
				r.Kept += k.kept()
			}
			r.Done = r.Kept
		},
		enough: func(z activities.Sizes) error {
			var lacks []string
			for _, k := range r.kinds {
				if floor := z.MinShare * float64(k.target()); float64(k.kept()) < floor {
					lacks = append(lacks, fmt.Sprintf("%d of at least %.0f %s", k.kept(), floor, k.what))
				}
			}
			if len(lacks) > 0 {
				return fmt.Errorf("introspection cannot end: it has %s (introspection.min_share %g of the targets); wait, or adjust the targets or min_share", strings.Join(lacks, " and "), z.MinShare)
			}
			if r.kinds[0].kept()+r.kinds[1].kept() == 0 {
				return errors.New("introspection cannot end: no row is kept yet")
			}
			return nil
		},
	}
}

// whole are the changes of the spec that make what is there the whole: a run with that spec would try as many prompts.
func (r *introspection) whole() map[string]any {
	over := r.sizes.Oversample
	for _, k := range r.kinds {
		if n := k.kept(); n > 0 && int64(k.work.begun) > n+16 {
			over = max(over, math.Ceil(1000*float64(k.work.begun)/float64(n))/1000)
		}
	}
	return map[string]any{"introspection.reflections": r.kinds[0].kept(), "introspection.interactions": r.kinds[1].kept(), "introspection.oversample": min(over, 100)}
}
