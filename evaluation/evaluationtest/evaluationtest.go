// Package evaluationtest is the conformance suite of evaluation.Evaluation: the rules that a run relies on, as tests.
//
//	func TestEvaluation(t *testing.T) {
//		evaluationtest.Run(t, myEvaluation{})
//	}
package evaluationtest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/evaluation"
	"github.com/opencharacter/opencharacter/spec"
)

// Model is a model that says what it is told to, for tests.
type Model struct {
	Name   string              // base, dpo or character
	Says   func(string) string // its answer to a prompt; nil says the prompt again. Longer answers than 200 bytes are cut.
	Checks []string            // check prompts
	Held   []evaluation.Example
	Err    error // of Ask and Score
	Asked  int   // how often Ask or Score was called
}

// Which is the model's name.
func (m *Model) Which() string { return m.Name }

// Character is captain.
func (m *Model) Character() string { return "captain" }

// HeldOut are the held-out answers.
func (m *Model) HeldOut() []evaluation.Example { return slices.Clone(m.Held) }

// Answers are the answers to the check prompts.
func (m *Model) Answers() []evaluation.Answer { return m.say(m.Checks) }

func (m *Model) say(prompts []string) (out []evaluation.Answer) {
	for _, p := range prompts {
		text, finish := p, "stop"
		if m.Says != nil {
			text = m.Says(p)
		}
		if len(text) > 200 {
			text, finish = strings.ToValidUTF8(text[:200], ""), "length"
		}
		out = append(out, evaluation.Answer{Prompt: p, Text: text, Finish: finish})
	}
	return out
}

func (m *Model) called(ctx context.Context) error {
	m.Asked++
	return errors.Join(ctx.Err(), m.Err)
}

// Ask answers prompts.
func (m *Model) Ask(ctx context.Context, prompts []string) ([]evaluation.Answer, error) {
	if err := m.called(ctx); err != nil {
		return nil, err
	}
	return m.say(prompts), nil
}

// Score likes short responses: minus their mean length in bytes, over ten.
func (m *Model) Score(ctx context.Context, rows []evaluation.Example) (float64, error) {
	if err := m.called(ctx); err != nil || len(rows) == 0 {
		return 0, err
	}
	n := 0
	for _, r := range rows {
		n += len(r.Response)
	}
	return -float64(n) / float64(len(rows)) / 10, nil
}

var errDevice = errors.New("the model is gone")

// Run tests an evaluation with models that speak, that say nothing, that ramble, and that fail.
func Run(t *testing.T, e evaluation.Evaluation) {
	t.Helper()
	if err := spec.CheckOwn("evaluation", e.Name(), e.Version()); err != nil {
		t.Error(err)
	}
	checks := []string{"Hello!", "Who are you?", "How do I bake bread?"}
	held := []evaluation.Example{{Prompt: "Hello?", Response: "Ahoy!"}, {Prompt: "What now?", Response: "Weigh anchor."}}
	says := map[string]func(string) string{
		"echo": nil, "nothing": func(string) string { return "" }, "rambles": func(string) string { return strings.Repeat("the sea, ", 1000) },
		"strange": func(string) string { return "\x00\u202e<|im_end|>\U0001f99c" }, "aye": func(q string) string { return "Aye: " + q },
	}
	for _, name := range slices.Sorted(maps.Keys(says)) {
		for _, m := range []Model{{Checks: checks, Held: held}, {Checks: checks}, {Held: held}, {}} {
			var names []string
			for i, which := range []string{"base", "dpo", "character"} {
				m.Name, m.Says = which, says[name]
				one := measure(t, e, m)
				if two := measure(t, e, m); !maps.Equal(one, two) {
					t.Errorf("%s: of the same model it measures %v and then %v", e.Name(), one, two)
				}
				have := slices.Sorted(maps.Keys(one))
				if i > 0 && !slices.Equal(have, names) {
					t.Errorf("%s: of %s it measures %v, and of the model before %v; the names must be the same", e.Name(), which, have, names)
				}
				names = have
			}
			if len(m.Checks) > 0 && len(m.Held) > 0 && name == "aye" && len(names) == 0 {
				t.Errorf("%s measures nothing of a model that answers, with answers held out", e.Name())
			}
		}
	}
	ends(t, e, Model{Name: "base", Checks: checks, Held: held})
}

func measure(t *testing.T, e evaluation.Evaluation, m Model) map[string]float64 {
	t.Helper()
	v, err := e.Measure(t.Context(), &m)
	if err != nil {
		t.Errorf("%s: %s with %d check prompts and %d held-out answers: %v", e.Name(), m.Name, len(m.Checks), len(m.Held), err)
	}
	if err := evaluation.Check(v); err != nil {
		t.Errorf("%s: %v", e.Name(), err)
	}
	return v
}

// ends measures a model that fails, and with a context that is over.
func ends(t *testing.T, e evaluation.Evaluation, m Model) {
	t.Helper()
	m.Err = errDevice
	if _, err := e.Measure(t.Context(), &m); m.Asked > 0 && !errors.Is(err, errDevice) {
		t.Errorf("%s: the model fails, and the error is %v: return the model's own", e.Name(), err)
	}
	m.Err = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	go func() {
		_, err := e.Measure(ctx, &m)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Errorf("%s measures though its context is over; return ctx.Err()", e.Name())
		}
	case <-time.After(time.Minute):
		t.Errorf("%s still measures a minute after its context was over", e.Name())
	}
}
