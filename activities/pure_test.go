package activities

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

func TestParsePrompts(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
		err  string
	}{
		{"Hello!\n\n  Why?  \n", []string{"Hello!", "Why?"}, ""},
		{"\ufeff{\"prompt\":\"Hello!\"}\r\nplain\r\n", []string{"Hello!", "plain"}, ""},
		{`{"prompt":" Hello! "}`, []string{"Hello!"}, ""},
		{"", nil, "no prompt"},
		{" \n\t\n", nil, "no prompt"},
		{"a\n{\"prompt\":\"  \"}", nil, "line 2"},
		{"a\n{\"messages\":[]}", nil, "line 2"},
		{"a\n{broken", nil, "line 2"},
		{"a\n\xff\xfe", nil, "line 2: not valid UTF-8"},
		{"a\n" + strings.Repeat("x", 1<<20+1), nil, "line 2"},
	} {
		got, err := ParsePrompts([]byte(c.in), "f.txt")
		if !slices.Equal(got, c.want) || (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "f.txt")) {
			t.Errorf("%.40q: %q %v", c.in, got, err)
		}
	}
}

func TestPromptsAtTheLimit(t *testing.T) {
	line := strings.Repeat("x", maxPromptLine-1)
	if got, err := ParsePrompts([]byte(line+"\n"), "f"); err != nil || len(got) != 1 {
		t.Errorf("the longest prompt: %v", err)
	}
	if _, err := ParsePrompts([]byte("a\n"+line+"xx\n"), "f"); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a longer one: %v", err)
	}
	if _, err := ParsePrompts(make([]byte, maxPromptFile+1), "f"); err == nil || !strings.Contains(err.Error(), "split the file") {
		t.Errorf("a larger file: %v", err)
	}
}

func FuzzParsePrompts(f *testing.F) {
	f.Add([]byte("Hello!\n{\"prompt\":\"Why?\"}\n"))
	f.Add([]byte("\xef\xbb\xbf{\"prompt\":\"\\ud800\"}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []string
		var err error
		hostile.Bounds{PerByte: 200}.Hold(t, len(b), func() { got, err = ParsePrompts(b, "f") })
		if (len(got) == 0) != (err != nil) {
			t.Errorf("%d prompts and %v", len(got), err)
		}
		for _, p := range got {
			if strings.TrimSpace(p) == "" || !utf8.ValidString(p) {
				t.Errorf("prompt %q", p)
			}
		}
	})
}

func TestSplitHeldOut(t *testing.T) {
	var rec []constitution.Example
	for i := range 10 {
		rec = append(rec, constitution.Example{Prompt: fmt.Sprint("q", i), Response: "a"})
	}
	p := Plan{Spec: spec.Spec{Seed: 7, Evaluation: spec.Evaluation{HeldOut: 4}}}
	held, rest := splitHeldOut(p, rec)
	turned := slices.Clone(rec)
	slices.Reverse(turned)
	if h, _ := splitHeldOut(p, turned); !slices.Equal(h, held) {
		t.Error("the choice depends on the order of the file")
	}
	if len(held) != 4 || len(rest) != 6 {
		t.Fatalf("%d held out, %d left", len(held), len(rest))
	}
	for _, h := range held {
		if slices.Contains(rest, h) {
			t.Errorf("%v is on both sides", h)
		}
	}
	p.Spec.Evaluation.HeldOut = 99
	if h, r := splitHeldOut(p, rec); len(h) != 10 || len(r) != 0 {
		t.Errorf("%d and %d of ten", len(h), len(r))
	}
}

func TestCycleAndLimit(t *testing.T) {
	rows := cycle([]constitution.ReflectionPrompt{{ID: "a", Text: "A"}, {ID: "b", Text: "B"}}, 5)
	var ids []string
	for _, r := range rows {
		ids = append(ids, r.ID)
	}
	if want := []string{"a-00000", "b-00000", "a-00001", "b-00001", "a-00002"}; !slices.Equal(ids, want) {
		t.Errorf("ids %v", ids)
	}
	for _, c := range []struct {
		target int
		over   float64
		want   int
	}{{0, 4, 0}, {1, 1, 17}, {100, 3, 300}, {100, 1, 116}} {
		if got := limit(c.target, c.over); got != c.want {
			t.Errorf("limit(%d, %g) = %d, want %d", c.target, c.over, got, c.want)
		}
	}
}

