package estimate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// Role is what one row of a kind takes.
type Role struct {
	Pass    float64 // share that passes the filters
	Prompt  float64 // tokens of the whole prompt
	Shared  float64 // tokens that all prompts begin with
	Read    float64 // tokens read a row, the shared ones apart
	Drawn   float64 // tokens written a row
	Seconds float64 // a row, in a batch

	measured float64 // Pass as it was measured
}

// Rates are what was measured, a row or a token. What could not be measured has the stated assumption, and no seconds.
type Rates struct {
	Teacher, Student, Reflection, Talk       Role
	PairTokens, ReflectionTokens, TalkTokens float64 // of one row, as it is trained on
	HeldTokens, EvalDrawn, Long              float64
	Score, DPO, SFT, Draw                    float64 // seconds a token
	PeakMemory                               int64
	Share                                    float64 // of all cores, that the measurement got; 0 = not known
	Measured                                 bool
	Took                                     float64
	Basis                                    []string
}

// Assumed is what is taken for granted where no model is here: answers of half their limit, of which most pass.
func Assumed(p activities.Plan) Rates {
	s := p.Spec
	half := func(n int) Role { return Role{Pass: .8, Prompt: 60, Read: 20, Drawn: float64(n) / 2} }
	r := Rates{Teacher: half(s.Preferences.Teacher.MaxTokens), Student: half(s.Preferences.Student.MaxTokens), Reflection: half(s.Introspection.Reflection.MaxTokens),
		Talk: half(s.Introspection.Interaction.MaxTokens), EvalDrawn: float64(s.Evaluation.Sampling.MaxTokens) / 2, HeldTokens: 80}
	r.Talk.Drawn *= float64(s.Introspection.Turns | 1)
	r.PairTokens = 2*40 + r.Teacher.Drawn + r.Student.Drawn
	r.ReflectionTokens, r.TalkTokens = 60+r.Reflection.Drawn, 60+r.Talk.Drawn
	r.Basis = []string{"nothing was measured: answers are taken to be half as long as max_tokens allows, and 80 % of them to pass"}
	return r
}

// Sample is how much of a run Measure does.
type Sample struct {
	Rows   int           // of teacher, student and reflections
	Budget time.Duration // for all of it; what did not fit is estimated from the rest and named
	Say    func(string)  // what is measured now
}

// Measure does a small part of every stage on this machine: some rows of both sides of the pairs, a step of each training, some
// reflections and a conversation. The adapters are untrained, so reflections of the trained model may be of another length.
func Measure(ctx context.Context, p activities.Plan, m, teacher *activities.Loaded, c *constitution.Constitution, rec []constitution.Example, o Sample) (Rates, error) {
	r := Assumed(p)
	r.Basis = nil
	began, before := time.Now(), cpu()
	defer func(old int) { debug.SetGCPercent(old) }(debug.SetGCPercent(10)) // as a worker has it: the peak is to be the worker's
	w := &work{ctx: ctx, p: p, m: m, teacher: teacher, c: c, rec: rec, o: o, r: &r, ws: transformer.NewWorkspace(), end: began.Add(o.Budget)}
	if err := w.all(); err != nil {
		return r, err
	}
	r.Measured, r.Took, r.PeakMemory = true, time.Since(began).Seconds(), peak()
	if used := cpu() - before; before >= 0 {
		r.Share = min(used/(r.Took*float64(runtime.GOMAXPROCS(0))), 1)
	}
	r.afterDPO(p)
	r.Basis = append([]string{fmt.Sprintf("measured here in %.0f s: %d prompts answered by both sides, %d reflections, %d conversations, steps of both trainings with an untrained adapter", r.Took, w.did[0], w.did[1], w.did[2])}, r.Basis...)
	if r.PeakMemory == 0 {
		r.Basis = append(r.Basis, "this system does not tell a process's peak of memory")
	}
	return r, nil
}

// afterDPO corrects what an untrained adapter was measured with: a small model that plays a part rambles, and after DPO it
// speaks much as its teacher did. So half of the word is given to how often the teacher's answers pass; of a conversation, at
// every second turn.
func (r *Rates) afterDPO(p activities.Plan) {
	like := remotePass
	if p.Spec.Teacher == "local" {
		like = r.Teacher.Pass
	}
	for _, x := range []struct {
		name  string
		role  *Role
		prior float64
	}{{"teacher's answers", &r.Teacher, 0}, {"student's answers", &r.Student, 0}, {"reflections", &r.Reflection, like}, {"conversations", &r.Talk, math.Pow(like, float64(p.Spec.Introspection.Turns)/2)}} {
		if x.role.Seconds == 0 {
			continue
		}
		as := ""
		if x.prior > 0 {
			as = fmt.Sprintf("; after DPO %.0f %% are taken to", 50*(x.role.Pass+x.prior))
			x.role.Pass = (x.role.Pass + x.prior) / 2
		}
		r.Basis = append(r.Basis, fmt.Sprintf("%s: %.0f tokens and %.2f s a row; %.0f %% pass the filters%s", x.name, x.role.Drawn, x.role.Seconds, 100*x.role.measured, as))
	}
}

