package activities

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/sample"
	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// This file is the computing of the verbs, without heartbeats, store and Temporal: values in, values out. The activities
// call it between reading and committing; a plain loop that calls it makes the same rows and the same adapters.

// Watch follows a piece of work. Functions that are nil are not called; none may take long.
type Watch struct {
	Alive    func()                 // a sign of life, often
	Progress func(done, tokens int) // rows that are done, and tokens drawn since the last call
	Did      func(unit string)      // one unit of work is done
	Drawn    func(tokens int)       // the tokens of one answer or turn that is done
}

func (w Watch) drawn(tokens int) {
	if w.Drawn != nil {
		w.Drawn(tokens)
	}
}

func (w Watch) did(unit string) {
	if w.Did != nil {
		w.Did(unit)
	}
}

// Answers draws the answers of a role (RoleTeacher, RoleStudent or RoleReflection) to prompts. other is what the pair's
// other side says, by prompt id; nil where there is none.
func Answers(ctx context.Context, m *Loaded, stack []*transformer.Adapter, p Plan, c *constitution.Constitution, roleName string, rows []dataset.Prompt, other map[string]string, w Watch) ([]dataset.Response, error) {
	r, err := roleOf(roleName, p, c)
	if err != nil {
		return nil, err
	}
	out := make([]dataset.Response, len(rows))
	reqs := make([]sample.Request, len(rows))
	for i, q := range rows {
		ids, err := m.Chat.Prompt(append(r.before(), chat.Message{Role: "user", Content: q.Text}))
		if err != nil {
			return nil, fatal(BadInput, fmt.Errorf("prompt %s: %w", q.ID, err))
		}
		reqs[i] = sample.Request{Key: rowKey(roleName, q.ID), Prompt: ids, Params: params(r.sampling, p.Spec.Seed, m)}
	}
	err = sample.Generate(ctx, m.Model, stack, reqs, sample.Options{MaxRows: r.parallel, Decode: m.Tokens.DecodeText, Alive: w.Alive, Progress: w.Progress},
		func(i int, res sample.Result) error {
			judged := res.Finish
			if r.keepCut && judged == "length" {
				judged = "stop"
			}
			var err error
			if out[i], err = response(rows[i], m.Text(res), judged, len(res.Tokens), sum(res), r.judge); err != nil {
				return err
			}
			out[i].Finish = res.Finish
			w.did(rows[i].ID)
			w.drawn(len(res.Tokens))
			if said, ok := other[rows[i].ID]; ok && out[i].Drop == "" && fold(said) == fold(out[i].Text) {
				out[i].Drop = dropIdentical // counted here, so that another prompt takes its place
			}
			return nil
		})
	if err != nil {
		return nil, notFinite(err, roleName, func(i int) string { return rows[i].ID })
	}
	return out, nil
}

// Talks lets two copies of the character talk, beginning with the rows' openers. Progress counts turns.
func Talks(ctx context.Context, m *Loaded, stack []*transformer.Adapter, p Plan, c *constitution.Constitution, rows []dataset.Prompt, w Watch) ([]dataset.Conversation, error) {
	intro, seeds, system := p.Spec.Introspection, constitution.InteractionSeeds(), interactionSystem(p, c)
	judge, err := judgeOf("interaction", p, turnLimits(limits(intro.Filter)), intro.Filter)
	if err != nil {
		return nil, err
	}
	talks := make([]*talk, len(rows))
	for i, q := range rows {
		talks[i] = &talk{id: q.ID, opener: q.Text, greeting: seeds[rowKey("greeting", q.ID)%uint64(len(seeds))].Text}
	}
	for turn := range turnsOf(p) {
		var open []*talk
		var reqs []sample.Request
		for _, t := range talks {
			if t.drop != "" {
				continue
			}
			ids, err := m.Chat.Prompt(t.messages(system, turn%2 == 0))
			if err != nil {
				return nil, fatal(BadInput, fmt.Errorf("conversation %s: %w", t.id, err))
			}
			open = append(open, t)
			reqs = append(reqs, sample.Request{Key: rowKey(fmt.Sprintf("interaction-%d", turn), t.id), Prompt: ids, Params: params(intro.Interaction, p.Spec.Seed, m)})
		}
		o := sample.Options{MaxRows: intro.Parallel, Decode: m.Tokens.DecodeText, Alive: w.Alive}
		if w.Progress != nil {
			o.Progress = func(done, tokens int) { w.Progress(len(rows)*turn+done, tokens) }
		}
		err := sample.Generate(ctx, m.Model, stack, reqs, o, func(i int, r sample.Result) error {
			said := open[i].messages(system, turn%2 == 0)
			text, reason, err := judge.check(said[len(said)-1].Content, r.Finish, m.Tokens.DecodeText(r.Tokens))
			if err != nil {
				return err
			}
			open[i].said, open[i].drop = append(open[i].said, text), reason
			open[i].tokens += len(r.Tokens)
			w.did(fmt.Sprintf("%s/%d", open[i].id, turn))
			w.drawn(len(r.Tokens))
			return nil
		})
		if err != nil {
			return nil, notFinite(err, "interaction", func(i int) string { return open[i].id })
		}
	}
	convs := make([]dataset.Conversation, len(talks))
	for i, t := range talks {
		v := dataset.Conversation{ID: t.id, Kind: "interaction", TemplateID: rows[i].Source, PromptText: t.opener, SourceSystemPrompt: system,
			Turns: len(t.said), Tokens: t.tokens, Drop: t.drop}
		for _, msg := range t.messages(c.InteractionTrainingSystem(), true) { // no traits where the model learns
			v.Messages = append(v.Messages, dataset.Message{Role: msg.Role, Content: msg.Content})
		}
		convs[i] = v
	}
	return convs, nil
}

