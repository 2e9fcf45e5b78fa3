package activities

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
)

// ImportInput names the plan, whose file is read, and the stage's key.
type ImportInput struct {
	Plan store.Ref `json:"plan"`
	Key  string    `json:"key"`
}

// dropHeldOut is the reason of an imported pair that the evaluation holds out: it must stay unseen.
const dropHeldOut = "held_out"

// ImportPairs makes the preference data set of the user's rows instead of asking anyone. The quality filters apply
// as they do to generated answers; every row of the file is wanted, whatever the target.
func (d *Data) ImportPairs(ctx context.Context, in ImportInput) (Stage, error) {
	p, err := getPlan(ctx, d.Store, in.Plan)
	if err != nil {
		return Stage{}, err
	}
	b, err := d.Store.Get(ctx, *p.Pairs)
	if err != nil {
		return Stage{}, err
	}
	rows, err := dataset.RunPreferences(b)
	if err != nil {
		return Stage{}, fatal(BadInput, fmt.Errorf("preferences.file: %w", err))
	}
	rec, err := recorded(ctx, d.Store, p)
	if err != nil {
		return Stage{}, err
	}
	held, _ := splitHeldOut(p, rec)
	unseen := map[string]bool{}
	for _, h := range held {
		unseen[fold(h.Prompt)] = true
	}
	if err := d.Own.bind(&p, ownFilter); err != nil {
		return Stage{}, notHere(err)
	}
	st := Stage{Kind: KindPreferences, Key: in.Key, Rows: int64(len(rows)), Dropped: map[string]int64{}}
	pairs, err := siftPairs(p, p.Spec.Preferences.Filter, rows, unseen, st.Dropped)
	if err != nil {
		return Stage{}, err
	}
	return d.keepPairs(ctx, p, st, pairs)
}

// siftPairs applies the quality filters and counts what they drop by reason; unseen are prompts, folded, that may not be
// trained on. p has the filters of the program's own, if f names any.
func siftPairs(p Plan, f spec.Filter, rows []dataset.Pair, unseen map[string]bool, dropped map[string]int64) (kept []dataset.Pair, err error) {
	chosen, err := judgeOf(RoleTeacher, p, preferenceLimits(f), f)
	if err != nil {
		return nil, err
	}
	rejected := chosen
	rejected.role, rejected.limits.AllowIdentity = RoleStudent, true
	for _, r := range rows {
		drop, err := cleanTurns(chosen, "chosen: ", r.Prompt, r.Chosen)
		if drop == "" && err == nil {
			drop, err = cleanTurns(rejected, "rejected: ", r.Prompt, r.Rejected)
		}
		if err != nil {
			return nil, err
		}
		if drop == "" && fold(spoken(r.Chosen)) == fold(spoken(r.Rejected)) {
			drop = dropIdentical
		}
		if drop == "" && unseen[fold(r.Prompt[len(r.Prompt)-1].Content)] {
			drop = dropHeldOut
		}
		if drop != "" {
			dropped[drop]++
			continue
		}
		r.Teacher, r.Student = "imported", "imported"
		kept = append(kept, r)
	}
	return kept, nil
}

// siftTalks does the same with reflections and conversations, of which every turn must pass.
func siftTalks(p Plan, f spec.Filter, rows []dataset.Conversation, dropped map[string]int64) (kept []dataset.Conversation, err error) {
	for _, r := range rows {
		l := limits(f)
		if r.Kind == "interaction" {
			l = turnLimits(l)
		}
		j, err := judgeOf(r.Kind, p, l, f)
		if err != nil {
			return nil, err
		}
		drop, err := cleanTurns(j, r.Kind+": ", nil, r.Messages)
		if err != nil {
			return nil, err
		}
		if drop != "" {
			dropped[drop]++
			continue
		}
		kept = append(kept, r)
	}
	return kept, nil
}

// ImportIntrospection makes the introspection data set of the user's rows: reflections, and conversations of which
// every turn must pass.
func (d *Data) ImportIntrospection(ctx context.Context, in ImportInput) (Stage, error) {
	p, err := getPlan(ctx, d.Store, in.Plan)
	if err != nil {
		return Stage{}, err
	}
	b, err := d.Store.Get(ctx, *p.Talks)
	if err != nil {
		return Stage{}, err
	}
	all, err := dataset.RunIntrospection(b)
	if err != nil {
		return Stage{}, fatal(BadInput, fmt.Errorf("introspection.file: %w", err))
	}
	if err := d.Own.bind(&p, ownFilter); err != nil {
		return Stage{}, notHere(err)
	}
	st := Stage{Kind: KindIntrospection, Key: in.Key, Rows: int64(len(all)), Dropped: map[string]int64{}, Values: map[string]float64{}}
	rows, err := siftTalks(p, p.Spec.Introspection.Filter, all, st.Dropped)
	if err != nil {
		return Stage{}, err
	}
	for _, r := range rows {
		st.Values[r.Kind+"s"]++
	}
	if len(rows) == 0 {
		return Stage{}, fatal(StageFailed, fmt.Errorf("introspection: none of the %d rows of the file passed; dropped: %v; mend the rows or widen the filter's limits", len(all), st.Dropped))
	}
	return d.keepConversations(ctx, p, st, rows)
}

// cleanTurns filters what was said, leaving in msgs what is to be kept of it, and returns the first reason to drop it.
// System messages are instructions, not speech; what a user asks may be of any length. before is the conversation before msgs.
func cleanTurns(j judge, prefix string, before, msgs []dataset.Message) (drop string, err error) {
	asked := ""
	if len(before) > 0 {
		asked = before[len(before)-1].Content
	}
	for i, m := range msgs {
		if m.Role == "assistant" {
			clean, reason, err := j.check(asked, "stop", m.Content)
			if err != nil || reason != "" {
				return prefix + reason, err
			}
			msgs[i].Content = clean
		}
		asked = msgs[i].Content
	}
	return "", nil
}

func spoken(msgs []dataset.Message) string {
	var b strings.Builder
	for _, m := range msgs {
		b.WriteString(m.Content + "\n")
	}
	return b.String()
}
