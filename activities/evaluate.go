package activities

import (
	"context"
	"fmt"
	"math"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/sample"
	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/store"
)

// Which models an evaluation looks at.
const (
	WhichBase      = "base"
	WhichDPO       = "dpo"
	WhichCharacter = "character"
)

// WhichModels lists them: each has the adapters of the one before it and one more.
func WhichModels() []string { return []string{WhichBase, WhichDPO, WhichCharacter} }

// EvaluateInput names one model of the run: the base with a stack of adapters.
type EvaluateInput struct {
	Plan     store.Ref    `json:"plan"`
	Which    string       `json:"which"`
	Adapters []AdapterRef `json:"adapters,omitempty"`
	// Plain is the base's evaluation, whose plain answers the others score; nil for the base itself.
	Plain *store.Ref `json:"plain,omitempty"`
}

// Answer is one prompt answered without any constitution.
type Answer struct {
	Prompt   string `json:"prompt"`
	Response string `json:"response"`
	Finish   string `json:"finish_reason"`
}

// Measured is what one model gave. Log-probs are means a token (response and end token), over all rows' tokens.
type Measured struct {
	Which            string   `json:"which"`
	Answers          []Answer `json:"answers"`
	HeldOutRows      int      `json:"held_out_rows"`
	HeldOut          float64  `json:"held_out"`
	WithConstitution float64  `json:"with_constitution,omitempty"`   // base only: the whole constitution as system prompt
	WithTeacher      float64  `json:"with_teacher_prompt,omitempty"` // base only: what the run's teacher had before it, example turns included
	Plain            float64  `json:"plain"`
	PlainAnswers     []Answer `json:"plain_answers,omitempty"` // base only
	// Own are the values of the program's own evaluations, by evaluation and name.
	Own map[string]map[string]float64 `json:"own,omitempty"`
}

// EvaluateOutput refers to a Measured object.
type EvaluateOutput struct {
	Result store.Ref `json:"result"`
}

// EvaluateModel answers the check prompts and scores the held-out and the plain answers under one model.
func (e *Engine) EvaluateModel(ctx context.Context, in EvaluateInput) (EvaluateOutput, error) {
	var live progress
	return onDevice(ctx, e, &live, func(ctx context.Context) (out EvaluateOutput, err error) {
		p, err := getPlan(ctx, e.Store, in.Plan)
		if err != nil {
			return out, err
		}
		if err := e.Own.bind(&p, ownEvaluation); err != nil {
			return out, notHere(err)
		}
		c, err := getConstitution(ctx, e.Store, p)
		if err != nil {
			return out, err
		}
		m, stack, err := e.open(ctx, &live, p.Model, in.Adapters)
		if err != nil {
			return out, err
		}
		rec, err := recorded(ctx, e.Store, p)
		if err != nil {
			return out, err
		}
		held, _ := splitHeldOut(p, rec)
		held = scored(p, held)
		var plain []Answer
		if in.Plain != nil {
			base, err := getJSON[Measured](ctx, e.Store, *in.Plain)
			if err != nil {
				return out, err
			}
			plain = append([]Answer{}, base.PlainAnswers...) // of the base: not nil, even when there are none
		}
		ev := evaluator{m: m, ws: e.workspace(), stack: stack, plan: p, live: &live, did: func(unit string) { e.did(ctx, KindEvaluation, in.Which+"/"+unit) }, meter: e.meter()}
		r, err := ev.measure(ctx, in.Which, c, held, plain)
		if err != nil {
			return out, err
		}
		if r.Own, err = ev.own(ctx, r, held); err != nil {
			return out, err
		}
		out.Result, err = putJSON(ctx, e.Store, "evaluations", r)
		return out, err
	})
}

type evaluator struct {
	m     *Loaded
	ws    *transformer.Workspace
	stack []*transformer.Adapter
	plan  Plan
	live  *progress
	did   func(unit string)
	meter Meter
}

// measure evaluates one model. plain is what the base answers without a prompt, nil for the base itself.
func (v *evaluator) measure(ctx context.Context, which string, c *constitution.Constitution, held []constitution.Example, plain []Answer) (r Measured, err error) {
	r = Measured{Which: which, HeldOutRows: len(held)}
	if r.Answers, err = v.answer(ctx, KindEvaluation, v.plan.Spec.Evaluation.Prompts); err != nil {
		return r, err
	}
	if r.HeldOut, err = v.score(ctx, nil, held); err != nil {
		return r, err
	}
	if plain == nil {
		if r.WithConstitution, err = v.score(ctx, role{system: c.TeacherSystem()}.before(), held); err != nil {
			return r, err
		}
		system, examples := teacherContext(v.plan, c)
		if r.WithTeacher, err = v.score(ctx, role{system: system, examples: examples}.before(), held); err != nil {
			return r, err
		}
		var asked []string
		for _, h := range held {
			asked = append(asked, h.Prompt)
		}
		if plain, err = v.answer(ctx, KindEvaluation, asked); err != nil {
			return r, err
		}
		r.PlainAnswers = plain
	}
	var rows []constitution.Example
	for _, a := range plain {
		if a.Finish == "stop" { // an answer cut at its limit has no end to score
			rows = append(rows, constitution.Example{Prompt: a.Prompt, Response: a.Response})
		}
	}
	r.Plain, err = v.score(ctx, nil, rows)
	return r, err
}