// work is a measurement under way.
type work struct {
	ctx        context.Context
	p          activities.Plan
	m, teacher *activities.Loaded
	c          *constitution.Constitution
	rec        []constitution.Example
	o          Sample
	r          *Rates
	ws         *transformer.Workspace
	end        time.Time
	did        [3]int
	drawn      float64 // tokens and seconds of drawing
	drawing    float64
}

func (w *work) say(f string, a ...any) {
	if w.o.Say != nil {
		w.o.Say(fmt.Sprintf(f, a...))
	}
}

func (w *work) note(f string, a ...any) { w.r.Basis = append(w.r.Basis, fmt.Sprintf(f, a...)) }

// timed runs f, which draws text and tells its tokens, for at most share of the budget that is left. When that is not
// enough the row's time is taken from the tokens that were drawn until then, at their full length.
func (w *work) timed(name string, role *Role, rows, most int, share float64, f func(ctx context.Context, watch activities.Watch) (drawn, passed int, err error)) error {
	w.say("%s: %d rows", name, rows)
	left := time.Until(w.end)
	ctx, cancel := context.WithTimeout(w.ctx, time.Duration(float64(left)*share))
	defer cancel()
	tokens := 0
	start := time.Now()
	drawn, passed, err := f(ctx, activities.Watch{Progress: func(_, n int) { tokens += n }})
	took := time.Since(start).Seconds()
	switch {
	case err == nil:
		role.Pass, role.Drawn, role.Seconds = float64(passed)/float64(rows), float64(drawn)/float64(rows), took/float64(rows)
		w.drawn, w.drawing, role.measured = w.drawn+float64(drawn), w.drawing+took, role.Pass
		if passed == 0 { // a few rows say little; a run that passes none would fail
			role.Pass = 1 / float64(rows+1)
		}
		return nil
	case w.ctx.Err() != nil:
		return context.Cause(w.ctx)
	case errors.Is(err, context.DeadlineExceeded):
		role.Drawn = float64(most)
		if tokens > 0 {
			role.Seconds = took / float64(tokens) * role.Drawn
			w.drawn, w.drawing = w.drawn+float64(tokens), w.drawing+took
			w.note("%s: %d tokens in %.0f s; every answer is taken to be as long as it may be", name, tokens, took)
		} else {
			w.note("%s: nothing was drawn within its part of --budget", name)
		}
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// prompt measures how long prompts are that begin with some messages.
func prompt(m *activities.Loaded, before []chat.Message, questions []string) (whole, shared, own float64, err error) {
	first := -1
	var begin []int32
	for _, q := range questions {
		ids, err := m.Chat.Prompt(append(append([]chat.Message{}, before...), chat.Message{Role: "user", Content: q}))
		if err != nil {
			return 0, 0, 0, err
		}
		whole += float64(len(ids))
		if first < 0 {
			first, begin = len(ids), ids
		}
		for i := range begin[:first] {
			if i >= len(ids) || ids[i] != begin[i] {
				first = i
				break
			}
		}
	}
	n := float64(max(len(questions), 1))
	return whole / n, float64(max(first, 0)), whole/n - float64(max(first, 0)), nil
}

// learn is the time of a training token, of the quicker of two steps; where a step would not fit into the budget it is
// taken as four times the scoring.
func (w *work) learn(name string, tokens int, share float64, step func() error) (float64, error) {
	fits := func() bool { return 4*w.r.Score*float64(tokens) < time.Until(w.end).Seconds()*share }
	best := 0.0
	for i := range 2 {
		if !fits() || tokens == 0 {
			break
		}
		if w.ctx.Err() != nil {
			return 0, context.Cause(w.ctx)
		}
		w.say("%s: step %d of 2, %d tokens", name, i+1, tokens)
		start := time.Now()
		if err := step(); err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		if took := time.Since(start).Seconds() / float64(tokens); best == 0 || took < best {
			best = took
		}
	}
	if best == 0 {
		best = 4 * w.r.Score
		w.note("%s: a step did not fit into --budget; a token is taken to train in four times the time it scores in", name)
	}
	return best, nil
}

// examples adds up tokens.
func examples(list []train.Example) (n int) {
	for _, x := range list {
		n += len(x.Tokens)
	}
	return n
}

// said makes a row's message list.
func said(role, text string) []dataset.Message { return []dataset.Message{{Role: role, Content: text}} }
