package activities

import (
	"context"
	"time"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/lm/chat"
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
	p, rows, err := chunkRows(ctx, e.Store, e.Own, in)
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
	live.set(func(l *Live) { l.Total = len(rows) * turnsOf(p) })
	convs, err := Talks(ctx, m, stack, p, c, rows, Watch{Alive: live.alive, Did: func(turn string) { e.did(ctx, "interaction", turn) },
		Drawn:    func(tokens int) { e.meter().Drawn("interaction", tokens) },
		Progress: func(done, _ int) { live.set(func(l *Live) { l.Done = done }) }})
	if err != nil {
		return ChunkOutput{}, err
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