// answer draws answers to prompts; rows of one kind and text have the same random numbers.
func (v *evaluator) answer(ctx context.Context, kind string, prompts []string) ([]Answer, error) {
	out := make([]Answer, len(prompts))
	reqs := make([]sample.Request, len(prompts))
	for i, q := range prompts {
		ids, err := v.m.Chat.Prompt([]chat.Message{{Role: "user", Content: q}})
		if err != nil {
			return nil, fatal(BadInput, err)
		}
		reqs[i] = sample.Request{Key: rowKey(kind, q), Prompt: ids, Params: params(v.plan.Spec.Evaluation.Sampling, v.plan.Spec.Seed, v.m)}
	}
	err := sample.Generate(ctx, v.m.Model, v.stack, reqs, sample.Options{MaxRows: 32, Decode: v.m.Tokens.DecodeText, Alive: v.live.alive,
		Progress: func(done, tokens int) {
			v.live.set(func(l *Live) { l.Done, l.Total, l.Tokens = done, len(prompts), l.Tokens+tokens })
		}},
		func(i int, r sample.Result) error {
			out[i] = Answer{Prompt: prompts[i], Response: v.m.Text(r), Finish: r.Finish}
			v.did("answer " + prompts[i])
			v.meter.Drawn(KindEvaluation, len(r.Tokens))
			return nil
		})
	return out, notFinite(err, "evaluation", func(i int) string { return fmt.Sprintf("%q", prompts[i]) })
}

// scoreBatch is how many answers are scored between two looks at the context; what stands before all of them is
// computed once a batch.
const scoreBatch = 32

// score is the mean log-prob a token of the answers, each after before + its prompt; 0 when there are none.
func (v *evaluator) score(ctx context.Context, before []chat.Message, rows []constitution.Example) (float64, error) {
	total, tokens := 0.0, 0
	for i := 0; i < len(rows); i += scoreBatch {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		var ex []train.Example
		for _, r := range rows[i:min(i+scoreBatch, len(rows))] {
			x, err := EncodeAnswer(v.m, before, r.Prompt, r.Response)
			if err != nil {
				return 0, err
			}
			ex = append(ex, x)
		}
		sums, counts, err := train.SumLogProbs(v.m.Model, v.ws, ex, v.stack)
		if err != nil {
			return 0, notFinite(err, "evaluation", func(j int) string { return fmt.Sprintf("%q", rows[i+j].Prompt) })
		}
		for j := range sums {
			total += sums[j]
			tokens += counts[j]
			v.meter.Scored(KindEvaluation, len(ex[j].Tokens))
		}
		v.live.set(func(l *Live) { l.Done, l.Total = i, len(rows) })
	}
	if tokens == 0 {
		return 0, nil
	}
	mean := total / float64(tokens)
	if math.IsNaN(mean) || math.IsInf(mean, 0) {
		return 0, fatal(NonFinite, fmt.Errorf("evaluation: the mean log-prob of %d answers is %v: this model diverged; lower its learning rate", len(rows), mean))
	}
	return mean, nil
}

// EncodeAnswer lays out before + prompt + response with only the last assistant turn and its end token masked in.
func EncodeAnswer(m *Loaded, before []chat.Message, prompt, response string) (train.Example, error) {
	msgs := append(append([]chat.Message{}, before...), chat.Message{Role: "user", Content: prompt}, chat.Message{Role: "assistant", Content: response})
	rows, err := m.Chat.EncodeTurns(msgs)
	if err != nil {
		return train.Example{}, fmt.Errorf("score %q: %w", prompt, err)
	}
	ids, mask := rows[len(rows)-1].IDs, rows[len(rows)-1].Mask
	i := len(mask) - 1
	for ; i >= 0 && !mask[i]; i-- {
	}
	for ; i >= 0 && mask[i]; i-- {
	}
	for ; i >= 0; i-- {
		mask[i] = false
	}
	return train.Example{Tokens: ids, Mask: mask}, nil
}

// JoinEvaluationInput has the three results.
type JoinEvaluationInput struct {
	Key       string    `json:"key"`
	Base      store.Ref `json:"base"`
	DPO       store.Ref `json:"dpo"`
	Character store.Ref `json:"character"`
}

// JoinEvaluation puts the three models side by side. The internalisation index is the gain over the base without a
// prompt divided by what the constitution in the prompt gains the base.
func (d *Data) JoinEvaluation(ctx context.Context, in JoinEvaluationInput) (Stage, error) {
	st := Stage{Kind: KindEvaluation, Key: in.Key, Parts: []store.Ref{in.Base, in.DPO, in.Character}}
	var m [3]Measured
	for i, r := range st.Parts {
		var err error
		if m[i], err = getJSON[Measured](ctx, d.Store, r); err != nil {
			return Stage{}, err
		}
	}
	st.Rows = int64(len(m[0].Answers))
	st.Kept = st.Rows
	st.Values = map[string]float64{"held_out_rows": float64(m[0].HeldOutRows), "plain_base": m[0].Plain, "plain_dpo": m[1].Plain, "plain_character": m[2].Plain}
	for _, x := range m {
		ownValues(x, st.Values)
	}
	if m[0].HeldOutRows == 0 {
		return st, nil // no recorded answers for this character: the gain is not measured, and the report says so
	}
	v := st.Values
	v["held_out_base"], v["held_out_constitution"], v["held_out_dpo"], v["held_out_character"] = m[0].HeldOut, m[0].WithConstitution, m[1].HeldOut, m[2].HeldOut
	v["held_out_teacher_prompt"], v["gain_teacher_prompt"] = m[0].WithTeacher, m[0].WithTeacher-m[0].HeldOut
	v["gain_constitution"], v["gain_dpo"], v["gain_character"] = m[0].WithConstitution-m[0].HeldOut, m[1].HeldOut-m[0].HeldOut, m[2].HeldOut-m[0].HeldOut
	if v["gain_constitution"] > 0 {
		v["index_dpo"], v["index_character"] = v["gain_dpo"]/v["gain_constitution"], v["gain_character"]/v["gain_constitution"]
	}
	return st, nil
}
