package estimate

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/tensor"
	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

func resolved(t *testing.T, set ...string) spec.Spec {
	t.Helper()
	raw := []byte("{}")
	for _, kv := range set {
		k, v, _ := strings.Cut(kv, "=")
		var err error
		if raw, err = spec.Set(raw, k, v); err != nil {
			t.Fatal(err)
		}
	}
	s, err := spec.Resolve(raw)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rates are round numbers.
func rates() Rates {
	role := Role{Pass: .5, Prompt: 100, Read: 10, Drawn: 20, Seconds: .1}
	return Rates{Teacher: role, Student: role, Reflection: role, Talk: role, PairTokens: 100, ReflectionTokens: 50, TalkTokens: 200, HeldTokens: 40, EvalDrawn: 20, Score: .001, DPO: .004, SFT: .004, Draw: .01, Measured: true, Share: .5}
}

func TestOf(t *testing.T) {
	s := resolved(t)
	e := Of(Options{Spec: s, OwnPairs: -1, OwnTalks: -1, HeldOut: 24, AdapterParams: 1000}, rates())
	stage := map[string]Stage{}
	total := 0.0
	for _, x := range e.Stages {
		stage[x.Name] = x
		total += x.Seconds
	}
	pref := stage[activities.KindPreferences] // 96 of a quarter of the prompts, in chunks of 64
	if pref.Rows != 384 || pref.Target != 96 || pref.Drawn != 384*20+192*20 || math.Abs(pref.Seconds-(38.4+19.2)) > 1e-9 {
		t.Errorf("preferences %+v", pref)
	}
	if d := stage[activities.KindDPO]; d.Steps != 48 || d.Trained != 2*96*100 || math.Abs(d.Seconds-(9.6+76.8)) > 1e-9 {
		t.Errorf("dpo %+v", d)
	}
	if x := stage[activities.KindIntrospection]; x.Rows != 128+32 || x.Target != 72 {
		t.Errorf("introspection %+v", x)
	}
	if x := stage[activities.KindSFT]; x.Steps != 9 || x.Trained != 64*50+8*200 {
		t.Errorf("sft %+v", x)
	}
	if e.Seconds != total || e.Alone != total/2 || e.Adapters != 4*1000*(32+64) || e.Storage <= e.Adapters || e.Teacher != nil {
		t.Errorf("%+v", e)
	}
	// Rows of the user's own are not generated.
	e = Of(Options{Spec: s, OwnPairs: 10, OwnTalks: 5}, rates())
	if e.Stages[0].Drawn != 0 || e.Stages[0].Seconds != 0 || e.Stages[1].Rows != 10 || e.Stages[2].Drawn != 0 || e.Stages[3].Rows != 5 || e.Seconds == 0 {
		t.Errorf("own rows: %+v", e)
	}
	// Too few prompts are said.
	e = Of(Options{Spec: s, OwnPairs: -1, OwnTalks: -1, Prompts: 100}, rates())
	if e.Stages[0].Rows != 100 || e.Stages[1].Rows != 25 || !strings.Contains(strings.Join(e.Basis, "\n"), "25 of 96 pairs") {
		t.Errorf("few prompts: %+v", e)
	}
}

func TestTeacherCost(t *testing.T) {
	s := resolved(t, "preset=paper-scale", "teacher_options.key_env=KEY")
	r := Assumed(activities.Plan{Spec: s})
	r.Teacher.Prompt = 500
	e := Of(Options{Spec: s, OwnPairs: -1, OwnTalks: -1, PriceIn: 2, PriceOut: 10, Answer: 300}, r)
	x := e.Teacher
	if x == nil || x.Requests < 1500 || x.TokensIn != int64(x.Requests)*500 || x.TokensOut != int64(x.Requests)*300 || x.MostOut != int64(x.Requests)*1024 {
		t.Fatalf("%+v", x)
	}
	if want := float64(x.Requests) * (500*2 + 300*10) / 1e6; math.Abs(x.Cost-want) > 1e-9 || x.MostCost <= x.Cost {
		t.Errorf("cost %v, want %v; at most %v", x.Cost, want, x.MostCost)
	}
	if e.Seconds != 0 || e.Measured {
		t.Errorf("time without a measurement: %+v", e)
	}
}

// TestMeasure does a small part of a run on the tiny model, and a run without time for anything.
func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	if err := tinymodel.Write(dir, 1); err != nil {
		t.Fatal(err)
	}
	m, err := activities.LoadModel(dir, "", hub.Options{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := constitution.Load("captain")
	if err != nil {
		t.Fatal(err)
	}
	rec, _ := constitution.Recorded("captain")
	for _, teacher := range []string{"local", "recorded"} {
		s := resolved(t, append(tinymodel.Settings(), "teacher="+teacher)...)
		p := activities.Plan{Spec: s, Name: c.Name, Model: m.Info, Variant: tensor.VariantOf(m.Compute()), Shape: m.Config}
		r, err := Measure(t.Context(), p, m, nil, c, rec, Sample{Rows: 8, Budget: 5 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if !r.Measured || r.Student.Seconds <= 0 || r.DPO <= 0 || r.SFT <= 0 || r.Score <= 0 || r.PairTokens <= 0 || r.Draw <= 0 {
			t.Errorf("%s: %+v", teacher, r)
		}
		if (r.Teacher.Seconds > 0) != (teacher == "local") || r.Teacher.Prompt <= r.Student.Prompt {
			t.Errorf("%s: teacher %+v", teacher, r.Teacher)
		}
		e := Of(Options{Spec: s, OwnPairs: -1, OwnTalks: -1, Prompts: 200, HeldOut: 4, AdapterParams: 100}, r)
		if e.Seconds <= 0 || e.Storage <= 0 || len(e.Basis) < 3 {
			t.Errorf("%s: %+v", teacher, e)
		}
	}
	p := activities.Plan{Spec: resolved(t, tinymodel.Settings()...), Name: c.Name, Model: m.Info, Shape: m.Config}
	r, err := Measure(t.Context(), p, m, nil, c, rec, Sample{Rows: 8, Budget: time.Nanosecond})
	if err != nil || !strings.Contains(strings.Join(r.Basis, "\n"), "--budget") {
		t.Errorf("no time: %v, %q", err, r.Basis)
	}
	if e := Of(Options{Spec: p.Spec, OwnPairs: -1, OwnTalks: -1}, r); e.Seconds != 0 {
		t.Errorf("a time of %v s although drawing was not measured", e.Seconds)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Measure(ctx, p, m, nil, c, rec, Sample{Rows: 8, Budget: time.Minute}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