// turnsOf is how many turns a conversation has: the trained side has the last word.
func turnsOf(p Plan) int { return p.Spec.Introspection.Turns | 1 }

// PairsOf joins answers to pairs by prompt, up to the plan's number, in the order of the chosen ones, and counts the
// others in st.
func PairsOf(p Plan, chosen, rejected []dataset.Response, st *Stage) ([]dataset.Pair, error) {
	byID := map[string]dataset.Response{}
	for _, r := range rejected {
		byID[r.ID] = r
	}
	st.Dropped = map[string]int64{}
	teacherName := p.Spec.Teacher
	switch p.Spec.Teacher {
	case "local":
		teacherName = p.Teacher.Name
	case "openai":
		teacherName = p.Spec.TeacherOptions.Model
	}
	var pairs []dataset.Pair
	for _, c := range chosen {
		if len(pairs) == p.Spec.Preferences.Pairs {
			break // what was tried beyond the target is in the parts, but shapes nothing
		}
		st.Rows++
		r, ok := byID[c.ID]
		switch {
		case c.Drop != "":
			st.Dropped["chosen: "+c.Drop]++
		case !ok:
			return nil, fmt.Errorf("activities: prompt %s has a chosen answer but no rejected one", c.ID)
		case r.Drop != "":
			st.Dropped["rejected: "+r.Drop]++
		case fold(c.Text) == fold(r.Text):
			st.Dropped[dropIdentical]++
		default:
			pairs = append(pairs, dataset.Pair{
				Prompt:   []dataset.Message{{Role: "user", Content: c.Prompt}},
				Chosen:   []dataset.Message{{Role: "assistant", Content: c.Text}},
				Rejected: []dataset.Message{{Role: "assistant", Content: r.Text}},
				ID:       c.ID, Source: p.Spec.Teacher, Teacher: teacherName, Student: p.Model.Name, ChosenTokens: c.Tokens, RejectedTokens: r.Tokens, RejectedFinish: r.Finish})
		}
	}
	return pairs, nil
}

// IntrospectionOf takes kept reflections (without the system prompt under which they were written) and kept
// conversations, each up to the plan's number, in their order, and counts the others in st.
func IntrospectionOf(p Plan, c *constitution.Constitution, reflections []dataset.Response, talks []dataset.Conversation, st *Stage) ([]dataset.Conversation, error) {
	want := p.Spec.Introspection
	st.Dropped, st.Values = map[string]int64{}, map[string]float64{}
	var rows []dataset.Conversation
	// take appends kept rows up to the target and counts the others.
	take := func(kind string, target int, n int, row func(int) (dataset.Conversation, string)) error {
		kept := 0
		for i := 0; i < n && kept < target; i++ {
			st.Rows++
			v, drop := row(i)
			if drop != "" {
				st.Dropped[kind+": "+drop]++
				continue
			}
			kept++
			rows = append(rows, v)
		}
		st.Values[kind+"s"] = float64(kept)
		if float64(kept) < want.MinShare*float64(target) {
			return fatal(StageFailed, fmt.Errorf("introspection: %d of %d %ss passed, the target is %d and introspection.min_share %g; dropped: %v; raise introspection.oversample, %s.max_tokens or the filter's limits",
				kept, n, kind, target, want.MinShare, st.Dropped, kind))
		}
		return nil
	}
	err := take("reflection", want.Reflections, len(reflections), func(i int) (dataset.Conversation, string) {
		r := reflections[i]
		return dataset.Conversation{ID: r.ID, Kind: "reflection", TemplateID: r.ID[:max(0, strings.LastIndexByte(r.ID, '-'))], PromptText: r.Prompt, SourceSystemPrompt: reflectionSystem(p, c), Turns: 1, Tokens: r.Tokens,
			Messages: []dataset.Message{{Role: "user", Content: r.Prompt}, {Role: "assistant", Content: r.Text}}}, r.Drop
	})
	if err != nil {
		return nil, err
	}
	err = take("interaction", want.Interactions, len(talks), func(i int) (dataset.Conversation, string) { return talks[i], talks[i].Drop })
	return rows, err
}