func TestDropEarly(t *testing.T) {
	msgs := func(roles string) (out []dataset.Message) {
		for i, r := range roles {
			out = append(out, dataset.Message{Role: map[rune]string{'s': "system", 'u': "user", 'a': "assistant"}[r], Content: fmt.Sprint(i)})
		}
		return out
	}
	for _, c := range []struct{ in, want string }{{"suaua", "034"}, {"uaua", "23"}, {"sua", ""}, {"ua", ""}, {"s", ""}, {"", ""}, {"suauaua", "03456"}} {
		in := msgs(c.in)
		got := ""
		for _, m := range dropEarly(in) {
			got += m.Content
		}
		if got != c.want {
			t.Errorf("%s: messages %q stay, want %q", c.in, got, c.want)
		}
		for i, m := range in {
			if m.Content != fmt.Sprint(i) {
				t.Errorf("%s: the input was changed", c.in)
			}
		}
	}
}

func TestNoEnd(t *testing.T) {
	m := []bool{false, true, true, false}
	if noEnd(m); !slices.Equal(m, []bool{false, true, false, false}) {
		t.Errorf("%v", m)
	}
	noEnd(nil)
}

// TestWarmupFits: the cosine schedule accepts every training that the spec accepts, however short.
func TestWarmupFits(t *testing.T) {
	for _, rows := range []int{1, 2, 3, 40} {
		for _, w := range []float64{0, .1, .5, 1} {
			o := trainOptions(KindSFT, spec.Training{LearningRate: 1e-4, Schedule: "cosine", Warmup: w, BatchSize: 32, Epochs: 1}, 1, rows)
			if _, err := o.Resolve(); err != nil {
				t.Errorf("%d rows, warm-up %g: %v", rows, w, err)
			}
		}
	}
}

func TestNonFinite(t *testing.T) {
	if got := nonFinite(metricValues(KindSFT, train.Metrics{Loss: 1, Perplexity: math.Inf(1)})); got != "perplexity" {
		t.Errorf("%q is named", got)
	}
	v := metricValues(KindDPO, train.Metrics{Loss: 1})
	if got := nonFinite(v); got != "" {
		t.Errorf("%q is named", got)
	}
	line := metricLine(KindDPO, 3, v)
	got := withRecent(nil, append([]byte("{\"step\":1,\"loss\":9}\n"), line...))
	if got["loss"] != 1 || got["recent_loss"] != 5 || len(got) != len(v)+3 {
		t.Errorf("read back %v of %s", got, line)
	}
	if withRecent(nil, nil) != nil {
		t.Error("values of nothing")
	}
}

// TestStageKeys: what shapes a stage is in its key, what changes speed only is not (laws 1 and 8).
func TestStageKeys(t *testing.T) {
	base, err := spec.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	key := func(kind string, change func(*Plan)) string {
		p := Plan{Spec: base, Model: ModelInfo{SHA256: "m"}, Variant: "avx2", Constitution: store.Ref{SHA256: "c"}}
		change(&p)
		return dataset.InputHash(shape(kind, p))
	}
	all := []string{KindPreferences, KindDPO, KindIntrospection, KindSFT, KindEvaluation}
	for _, c := range []struct {
		name   string
		kinds  string
		change func(*Plan)
	}{
		{"seed", strings.Join(all, " "), func(p *Plan) { p.Spec.Seed++ }},
		{"model", strings.Join(all, " "), func(p *Plan) { p.Model.SHA256 = "x" }},
		{"kernels", strings.Join(all, " "), func(p *Plan) { p.Variant = "generic" }},
		{"constitution", strings.Join(all, " "), func(p *Plan) { p.Constitution.SHA256 = "x" }},
		{"teacher", KindPreferences, func(p *Plan) { p.Spec.Teacher = "recorded" }},
		{"pairs", KindPreferences, func(p *Plan) { p.Spec.Preferences.Pairs++ }},
		{"prompts", KindPreferences, func(p *Plan) { p.Prompts = &store.Ref{SHA256: "x"} }},
		{"own pairs", KindPreferences, func(p *Plan) { p.Pairs = &store.Ref{SHA256: "x"} }},
		{"own introspection", KindIntrospection, func(p *Plan) { p.Talks = &store.Ref{SHA256: "x"} }},
		{"recorded", KindPreferences + " " + KindEvaluation, func(p *Plan) { p.Recorded = &store.Ref{SHA256: "x"} }},
		{"held out", KindPreferences + " " + KindEvaluation, func(p *Plan) { p.Spec.Evaluation.HeldOut++ }},
		{"short system", KindPreferences + " " + KindIntrospection + " " + KindEvaluation, func(p *Plan) { p.Spec.TeacherOptions.System = "full" }},
		{"examples", KindPreferences + " " + KindEvaluation, func(p *Plan) { p.Spec.TeacherOptions.Examples++ }},
		{"dpo rate", KindDPO, func(p *Plan) { p.Spec.DPO.LearningRate *= 2 }},
		{"sft epochs", KindSFT, func(p *Plan) { p.Spec.SFT.Epochs++ }},
		{"turns", KindIntrospection, func(p *Plan) { p.Spec.Introspection.Turns++ }},
		{"export weight", "", func(p *Plan) { p.Spec.Export.SFTWeight = .5 }},
		{"compute", strings.Join(all, " "), func(p *Plan) { p.Model.Compute = "bf16" }},
		{"quantised weights", KindPreferences + " " + KindIntrospection, func(p *Plan) { p.Spec.Weights = "quantized" }},
		{"speed", "", func(p *Plan) {
			s := &p.Spec
			s.MemoryLimit = 99
			s.Preferences.Chunk, s.Preferences.Parallel, s.Introspection.Chunk, s.Introspection.Parallel = 3, 3, 3, 3
			s.DPO.MicroTokens, s.DPO.SegmentSeconds, s.DPO.SegmentSteps, s.SFT.MicroTokens = 99, 9, 9, 99
			s.TeacherOptions.Concurrency = 99
		}},
		{"key's name", "", func(p *Plan) { p.Spec.TeacherOptions.KeyEnv = "OTHER" }},
	} {
		for _, kind := range all {
			changed := key(kind, func(*Plan) {}) != key(kind, c.change)
			if want := slices.Contains(strings.Fields(c.kinds), kind); changed != want {
				t.Errorf("%s changes the key of %s: %v, want %v", c.name, kind, changed, want)
			}
		}
	}
}

