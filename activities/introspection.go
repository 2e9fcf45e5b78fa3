package activities

import (
	"context"

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
	answers, err := d.answers(ctx, in.Reflections)
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
	st := Stage{Kind: KindIntrospection, Key: in.Key}
	rows, err := IntrospectionOf(p, c, answers, talks, &st)
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