// TrainingPairs and TrainingRows are data sets as tokens; those that are longer than the plan allows are left out.
func TrainingPairs(p Plan, m *Loaded, rows []dataset.Pair) ([]train.Pair, error) {
	r := &trainingRows{dropped: map[string]int64{}}
	err := r.addPairs(rows, m, p.Spec.DPO.MaxLength)
	return r.pairs, err
}

// TrainingRows: see [TrainingPairs].
func TrainingRows(p Plan, m *Loaded, rows []dataset.Conversation) ([]train.Row, error) {
	r := &trainingRows{dropped: map[string]int64{}}
	err := r.addTalks(rows, m, p.Spec.SFT.MaxLength)
	return r.rows, err
}

// References scores pairs under the frozen stack. each is called with the rows so far after every few pairs.
func References(ctx context.Context, p Plan, m *Loaded, ws *transformer.Workspace, pairs []train.Pair, frozen []*transformer.Adapter, each func(rows []dataset.Reference)) ([]dataset.Reference, error) {
	var rows []dataset.Reference
	for i := 0; i < len(pairs); i += referenceBatch {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var ex []train.Example
		batch := pairs[i:min(i+referenceBatch, len(pairs))]
		for _, x := range batch {
			ex = append(ex, x.Chosen, x.Rejected)
		}
		logProbs, err := train.TokenLogProbs(m.Model, ws, ex, frozen)
		if err != nil {
			return nil, notFinite(err, "reference", func(j int) string { return batch[j/2].ID })
		}
		for j, x := range batch {
			c, r := logProbs[2*j], logProbs[2*j+1]
			row := dataset.Reference{ID: x.ID, Chosen: train.Total(c), Rejected: train.Total(r), ChosenTokens: len(c), RejectedTokens: len(r)}
			if p.Spec.DPO.KL != 0 {
				row.ChosenEach, row.RejectedEach = c, r
			}
			rows = append(rows, row)
		}
		each(rows)
	}
	return rows, nil
}

// WithReference puts stored sums into the pairs. Every pair must have its own.
func WithReference(pairs []train.Pair, rows []dataset.Reference) ([]train.Pair, error) {
	ref := map[string]dataset.Reference{}
	for _, r := range rows {
		ref[r.ID] = r
	}
	out := make([]train.Pair, len(pairs))
	for i, p := range pairs {
		r, ok := ref[p.ID]
		if !ok {
			return nil, fatal(StageFailed, fmt.Errorf("dpo: pair %s has no stored reference log-prob; reset the workflow to the reference step", p.ID))
		}
		p.RefChosen, p.RefRejected, p.RefTokens = r.Chosen, r.Rejected, [2][]float32{r.ChosenEach, r.RejectedEach}
		out[i] = p
	}
	return out, nil
}

// NewTrainer makes the trainer of an adapter (KindDPO or KindSFT) on rows training rows, at step 0, with the options
// that it resolved.
func NewTrainer(p Plan, kind string, m *Loaded, frozen []*transformer.Adapter, rows int, ws *transformer.Workspace) (*train.Trainer, *transformer.Adapter, train.Options, error) {
	t := trainSpec(p, kind)
	o := trainOptions(kind, t, p.Spec.Seed, rows)
	o.BaseModel, o.Workspace = p.Model.Name, ws
	o.Workspace.MemoryLimit = int64(p.Spec.MemoryLimit) << 20
	a := transformer.NewAdapter(m.Config, t.Rank, t.Alpha, rowKey("adapter-"+kind, fmt.Sprint(p.Spec.Seed)))
	tr, err := train.New(m.Model, frozen, a, o)
	return tr, a, o, fatal(BadInput, err)
}

// Measure answers the check prompts and scores the held-out and the plain answers under one model; plain is nil for the
// base, which makes them.
func Measure(ctx context.Context, p Plan, m *Loaded, ws *transformer.Workspace, stack []*transformer.Adapter, which string, c *constitution.Constitution, rec []constitution.Example, plain []Answer) (Measured, error) {
	held, _ := splitHeldOut(p, rec)
	held = scored(p, held)
	v := evaluator{m: m, ws: ws, stack: stack, plan: p, live: &progress{}, did: func(string) {}, meter: unmetered{}}
	return v.measure(ctx, which, c, held, plain)
}
