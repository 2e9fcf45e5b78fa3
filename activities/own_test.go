//go:build !noserver

package activities

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/evaluation"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/teacher"
)

// parrot is a teacher of a program's own: it says the prompt again, in character.
type parrot struct {
	version string
	fails   error
}

func (parrot) Name() string                  { return "parrot" }
func (p parrot) Version() string             { return p.version }
func (p parrot) Check(context.Context) error { return p.fails }
func (p parrot) Complete(_ context.Context, r teacher.Request) (teacher.Response, error) {
	q := r.Messages[len(r.Messages)-1].Content
	if len(q)%3 == 0 {
		return teacher.Response{}, teacher.ErrRefused
	}
	return teacher.Response{Text: "Aye, " + q, Finish: "stop"}, nil
}

// long is a filter of a program's own: the prompt decides.
type long struct{ version string }

func (long) Name() string      { return "long" }
func (l long) Version() string { return l.version }
func (long) Check(a dataset.Answer) (string, string) {
	if a.Character != "captain" || a.Role == "" || a.Prompt == "" || a.Finish != "stop" {
		return a.Text, "not_told"
	}
	if a.Role == RoleTeacher && len(a.Prompt)%2 == 0 {
		return a.Text, "even"
	}
	return a.Text, ""
}

// resolve makes the plan of a spec with the program's own.
func (k *kit) resolve(own Own, set ...string) (store.Ref, error) {
	k.data.Own, k.engine.Own = own, own
	p, err := getPlan(k.t.Context(), k.store, k.plan)
	if err != nil {
		k.t.Fatal(err)
	}
	b, err := k.data.ResolveSpec(k.t.Context(), ResolveInput{Spec: k.spec(append([]string{"model", p.Spec.Model, "constitution", "captain"}, set...)...)})
	if err != nil {
		return store.Ref{}, err
	}
	out, err := try[InspectModelOutput](k, k.engine.InspectModel, InspectModelInput{Plan: b.Plan}, nil, nil)
	return out.Plan, err
}

func (k *kit) key(kind string, plan store.Ref) string {
	k.t.Helper()
	out, err := k.data.FindStage(k.t.Context(), FindStageInput{Kind: kind, Plan: plan})
	if err != nil {
		k.t.Fatal(err)
	}
	return out.Key
}

