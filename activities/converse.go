package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/sample"
)

// talk is one conversation of two copies of the character, seen by the first speaker.
type talk struct {
	id, opener, greeting string
	said                 []string // the first speaker says said[0], said[2], ...
	drop                 string
	tokens               int
}

// messages is the conversation as one speaker sees it: own lines are the assistant's, the other's are the user's. The
// first speaker hears the opener; the second heard a greeting, said the opener, and goes on from there.
func (t *talk) messages(system string, first bool) []chat.Message {
	msgs := []chat.Message{{Role: "system", Content: system}}
	if first {
		msgs = append(msgs, chat.Message{Role: "user", Content: t.opener})
	} else {
		msgs = append(msgs, chat.Message{Role: "user", Content: t.greeting}, chat.Message{Role: "assistant", Content: t.opener})
	}
	for i, s := range t.said {
		role := "user"
		if (i%2 == 0) == first {
			role = "assistant"
		}
		msgs = append(msgs, chat.Message{Role: role, Content: s})
	}
	return msgs
}

// Converse lets two copies of the character talk: the roles are swapped for real at every turn, each copy seeing its
// own lines as the assistant's. A conversation is kept when every turn passes the filters.
func (e *Engine) Converse(ctx context.Context, in ChunkInput) (ChunkOutput, error) {
	var live progress
	return onDevice(ctx, e, &live, func(ctx context.Context) (ChunkOutput, error) {
		out, err := e.converse(ctx, in, &live)
		out.Lanes = lanesOf(ctx, e.Lanes, EngineQueue)
		return out, err
	})
}

func (e *Engine) converse(ctx context.Context, in ChunkInput, live *progress) (ChunkOutput, error) {
	start := time.Now()
	p, rows, err := chunkRows(ctx, e.Store, in)
	if err != nil {
		return ChunkOutput{}, err
	}
	c, err := getConstitution(ctx, e.Store, p)
	if err != nil {
		return ChunkOutput{}, err
	}
	m, stack, err := e.open(ctx, live, p.sampling(p.Model), in.Adapters)
	if err != nil {
		return ChunkOutput{}, err
	}
	said, err := e.kernels(ctx, p, m)
	if err != nil {
		return ChunkOutput{}, err
	}
	intro, seeds, system := p.Spec.Introspection, constitution.InteractionSeeds(), interactionSystem(p, c)
	turns := intro.Turns | 1 // the trained side has the last word
	lim := turnLimits(limits(intro.Filter))
	talks := make([]*talk, len(rows))
	for i, q := range rows {
		talks[i] = &talk{id: q.ID, opener: q.Text, greeting: seeds[rowKey("greeting", q.ID)%uint64(len(seeds))].Text}
	}
	live.set(func(l *Live) { l.Total = len(rows) * turns })
	for turn := range turns {
		var open []*talk
		var reqs []sample.Request
		for _, t := range talks {
			if t.drop != "" {
				continue
			}
			ids, err := m.Chat.Prompt(t.messages(system, turn%2 == 0))
			if err != nil {
				return ChunkOutput{}, fatal(BadInput, fmt.Errorf("conversation %s: %w", t.id, err))
			}
			open = append(open, t)
			reqs = append(reqs, sample.Request{Key: rowKey(fmt.Sprintf("interaction-%d", turn), t.id), Prompt: ids, Params: params(intro.Interaction, p.Spec.Seed, m)})
		}
		err := sample.Generate(ctx, m.Model, stack, reqs, sample.Options{MaxRows: intro.Parallel, Decode: m.Tokens.DecodeText, Alive: live.alive,
			Progress: func(done, tokens int) { live.set(func(l *Live) { l.Done = len(rows)*turn + done }) }},
			func(i int, r sample.Result) error {
				text, reason := dataset.CheckResponse(lim, r.Finish, m.Tokens.DecodeText(r.Tokens))
				open[i].said, open[i].drop = append(open[i].said, text), reason
				open[i].tokens += len(r.Tokens)
				e.did(ctx, "interaction", fmt.Sprintf("%s/%d", open[i].id, turn))
				return nil
			})
		if err != nil {
			return ChunkOutput{}, notFinite(err, "interaction", func(i int) string { return open[i].id })
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
	o, err := commitChunk(ctx, e.Store, in, "parts/interaction", convs, ofConversation, start)
	o.Said = said
	return o, err
}

// turnLimits are the limits of one turn: the floor is for whole answers; a turn of talk may be short.
func turnLimits(l dataset.Limits) dataset.Limits {
	if l.MinChars == 0 || l.MinChars > dataset.DefaultPreferenceMinChars {
		l.MinChars = dataset.DefaultPreferenceMinChars
	}
	return l
}
