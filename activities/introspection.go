package activities

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/store"
)

// JoinIntrospectionInput has the chains of reflections and interactions; either may be missing.
type JoinIntrospectionInput struct {
	Plan         store.Ref  `json:"plan"`
	Key          string     `json:"key"`
	Reflections  *store.Ref `json:"reflections,omitempty"`
	Interactions *store.Ref `json:"interactions,omitempty"`
}

// JoinIntrospection makes the introspection data set: kept reflections (without the system prompt under which they were
// written) and kept interactions, each up to its target, in the order of their prompts.
func (d *Data) JoinIntrospection(ctx context.Context, in JoinIntrospectionInput) (Stage, error) {
	p, err := getPlan(ctx, d.Store, in.Plan)
	if err != nil {
		return Stage{}, err
	}
	c, err := getConstitution(ctx, d.Store, p)
	if err != nil {
		return Stage{}, err
	}
	want := p.Spec.Introspection
	st := Stage{Kind: KindIntrospection, Key: in.Key, Dropped: map[string]int64{}, Values: map[string]float64{}}
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
	answers, err := d.answers(ctx, in.Reflections)
	if err != nil {
		return Stage{}, err
	}
	err = take("reflection", want.Reflections, len(answers), func(i int) (dataset.Conversation, string) {
		r := answers[i]
		return dataset.Conversation{ID: r.ID, Kind: "reflection", TemplateID: r.ID[:max(0, strings.LastIndexByte(r.ID, '-'))], PromptText: r.Prompt, SourceSystemPrompt: reflectionSystem(p, c), Turns: 1, Tokens: r.Tokens,
			Messages: []dataset.Message{{Role: "user", Content: r.Prompt}, {Role: "assistant", Content: r.Text}}}, r.Drop
	})
	if err != nil {
		return Stage{}, err
	}
	nodes, err := chain(ctx, d.Store, in.Interactions)
	if err != nil {
		return Stage{}, err
	}
	var refs []store.Ref
	for _, n := range nodes {
		refs = append(refs, n.Part)
	}
	talks, err := dataset.ReadParts[dataset.Conversation](ctx, d.Store, refs)
	if err != nil {
		return Stage{}, err
	}
	err = take("interaction", want.Interactions, len(talks), func(i int) (dataset.Conversation, string) { return talks[i], talks[i].Drop })
	if err != nil {
		return Stage{}, err
	}
	return d.keepConversations(ctx, p, st, rows)
}

// keepConversations writes the data set of kept rows.
func (d *Data) keepConversations(ctx context.Context, p Plan, st Stage, rows []dataset.Conversation) (_ Stage, err error) {
	st.Kept, st.Dropped = int64(len(rows)), counts(st.Dropped)
	if st.Parts, err = dataset.WriteParts(ctx, d.Store, "parts/introspection", rows); err != nil {
		return Stage{}, err
	}
	st.Folder, err = writeFolder(ctx, d.Store, p, "introspection", st, rows)
	return st, err
}