// TestOwnShapesKeys: what is the program's own, and its version, is a part of the keys of what it shapes, and of nothing
// else; without any the plan is what it was.
func TestOwnShapesKeys(t *testing.T) {
	k := newKit(t)
	own := func(teacher, filter string) Own {
		return Own{Teachers: []namedTeacher{parrot{version: teacher}}, Filters: []dataset.Filter{long{filter}}}
	}
	plan := func(o Own, set ...string) store.Ref {
		t.Helper()
		r, err := k.resolve(o, set...)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	plain := plan(Own{})
	if unused := plan(own("1", "1")); unused != plain {
		t.Error("what no spec names changes the plan")
	}
	if b, err := k.store.Get(t.Context(), plain); err != nil || strings.Contains(string(b), `"own"`) {
		t.Errorf("%s, %v", b, err)
	}
	base := map[string]string{KindPreferences: k.key(KindPreferences, plain), KindIntrospection: k.key(KindIntrospection, plain), KindDPO: k.key(KindDPO, plain)}
	taught, talks := []string{"teacher", "own:parrot"}, []string{"introspection.filter.own", `["long"]`}
	pairs := []string{"preferences.filter.own", `["long"]`}
	seen := map[string]string{}
	for name, c := range map[string]struct {
		own     Own
		set     []string
		changes string
	}{
		"teacher 1": {own("1", "1"), taught, KindPreferences},
		"teacher 2": {own("2", "1"), taught, KindPreferences},
		"pairs 1":   {own("1", "1"), pairs, KindPreferences},
		"pairs 2":   {own("1", "2"), pairs, KindPreferences},
		"talks 1":   {own("1", "1"), talks, KindIntrospection},
		"talks 2":   {own("1", "2"), talks, KindIntrospection},
	} {
		r := plan(c.own, c.set...)
		for kind, was := range base {
			is := k.key(kind, r)
			if (is != was) != (kind == c.changes) {
				t.Errorf("%s: the key of %s changes: %v", name, kind, is != was)
			}
			if kind == c.changes {
				if other := seen[is]; other != "" {
					t.Errorf("%s has the key of %s", name, other)
				}
				seen[is] = name
			}
		}
	}
}

type namedTeacher = teacher.Named

// TestOwnUnknown: names that nobody has are refused before any work, with those that are there; a worker that lacks what a
// run has pinned, or has another version, leaves its rows to others.
func TestOwnUnknown(t *testing.T) {
	k := newKit(t)
	have := Own{Teachers: []namedTeacher{parrot{version: "1"}}, Filters: []dataset.Filter{long{"1"}}}
	for _, c := range []struct {
		own  Own
		set  []string
		want string
	}{
		{have, []string{"teacher", "own:owl"}, `spec: teacher: teacher "owl" is not known: this worker has parrot`},
		{have, []string{"preferences.filter.own", `["long","short"]`}, `preferences.filter.own: filter "short" is not known: this worker has long`},
		{Own{}, []string{"introspection.filter.own", `["long"]`}, "this worker has none of its own"},
	} {
		_, err := k.resolve(c.own, c.set...)
		if kind, fatal := failure(err); !fatal || kind != BadInput || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.set, err)
		}
	}
	plan, err := k.resolve(have, "preferences.filter.own", `["long"]`, "teacher", "own:parrot")
	if err != nil {
		t.Fatal(err)
	}
	set := do[PromptSet](k, k.data.MakePrompts, MakePromptsInput{Plan: plan, Kind: KindPreferences})
	in := ChunkInput{Plan: plan, Prompts: set.Index, To: 8}
	for name, lacks := range map[string]Own{
		"nothing":       {},
		"other version": {Teachers: []namedTeacher{parrot{version: "2"}}, Filters: []dataset.Filter{long{"2"}}},
	} {
		k.fresh()
		k.engine.Own = lacks
		in.Role = RoleStudent
		_, err := try[ChunkOutput](k, k.engine.Generate, in, nil, nil)
		if kind, fatal := failure(err); fatal || kind != NotHere || !strings.Contains(err.Error(), `"long"`) {
			t.Errorf("%s, engine: %v", name, err)
		}
		in.Role = RoleTeacher
		for what, own := range map[string]Own{"filter": {Teachers: have.Teachers, Filters: lacks.Filters}, "teacher": {Teachers: lacks.Teachers, Filters: have.Filters}} {
			asker := &Teacher{Store: k.store, Own: own}
			_, err = try[ChunkOutput](k, asker.AskTeacher, in, nil, nil)
			if kind, fatal := failure(err); fatal || kind != NotHere || !strings.Contains(err.Error(), what) {
				t.Errorf("%s, teacher queue lacks the %s: %v", name, what, err)
			}
		}
	}
	for _, bad := range []Own{
		{Teachers: []namedTeacher{nil}}, {Teachers: []namedTeacher{parrot{version: "1"}, parrot{version: "2"}}}, {Filters: []dataset.Filter{long{""}}},
	} {
		if bad.Check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// final is an error that no retry mends.
type final struct{ error }

func (final) NonRetryable() bool { return true }

// TestOwnAtWork: an own teacher teaches, and an own filter drops under its name what it does not like, on every worker alike.
func TestOwnAtWork(t *testing.T) {
	k := newKit(t)
	own := Own{Teachers: []namedTeacher{parrot{version: "1"}}, Filters: []dataset.Filter{long{"1"}}}
	plan, err := k.resolve(own, "preferences.filter.own", `["long"]`, "introspection.filter.own", `["long"]`, "teacher", "own:parrot")
	if err != nil {
		t.Fatal(err)
	}
	asker := &Teacher{Store: k.store, Own: own}
	if _, err := try[struct{}](k, asker.CheckTeacher, CheckTeacherInput{Plan: plan}, nil, nil); err != nil && !strings.Contains(err.Error(), "no data available") {
		t.Error(err)
	}
	sick := &Teacher{Store: k.store, Own: Own{Teachers: []namedTeacher{parrot{"1", final{errors.New("no parrot here")}}}, Filters: own.Filters}}
	_, err = try[struct{}](k, sick.CheckTeacher, CheckTeacherInput{Plan: plan}, nil, nil)
	if kind, fatal := failure(err); !fatal || kind != BadInput || !strings.Contains(err.Error(), "no parrot here") {
		t.Errorf("a sick teacher: %v", err)
	}
	set := do[PromptSet](k, k.data.MakePrompts, MakePromptsInput{Plan: plan, Kind: KindPreferences})
	in := ChunkInput{Plan: plan, Role: RoleTeacher, Prompts: set.Index, To: 24}
	chosen := do[ChunkOutput](k, asker.AskTeacher, in)
	if chosen.Kept == 0 || chosen.Dropped["long/even"] == 0 || chosen.Dropped[dropRefused] == 0 || chosen.Dropped["long/not_told"] != 0 {
		t.Errorf("%+v", chosen)
	}
	in.Role, in.Only = RoleStudent, &chosen.Chain
	rejected := do[ChunkOutput](k, k.engine.Generate, in)
	if rejected.Kept == 0 || rejected.Dropped["long/not_told"] != 0 {
		t.Errorf("%+v", rejected)
	}
	st := do[Stage](k, k.data.JoinPairs, JoinPairsInput{Plan: plan, Key: k.key(KindPreferences, plan), Teacher: &chosen.Chain, Student: &rejected.Chain})
	rows, err := dataset.ReadParts[dataset.Pair](t.Context(), k.store, st.Parts)
	if err != nil || len(rows) == 0 {
		t.Fatal(len(rows), err)
	}
	for _, r := range rows {
		if q := r.Prompt[0].Content; r.Chosen[0].Content != "Aye, "+q || r.Source != "own:parrot" || len(q)%2 == 0 {
			t.Errorf("%+v", r)
		}
	}
	if _, err := k.resolve(own, "evaluation.own", `["style"]`); err == nil || !strings.Contains(err.Error(), `evaluation "style" is not known`) {
		t.Errorf("an unknown evaluation: %v", err)
	}
	k.measures(own)
	talks := do[PromptSet](k, k.data.MakePrompts, MakePromptsInput{Plan: plan, Kind: "interaction"})
	out := do[ChunkOutput](k, k.engine.Converse, ChunkInput{Plan: plan, Role: "interaction", Prompts: talks.Index, To: 4})
	if out.Rows != 4 || out.Dropped["long/not_told"] != 0 {
		t.Errorf("%+v", out)
	}
}

// measures runs an own evaluation over the base model, and one that breaks the rules.
func (k *kit) measures(own Own) {
	t := k.t
	own.Evaluations = []evaluation.Evaluation{evaluation.Style{}, broken{}}
	plan, err := k.resolve(own, "evaluation.own", `["style"]`)
	if err != nil {
		t.Fatal(err)
	}
	out := do[EvaluateOutput](k, k.engine.EvaluateModel, EvaluateInput{Plan: plan, Which: WhichBase})
	m, err := getJSON[Measured](t.Context(), k.store, out.Result)
	if err != nil || m.Own["style"]["chars"] <= 0 {
		t.Errorf("%+v, %v", m.Own, err)
	}
	st := do[Stage](k, k.data.JoinEvaluation, JoinEvaluationInput{Key: "k", Base: out.Result, DPO: out.Result, Character: out.Result})
	if st.Values["style.chars.base"] != m.Own["style"]["chars"] {
		t.Errorf("%v", st.Values)
	}
	if plan, err = k.resolve(own, "evaluation.own", `["style","broken"]`); err != nil {
		t.Fatal(err)
	}
	_, err = try[EvaluateOutput](k, k.engine.EvaluateModel, EvaluateInput{Plan: plan, Which: WhichBase}, nil, nil)
	if kind, fatal := failure(err); !fatal || kind != StageFailed || !strings.Contains(err.Error(), "evaluation broken of base: value x is NaN") {
		t.Errorf("an evaluation that breaks the rules: %v", err)
	}
	k.engine.Own.Evaluations = nil
	_, err = try[EvaluateOutput](k, k.engine.EvaluateModel, EvaluateInput{Plan: plan, Which: WhichBase}, nil, nil)
	if kind, fatal := failure(err); fatal || kind != NotHere {
		t.Errorf("a worker without the evaluations: %v", err)
	}
}

// broken asks and scores, and returns what is no number.
type broken struct{}

func (broken) Name() string    { return "broken" }
func (broken) Version() string { return "1" }
func (broken) Measure(ctx context.Context, m evaluation.Model) (map[string]float64, error) {
	a, err := m.Ask(ctx, []string{"Hello?"})
	if err != nil || len(a) != 1 || m.Which() != WhichBase || m.Character() != "captain" || len(m.HeldOut()) == 0 {
		return nil, errors.New("the model does not answer as it should")
	}
	if v, err := m.Score(ctx, m.HeldOut()); err != nil || v >= 0 {
		return nil, errors.New("the model does not score as it should")
	}
	return map[string]float64{"x": math.NaN()}, nil
}
