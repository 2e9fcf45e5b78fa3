package estimate

import (
	"context"
	"fmt"
	"time"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// all measures stage after stage; what one makes is what the next works on.
func (w *work) all() error {
	pairs, err := w.preferences()
	if err != nil {
		return err
	}
	dpo, err := w.dpo(pairs)
	if err != nil {
		return err
	}
	talks, err := w.introspection(dpo)
	if err != nil {
		return err
	}
	if err := w.sft(dpo, talks); err != nil {
		return err
	}
	if w.drawn > 0 {
		w.r.Draw = w.drawing / w.drawn
	}
	if x := w.r.Reflection; x.Seconds > 0 && x.Drawn > 0 {
		w.r.Draw = max(w.r.Draw, x.Seconds/x.Drawn) // an evaluation's batches are small, as theirs were
	}
	w.r.EvalDrawn = w.r.Student.Drawn
	return nil
}

func (w *work) preferences() ([]dataset.Pair, error) {
	p, r := w.p, w.r
	answers := map[string]string{}
	var prompts []dataset.Prompt
	if p.Spec.Teacher == "recorded" {
		for i, x := range w.rec {
			prompts = append(prompts, dataset.Prompt{ID: fmt.Sprint(i), Text: x.Prompt})
			answers[prompts[i].ID] = x.Response
		}
	} else {
		var err error
		if prompts, err = activities.Prompts(w.ctx, nil, p, w.c, activities.KindPreferences); err != nil {
			return nil, err
		}
	}
	prompts = prompts[:min(len(prompts), w.o.Rows)]
	if len(prompts) == 0 {
		return nil, fmt.Errorf("preferences: there is no prompt to measure with; add some with --prompts")
	}
	var questions []string
	for _, q := range prompts {
		questions = append(questions, q.Text)
	}
	tm := w.m
	if w.teacher != nil {
		tm = w.teacher
	}
	system, examples := w.c.TeacherSystem(), w.c.TeacherExamples()
	if p.Spec.TeacherOptions.System == "short" {
		system = w.c.TeacherSystemShort()
	}
	before := []chat.Message{{Role: "system", Content: system}}
	for _, x := range examples[:min(len(examples), p.Spec.TeacherOptions.Examples)] {
		before = append(before, chat.Message{Role: "user", Content: x.Prompt}, chat.Message{Role: "assistant", Content: x.Response})
	}
	var err error
	if r.Teacher.Prompt, r.Teacher.Shared, r.Teacher.Read, err = prompt(tm, before, questions); err != nil {
		return nil, err
	}
	if r.Student.Prompt, r.Student.Shared, r.Student.Read, err = prompt(w.m, nil, questions); err != nil {
		return nil, err
	}
	if _, r.Long, _, err = prompt(w.m, []chat.Message{{Role: "system", Content: w.c.TeacherSystem()}}, questions); err != nil {
		return nil, err
	}
	r.HeldTokens = r.Student.Prompt + 40
	if n := len(w.rec); n > 0 {
		sum := 0
		for _, x := range w.rec[:min(n, 32)] {
			sum += len(w.m.Tokens.Encode(x.Response))
		}
		r.HeldTokens = r.Student.Prompt + float64(sum)/float64(min(n, 32))
	}
	count := func(rows []dataset.Response) (drawn, passed int) {
		for _, a := range rows {
			drawn += a.Tokens
			if a.Drop == "" {
				passed++
			}
		}
		return drawn, passed
	}
	if p.Spec.Teacher == "local" {
		err := w.timed("teacher", &r.Teacher, len(prompts), p.Spec.Preferences.Teacher.MaxTokens, .2, func(ctx context.Context, watch activities.Watch) (int, int, error) {
			rows, err := activities.Answers(ctx, tm, nil, p, w.c, activities.RoleTeacher, prompts, nil, watch)
			for _, a := range rows {
				answers[a.ID] = a.Text
			}
			drawn, passed := count(rows)
			return drawn, passed, err
		})
		if err != nil {
			return nil, err
		}
	}
	var student []dataset.Response
	err = w.timed("student", &r.Student, len(prompts), p.Spec.Preferences.Student.MaxTokens, .2, func(ctx context.Context, watch activities.Watch) (drawn, passed int, err error) {
		student, err = activities.Answers(ctx, w.m, nil, p, w.c, activities.RoleStudent, prompts, nil, watch)
		drawn, passed = count(student)
		return drawn, passed, err
	})
	if err != nil {
		return nil, err
	}
	w.did[0] = len(prompts)
	// Dropped or not, an answer trains in the time that its tokens take.
	var pairs []dataset.Pair
	for i, q := range prompts {
		chosen, rejected := answers[q.ID], ""
		if i < len(student) {
			rejected = student[i].Text
		}
		if chosen == "" { // of a remote teacher, or none within the budget
			chosen = w.filler(activities.RoleTeacher)
		}
		if rejected == "" {
			rejected = w.filler(activities.RoleStudent)
		}
		pairs = append(pairs, dataset.Pair{ID: q.ID, Prompt: said("user", q.Text), Chosen: said("assistant", chosen), Rejected: said("assistant", rejected)})
	}
	return pairs, nil
}

// filler stands for an answer that nobody gave: plain words, of the length that is expected.
func (w *work) filler(role string) string {
	n := int(w.r.Student.Drawn)
	if role == activities.RoleTeacher {
		n = min(250, w.p.Spec.Preferences.Teacher.MaxTokens)
	}
	text := "ahoy"
	for range max(n-1, 0) {
		text += " and on"
		if len(w.m.Tokens.Encode(text)) >= n {
			break
		}
	}
	return text
}

func (w *work) dpo(rows []dataset.Pair) (*transformer.Adapter, error) {
	pairs, err := activities.TrainingPairs(w.p, w.m, rows)
	if err != nil {
		return nil, err
	}
	if len(pairs) == 0 {
		return nil, fmt.Errorf("dpo: no measured pair fits into dpo.max_length %d tokens; raise it", w.p.Spec.DPO.MaxLength)
	}
	total := 0
	for _, x := range pairs {
		total += len(x.Chosen.Tokens) + len(x.Rejected.Tokens)
	}
	w.r.PairTokens = float64(total) / float64(len(pairs))
	batch := pairs[:min(len(pairs), w.p.Spec.DPO.BatchSize)]
	n := 0
	for _, x := range batch {
		n += examples([]train.Example{x.Chosen, x.Rejected})
	}
	w.say("reference: %d tokens", n)
	start := time.Now()
	ref, err := activities.References(w.ctx, w.p, w.m, w.ws, batch, nil, func([]dataset.Reference) {})
	if err != nil {
		return nil, err
	}
	w.r.Score = time.Since(start).Seconds() / float64(n)
	if batch, err = activities.WithReference(batch, ref); err != nil {
		return nil, err
	}
	t, a, _, err := activities.NewTrainer(w.p, activities.KindDPO, w.m, nil, len(pairs), w.ws)
	if err != nil {
		return nil, err
	}
	w.r.DPO, err = w.learn("dpo", n, .4, func() error { _, err := t.StepDPO(batch); return err })
	w.ws.Release()
	return a, err
}

func (w *work) introspection(dpo *transformer.Adapter) ([]dataset.Conversation, error) {
	p, r, stack := w.p, w.r, []*transformer.Adapter{dpo}
	var rows []dataset.Conversation
	if prompts, err := activities.Prompts(w.ctx, nil, p, w.c, "reflection"); err != nil {
		return nil, err
	} else if prompts = prompts[:min(len(prompts), (w.o.Rows+1)/2)]; len(prompts) > 0 {
		err := w.timed("reflections", &r.Reflection, len(prompts), p.Spec.Introspection.Reflection.MaxTokens, .4, func(ctx context.Context, watch activities.Watch) (drawn, passed int, err error) {
			said, err := activities.Answers(ctx, w.m, stack, p, w.c, activities.RoleReflection, prompts, nil, watch)
			for _, a := range said {
				drawn += a.Tokens
				if a.Drop == "" {
					passed++
				}
				rows = append(rows, dataset.Conversation{ID: a.ID, Kind: "reflection", Messages: []dataset.Message{{Role: "user", Content: a.Prompt}, {Role: "assistant", Content: a.Text}}})
			}
			return drawn, passed, err
		})
		if err != nil {
			return nil, err
		}
		w.did[1] = len(prompts)
	}
	if prompts, err := activities.Prompts(w.ctx, nil, p, w.c, "interaction"); err != nil {
		return nil, err
	} else if prompts = prompts[:min(len(prompts), max(w.o.Rows/8, 1))]; len(prompts) > 0 {
		err := w.timed("conversations", &r.Talk, len(prompts), p.Spec.Introspection.Interaction.MaxTokens*(p.Spec.Introspection.Turns|1), .4, func(ctx context.Context, watch activities.Watch) (drawn, passed int, err error) {
			talks, err := activities.Talks(ctx, w.m, stack, p, w.c, prompts, watch)
			for _, v := range talks {
				drawn += v.Tokens
				if v.Drop == "" {
					passed++
				}
			}
			rows = append(rows, talks...)
			return drawn, passed, err
		})
		if err != nil {
			return nil, err
		}
		w.did[2] = len(prompts)
	}
	if len(rows) == 0 { // nothing within the budget
		rows = []dataset.Conversation{{ID: "filler", Kind: "reflection", Messages: append(said("user", "Who are you?"), said("assistant", w.filler(activities.RoleStudent))...)}}
	}
	return rows, nil
}

func (w *work) sft(dpo *transformer.Adapter, talks []dataset.Conversation) error {
	of := func(kind string) (rows []train.Row, err error) {
		var some []dataset.Conversation
		for _, v := range talks {
			last := v.Messages[len(v.Messages)-1]
			if v.Kind == kind && last.Content != "" {
				some = append(some, v)
			}
		}
		return activities.TrainingRows(w.p, w.m, some)
	}
	mean := func(rows []train.Row, was float64) float64 {
		if len(rows) == 0 {
			return was
		}
		n := 0
		for _, x := range rows {
			n += len(x.Example.Tokens)
		}
		return float64(n) / float64(len(rows))
	}
	reflections, err := of("reflection")
	if err != nil {
		return err
	}
	interactions, err := of("interaction")
	if err != nil {
		return err
	}
	w.r.ReflectionTokens, w.r.TalkTokens = mean(reflections, w.r.ReflectionTokens), mean(interactions, w.r.TalkTokens)
	rows := append(interactions[:min(len(interactions), 1)], reflections...)
	if len(rows) == 0 {
		w.r.SFT = 4 * w.r.Score
		return nil
	}
	batch := rows[:min(len(rows), w.p.Spec.SFT.BatchSize)]
	n := 0
	for _, x := range batch {
		n += len(x.Example.Tokens)
	}
	t, _, _, err := activities.NewTrainer(w.p, activities.KindSFT, w.m, []*transformer.Adapter{dpo}, len(rows), w.ws)
	if err != nil {
		return err
	}
	w.r.SFT, err = w.learn("sft", n, .9, func() error { _, err := t.StepSFT(batch); return err })
	return err
}
