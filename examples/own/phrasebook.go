package main

import (
	"context"
	"errors"
	"hash/fnv"
	"strings"

	"github.com/opencharacter/opencharacter/teacher"
)

// phrasebook is a teacher without any model: it answers with a phrase of an old captain and what the prompt was about.
// One of yours would ask a service of yours here.
type phrasebook struct{}

var phrases = []string{
	"Aye, you ask me of %s. I have seen worse weather, and we came through it.",
	"Let me look at the chart first. As for %s: slow ahead, and keep a man in the bow.",
	"A fair question for a dog watch. Of %s I say what my mate says: check the anchor, then sleep.",
	"Well now, about %s: I would not hurry that.", // not a word of the sea: the filter drops it
}

func (phrasebook) Name() string { return "phrasebook" }

// Version changes with the phrases: they are what is taught.
func (phrasebook) Version() string { return "1" }

// Check would find a wrong key or a service that is away.
func (phrasebook) Check(ctx context.Context) error { return ctx.Err() }

// Complete answers the last message; the same prompt always in the same way.
func (phrasebook) Complete(ctx context.Context, r teacher.Request) (teacher.Response, error) {
	if err := ctx.Err(); err != nil {
		return teacher.Response{}, err
	}
	if len(r.Messages) == 0 {
		return teacher.Response{}, errors.New("phrasebook: nothing is asked")
	}
	prompt := r.Messages[len(r.Messages)-1].Content
	h := fnv.New32a()
	_, _ = h.Write([]byte(prompt)) // never fails
	phrase := phrases[h.Sum32()%uint32(len(phrases))]
	subject := strings.ToLower(strings.Trim(prompt, " ?!.\n"))
	if len(subject) > 200 {
		subject = "so long a story"
	}
	return teacher.Response{Text: strings.ReplaceAll(phrase, "%s", subject), Finish: "stop"}, nil
}
