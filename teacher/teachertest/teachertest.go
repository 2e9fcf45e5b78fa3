// Package teachertest is the conformance suite of teacher.Teacher: the rules that a run relies on, as tests.
//
//	func TestTeacher(t *testing.T) {
//		teachertest.Run(t, myTeacher{}, teachertest.Cases{Prompts: []string{"Hello?", "Who are you?"}})
//	}
package teachertest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/teacher"
)

// Cases are what the teacher under test can answer.
type Cases struct {
	// Prompts must all be answered; at least one.
	Prompts []string
	// Refused are prompts that it never answers, with an error that is teacher.ErrRefused; none if it has no such prompts.
	Refused []string
	// Secret is a key that must not show in any error; "" if there is none.
	Secret string
	// Patience is how long one answer may take; 0 is a minute.
	Patience time.Duration
}

// hostile are prompts that may be answered or not, and must not break anything.
var hostile = []string{"", " ", "\x00", "\u202e", "<|im_end|>", `{"role":"system"}`, "%s%d%!", strings.Repeat("long ", 20000), strings.Repeat("\U0001f99c", 2000)}

// Run tests a teacher.
func Run(t *testing.T, tt teacher.Teacher, c Cases) {
	t.Helper()
	if c.Patience == 0 {
		c.Patience = time.Minute
	}
	if len(c.Prompts) == 0 {
		t.Fatal("teachertest: give at least one prompt that it answers")
	}
	if n, ok := tt.(teacher.Named); ok {
		if err := spec.CheckOwn("teacher", n.Name(), n.Version()); err != nil {
			t.Error(err)
		}
	}
	s := suite{t, tt, c}
	ctx, cancel := context.WithTimeout(t.Context(), c.Patience)
	defer cancel()
	if err := tt.Check(ctx); err != nil {
		t.Errorf("Check: %v", err)
	}
	s.answers()
	for _, p := range c.Refused {
		if _, err := s.ask(p); !errors.Is(err, teacher.ErrRefused) {
			t.Errorf("%.80q is refused with %v, which is not teacher.ErrRefused", p, err)
		}
	}
	for _, p := range hostile {
		r, err := s.ask(p)
		s.whole(p, r, err)
	}
	if _, err := tt.Complete(ctx, teacher.Request{}); err == nil {
		t.Error("a conversation without messages is answered")
	} else {
		s.silent(err)
	}
	s.ends()
}

type suite struct {
	t *testing.T
	teacher.Teacher
	c Cases
}

// request is what a run asks: an instruction, an example turn, the prompt.
func request(prompt string) teacher.Request {
	seed := int64(1)
	return teacher.Request{Temperature: .7, TopP: .95, MaxTokens: 200, Seed: &seed, Messages: []teacher.Message{
		{Role: "system", Content: "You are the captain of a ship."}, {Role: "user", Content: "Hello!"}, {Role: "assistant", Content: "Ahoy!"}, {Role: "user", Content: prompt}}}
}

func (s suite) ask(prompt string) (teacher.Response, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), s.c.Patience)
	defer cancel()
	return s.Complete(ctx, request(prompt))
}

// answers asks all prompts alone and then together: an answer is the answer to its own prompt.
func (s suite) answers() {
	for _, p := range s.c.Prompts {
		r, err := s.ask(p)
		if err != nil {
			s.t.Errorf("%.80q: %v", p, err)
			continue
		}
		if strings.TrimSpace(r.Text) == "" || r.Finish != "stop" {
			s.t.Errorf("%.80q is answered with %.80q, which ended by %q; want a text that ended by \"stop\"", p, r.Text, r.Finish)
		}
		s.whole(p, r, err)
	}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := range s.c.Prompts {
				p := s.c.Prompts[(i+n)%len(s.c.Prompts)]
				if r, err := s.ask(p); err != nil || strings.TrimSpace(r.Text) == "" {
					s.t.Errorf("%.80q, asked beside others: %.80q, %v", p, r.Text, err)
				}
			}
		})
	}
	wg.Wait()
}

// whole checks what every answer and every error must be.
func (s suite) whole(prompt string, r teacher.Response, err error) {
	if err != nil {
		s.silent(err)
		return
	}
	if !utf8.ValidString(r.Text) {
		s.t.Errorf("%.80q: the answer is not valid UTF-8", prompt)
	}
	if r.Finish == "" {
		s.t.Errorf("%.80q: the answer does not say how it ended; \"stop\" when by itself", prompt)
	}
	if r.PromptTokens < 0 || r.CompletionTokens < 0 {
		s.t.Errorf("%.80q: %d and %d tokens", prompt, r.PromptTokens, r.CompletionTokens)
	}
}

// silent checks that an error keeps the secret.
func (s suite) silent(err error) {
	if s.c.Secret != "" && strings.Contains(err.Error(), s.c.Secret) {
		s.t.Error("an error has the secret in it")
	}
}

// ends asks with a context that is over: that is no answer, and nothing final.
func (s suite) ends() {
	ctx, cancel := context.WithCancel(s.t.Context())
	cancel()
	done := make(chan error, 1)
	go func() {
		_, err := s.Complete(ctx, request(s.c.Prompts[0]))
		done <- err
	}()
	select {
	case err := <-done:
		var final interface{ NonRetryable() bool }
		switch {
		case err == nil:
			s.t.Error("it answers though its context is over")
		case errors.As(err, &final) && final.NonRetryable(), errors.Is(err, teacher.ErrRefused):
			s.t.Errorf("a context that is over is taken for a final answer: %v", err)
		}
	case <-time.After(s.c.Patience):
		s.t.Errorf("it still asks %v after its context was over", s.c.Patience)
	}
}
