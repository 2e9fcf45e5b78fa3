package activities

import (
	"context"
	"fmt"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/evaluation"
)

// subject is a model as an own evaluation may use it.
type subject struct {
	v       *evaluator
	name    string // of the evaluation
	which   string
	answers []Answer
	held    []constitution.Example
}

func (s subject) Which() string                { return s.which }
func (s subject) Character() string            { return s.v.plan.Name }
func (s subject) Answers() []evaluation.Answer { return told(s.answers) }

func (s subject) HeldOut() (out []evaluation.Example) {
	for _, h := range s.held {
		out = append(out, evaluation.Example{Prompt: h.Prompt, Response: h.Response})
	}
	return out
}

func (s subject) Ask(ctx context.Context, prompts []string) ([]evaluation.Answer, error) {
	a, err := s.v.answer(ctx, KindEvaluation+"/"+s.name, prompts)
	return told(a), err
}

func (s subject) Score(ctx context.Context, rows []evaluation.Example) (float64, error) {
	ex := make([]constitution.Example, len(rows))
	for i, r := range rows {
		ex[i] = constitution.Example{Prompt: r.Prompt, Response: r.Response}
	}
	return s.v.score(ctx, nil, ex)
}

func told(answers []Answer) (out []evaluation.Answer) {
	for _, a := range answers {
		out = append(out, evaluation.Answer{Prompt: a.Prompt, Text: a.Response, Finish: a.Finish})
	}
	return out
}

// own lets the program's own evaluations measure, in the order of the spec.
func (v *evaluator) own(ctx context.Context, r Measured, held []constitution.Example) (map[string]map[string]float64, error) {
	var out map[string]map[string]float64
	for _, name := range v.plan.Spec.Evaluation.Own {
		x, err := v.plan.own.find(ownEvaluation, name)
		if err != nil {
			return nil, fatal(BadInput, err)
		}
		e := x.(evaluation.Evaluation) // has(ownEvaluation) holds nothing else
		values, err := e.Measure(ctx, subject{v, name, r.Which, r.Answers, held})
		if err != nil {
			return nil, permanent(fmt.Errorf("evaluation %s of %s: %w", name, r.Which, err))
		}
		if err := evaluation.Check(values); err != nil {
			return nil, fatal(StageFailed, fmt.Errorf("evaluation %s of %s: %w", name, r.Which, err))
		}
		if out == nil {
			out = map[string]map[string]float64{}
		}
		out[name] = values
		v.did("own evaluation " + name)
	}
	return out, nil
}

// ownValues names the values of own evaluations of one model: NAME.VALUE.MODEL.
func ownValues(m Measured, into map[string]float64) {
	for name, values := range m.Own {
		for value, x := range values {
			into[name+"."+value+"."+m.Which] = x
		}
	}
}
