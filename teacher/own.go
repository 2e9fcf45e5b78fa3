package teacher

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Teacher answers in character. [Client] asks an endpoint, [Recorded] knows its answers by heart; a program can add its
// own as a [Named] one. Package teachertest has the rules as tests.
//
// Both methods are called from many goroutines, and end soon after ctx does. An error is tried again later, unless it has a
// method NonRetryable() bool that says true: then the run fails with what the error says. Keys and passwords must not be in
// any error or answer: both are stored.
type Teacher interface {
	// Check says whether it can answer at all, before work is spent: a wrong key, a model that is not there.
	Check(ctx context.Context) error
	// Complete answers the last message. An answer that ended by itself has the Finish "stop"; others are dropped. An error
	// that is [ErrRefused] drops this prompt only.
	Complete(ctx context.Context, r Request) (Response, error)
}

// Named is a teacher that a program adds to its workers. A spec names it as own:NAME.
type Named interface {
	Teacher
	// Name is small letters, digits and dashes, beginning with a letter.
	Name() string
	// Version tells what it says from what it said before: answers under another version are not used again.
	Version() string
}

// ErrRefused is what errors.Is finds where a teacher will never answer this very prompt, and may well answer others.
var ErrRefused = errors.New("the teacher refuses this prompt")

// Is makes errors.Is(err, ErrRefused) true for an endpoint's answers about what the request says, not about who asks or
// how often.
func (e *Error) Is(target error) bool {
	return target == ErrRefused && (e.Status == http.StatusBadRequest || e.Status == http.StatusRequestEntityTooLarge || e.Status == http.StatusUnprocessableEntity)
}

// Recorded answers from memory: by the last message's text. What it does not know it answers with nothing, which the
// filters drop.
type Recorded map[string]string

// Check finds nothing wrong.
func (r Recorded) Check(ctx context.Context) error { return ctx.Err() }

// Complete gives the recorded answer.
func (r Recorded) Complete(ctx context.Context, q Request) (Response, error) {
	if err := ctx.Err(); err != nil {
		return Response{}, fmt.Errorf("teacher: recorded: %w", err)
	}
	if len(q.Messages) == 0 {
		return Response{}, errors.New("teacher: no messages to answer")
	}
	return Response{Text: r[q.Messages[len(q.Messages)-1].Content], Finish: "stop"}, nil
}