// TestStageTexts: a release that words a prompt differently does not reuse what the old words made, and only there.
func TestStageTexts(t *testing.T) {
	base, err := spec.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	base.TeacherOptions.System = "full" // the short form is words of its own
	p := Plan{Spec: base}
	load := func() *constitution.Constitution {
		c, err := constitution.Load("captain")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	rec, _ := constitution.Recorded("captain")
	changed := load()
	changed.Traits[0].Text += " And I say so."
	for kind, want := range map[string]struct{ words, recorded bool }{
		KindPreferences: {true, true}, KindDPO: {}, KindIntrospection: {true, false}, KindSFT: {}, KindEvaluation: {true, true},
	} {
		before := texts(kind, p, load(), rec)
		if got := texts(kind, p, changed, rec) != before; got != want.words {
			t.Errorf("%s: other words change the key: %v", kind, got)
		}
		if got := texts(kind, p, load(), rec[1:]) != before; got != want.recorded {
			t.Errorf("%s: other recorded answers change the key: %v", kind, got)
		}
	}
}

// TestLiveIsJSON: the CLI reads what an activity tells.
func TestLiveIsJSON(t *testing.T) {
	var p progress
	p.set(func(l *Live) { l.Done, l.Total, l.Values = 3, 9, map[string]float64{"loss": .5} })
	var l Live
	if err := json.Unmarshal(p.details().(json.RawMessage), &l); err != nil || l.Done != 3 || l.Values["loss"] != .5 {
		t.Errorf("%+v %v", l, err)
	}
}

// FuzzLive: heartbeat details of whatever worker are read as progress, or not at all; what was read can be sent again.
func FuzzLive(f *testing.F) {
	f.Add([]byte(`{"done":3,"total":12,"tokens":99,"values":{"loss":0.69}}`))
	f.Add([]byte(`{"done":1e99}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		payloads := &commonpb.Payloads{Payloads: []*commonpb.Payload{{Metadata: map[string][]byte{"encoding": []byte("json/plain")}, Data: data}}}
		var l Live
		var err error
		hostile.Bounds{PerByte: 200}.Hold(t, len(data), func() { err = converter.GetDefaultDataConverter().FromPayloads(payloads, &l) })
		if err != nil {
			return
		}
		p := progress{Live: l}
		var again Live
		if err := json.Unmarshal(p.details().(json.RawMessage), &again); err != nil {
			t.Fatal(err)
		}
		if len(l.Values) == 0 {
			l.Values = nil
		}
		if !reflect.DeepEqual(l, again) {
			t.Errorf("%+v was sent as %+v", l, again)
		}
	})
}

func FuzzNames(f *testing.F) {
	f.Add([]byte(`{"plan":{"key":"plans/a.json","sha256":"00","size":3},"stages":[{"parts":[{"key":"p","sha256":""}]}],"spec":{"prompts":"ref:uploads/x"}}`))
	f.Add([]byte(`[{"key":1,"sha256":2}]`))
	f.Add([]byte(`{"key":"k","sha256":"s","size":1e999}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		n := names(data)
		if n.err != nil && !lost(n.err) {
			t.Errorf("%v is not called damage", n.err)
		}
		for _, r := range n.refs {
			if r.Key == "" {
				t.Error("a ref without a key")
			}
		}
	})
}
