// Package estimate says what a run will take before anything is spent: rows and tokens by stage, time, memory, storage and
// what a teacher behind an API costs.
//
// Counts follow from the spec. How long answers are, how many pass the filters and how fast this machine is are measured: a
// small part of each stage is done for real, with the same code (see Measure). Nothing here touches a store or a server.
package estimate

import (
	"fmt"
	"math"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/spec"
)

// Stage is what one stage takes.
type Stage struct {
	Name string `json:"name"`
	// Rows are what is tried: prompts of both answers, reflections and conversations, pairs or rows trained on, answers.
	Rows int `json:"rows"`
	// Target is what shall be left of them.
	Target int `json:"target"`
	// Steps of a training.
	Steps int `json:"steps,omitempty"`
	// Read are tokens that a local model reads (prompts once each where they share their beginning), Drawn those it writes,
	// Trained those that go forward and backward, all epochs together.
	Read    int64 `json:"tokens_read"`
	Drawn   int64 `json:"tokens_drawn"`
	Trained int64 `json:"tokens_trained"`
	// Seconds is 0 where it could not be measured.
	Seconds float64 `json:"seconds"`
}

// Teacher is what a teacher behind an API is asked.
type Teacher struct {
	Requests  int     `json:"requests"`
	TokensIn  int64   `json:"tokens_in"`
	TokensOut int64   `json:"tokens_out"`
	MostOut   int64   `json:"most_tokens_out"` // if every answer is as long as max_tokens allows
	Cost      float64 `json:"cost,omitempty"`  // in the unit of the prices
	MostCost  float64 `json:"most_cost,omitempty"`
}

// Estimate is the whole.
type Estimate struct {
	Stages  []Stage `json:"stages"`
	Seconds float64 `json:"seconds"` // 0: not measured
	// Alone is Seconds if nothing else had used the machine: the measurement got Share of all cores. 0: not known.
	Alone    float64  `json:"seconds_alone"`
	Share    float64  `json:"share_of_cores"`
	Memory   int64    `json:"memory_bytes"`
	Adapters int64    `json:"adapter_bytes"`
	Storage  int64    `json:"storage_bytes"` // with what only `gc` removes
	Teacher  *Teacher `json:"teacher,omitempty"`
	Measured bool     `json:"measured"`
	Took     float64  `json:"calibration_seconds"`
	Basis    []string `json:"basis"` // what the numbers rest on, for people
}

// Options are what is known beside the measurement.
type Options struct {
	Spec spec.Spec
	// Prompts is how many preference prompts there are; 0 = as many as wanted.
	Prompts int
	// OwnPairs and OwnTalks count rows of the user's own; -1 = they are generated.
	OwnPairs, OwnTalks int
	// Answer is the length that a remote teacher's answers are taken to have, in tokens; 0 = 250.
	Answer int
	// PriceIn and PriceOut are for a million tokens.
	PriceIn, PriceOut float64
	// HeldOut is how many recorded answers are measured on.
	HeldOut int
	// AdapterParams are the numbers of an adapter of rank 1; 0 = not known.
	AdapterParams int64
	// WeightBytes is what the model takes in memory; 0 = not known.
	WeightBytes int64
}

// remotePass is the share of a remote teacher's answers that is taken to pass the filters.
const remotePass = .9

// tried is how many rows are tried for a target, in whole chunks.
func tried(target int, pass float64, chunk, most int) int {
	if target == 0 {
		return 0
	}
	n := int(math.Ceil(float64(target)/max(pass, .01)/float64(chunk))) * chunk
	if most > 0 {
		n = min(n, most)
	}
	return max(n, min(target, max(most, 0)))
}

// Of puts the spec and the measurement together.
func Of(o Options, r Rates) Estimate {
	s := o.Spec
	e := Estimate{Measured: r.Measured, Took: r.Took, Memory: r.PeakMemory, Basis: r.Basis}
	say := func(f string, a ...any) { e.Basis = append(e.Basis, fmt.Sprintf(f, a...)) }

	// Preferences.
	pref := Stage{Name: activities.KindPreferences, Target: s.Preferences.Pairs}
	teacherPass := r.Teacher.Pass
	_, own := spec.OwnTeacher(s.Teacher)
	if own || s.Teacher == "openai" {
		teacherPass = remotePass
	} else if s.Teacher == "recorded" {
		teacherPass = 1
	}
	most := s.Preferences.MaxCandidates
	if o.Prompts > 0 {
		most = min(most, o.Prompts)
	}
	pairs := o.OwnPairs
	if pairs < 0 {
		pref.Rows = tried(s.Preferences.Pairs, teacherPass*r.Student.Pass, s.Preferences.Chunk, most)
		asked := float64(pref.Rows) * teacherPass // of the student
		pairs = min(s.Preferences.Pairs, int(asked*r.Student.Pass))
		pref.Drawn, pref.Read = int64(asked*r.Student.Drawn), int64(asked*r.Student.Read)
		pref.Seconds = asked * r.Student.Seconds
		if s.Teacher == "local" {
			pref.Drawn += int64(float64(pref.Rows) * r.Teacher.Drawn)
			pref.Read += int64(float64(pref.Rows) * r.Teacher.Read)
			pref.Seconds += float64(pref.Rows) * r.Teacher.Seconds
		}
		if s.Teacher == "openai" {
			e.Teacher = teacherCost(o, r, pref.Rows)
			say("%.0f %% of the teacher's answers are taken to pass, at %d tokens each", 100*remotePass, answerTokens(o))
		}
		if pairs < s.Preferences.Pairs {
			say("only about %d of %d pairs will be made of %d prompts: the run fails under preferences.min_pairs %d", pairs, s.Preferences.Pairs, pref.Rows, s.Preferences.MinPairs)
		}
	} else {
		pref.Target, pref.Rows = pairs, pairs
	}

	// DPO: the reference reads each pair once, training goes over it every epoch.
	dpo := Stage{Name: activities.KindDPO, Rows: pairs, Target: pairs, Steps: steps(pairs, s.DPO)}
	each := min(r.PairTokens, 2*float64(s.DPO.MaxLength))
	dpo.Read, dpo.Trained = int64(each*float64(pairs)), int64(each*float64(pairs*s.DPO.Epochs))
	dpo.Seconds = float64(dpo.Read)*r.Score + float64(dpo.Trained)*r.DPO

	// Introspection.
	in := s.Introspection
	intro := Stage{Name: activities.KindIntrospection, Target: in.Reflections + in.Interactions}
	rows := o.OwnTalks
	trained := 0.0 // tokens of an epoch
	if rows < 0 {
		n := tried(in.Reflections, r.Reflection.Pass, in.Chunk, limit(in.Reflections, in.Oversample))
		m := tried(in.Interactions, r.Talk.Pass, in.Chunk, limit(in.Interactions, in.Oversample))
		intro.Rows = n + m
		intro.Drawn = int64(float64(n)*r.Reflection.Drawn + float64(m)*r.Talk.Drawn)
		intro.Read = int64(float64(n)*r.Reflection.Read + float64(m)*r.Talk.Read)
		intro.Seconds = float64(n)*r.Reflection.Seconds + float64(m)*r.Talk.Seconds
		a, b := min(in.Reflections, int(float64(n)*r.Reflection.Pass)), min(in.Interactions, int(float64(m)*r.Talk.Pass))
		rows = a + b
		trained = float64(a)*min(r.ReflectionTokens, float64(s.SFT.MaxLength)) + float64(b)*min(r.TalkTokens, float64(s.SFT.MaxLength))
	} else {
		intro.Target, intro.Rows = rows, rows
		trained = float64(rows) * min(r.ReflectionTokens, float64(s.SFT.MaxLength))
	}
	sft := Stage{Name: activities.KindSFT, Rows: rows, Target: rows, Steps: steps(rows, s.SFT), Trained: int64(trained * float64(s.SFT.Epochs))}
	sft.Seconds = float64(sft.Trained) * r.SFT

	// Evaluation: three models answer and score; the base answers the held-out prompts too, and scores them three ways.
	answers := 3*len(s.Evaluation.Prompts) + o.HeldOut
	scored := float64(o.HeldOut) * (3*2 + 2) * r.HeldTokens // three models: held-out and plain; the base also under two prompts
	ev := Stage{Name: activities.KindEvaluation, Rows: answers, Target: answers}
	length := min(r.EvalDrawn, float64(s.Evaluation.Sampling.MaxTokens))
	ev.Drawn, ev.Read = int64(float64(answers)*length), int64(float64(answers)*r.Student.Read+scored+float64(o.HeldOut)/32*(r.Long+r.Teacher.Shared))
	ev.Seconds = float64(ev.Drawn)*r.Draw + float64(ev.Read)*r.Score

	e.Stages = []Stage{pref, dpo, intro, sft, ev}
	whole := r.Measured
	for _, st := range e.Stages {
		e.Seconds += st.Seconds
		whole = whole && (st.Seconds > 0 || st.Rows == 0 || st.Name == activities.KindPreferences && o.OwnPairs >= 0 || st.Name == activities.KindIntrospection && o.OwnTalks >= 0)
	}
	if !whole {
		e.Seconds = 0
	}
	e.Share, e.Alone = r.Share, e.Seconds*r.Share
	e.storage(o, r, pairs, rows)
	if e.Memory == 0 && o.WeightBytes > 0 {
		e.Memory = o.WeightBytes + 16*o.AdapterParams*int64(max(s.DPO.Rank, s.SFT.Rank)) + 4*o.AdapterParams*int64(s.DPO.Rank)
		say("memory is at least the model's weights, the adapters, gradients and moments; the activations of a pass come on top")
	}
	return e
}

func steps(rows int, t spec.Training) int {
	return (rows + t.BatchSize - 1) / t.BatchSize * t.Epochs
}

// limit is how many rows may be tried for a target; see activities.Prompts.
func limit(target int, oversample float64) int {
	if target == 0 {
		return 0
	}
	return max(int(float64(target)*oversample+.5), target+16)
}

func answerTokens(o Options) int {
	n := o.Answer
	if n == 0 {
		n = 250
	}
	return min(n, o.Spec.Preferences.Teacher.MaxTokens)
}

func teacherCost(o Options, r Rates, rows int) *Teacher {
	t := &Teacher{Requests: rows, TokensIn: int64(float64(rows) * r.Teacher.Prompt), TokensOut: int64(rows * answerTokens(o)), MostOut: int64(rows * o.Spec.Preferences.Teacher.MaxTokens)}
	t.Cost = (float64(t.TokensIn)*o.PriceIn + float64(t.TokensOut)*o.PriceOut) / 1e6
	t.MostCost = (float64(t.TokensIn)*o.PriceIn + float64(t.MostOut)*o.PriceOut) / 1e6
	return t
}

// storage adds up what the bucket holds at the end, checkpoints that only gc removes included.
func (e *Estimate) storage(o Options, r Rates, pairs, rows int) {
	const text = 4 // bytes of a token's text, in the parts, in the table and in the chunks, compressed: measured on runs of the demo
	s := o.Spec
	e.Storage = text * (e.Stages[0].Drawn + e.Stages[2].Drawn + int64(float64(pairs)*r.PairTokens))
	for i, t := range []spec.Training{s.DPO, s.SFT} {
		one := 4 * o.AdapterParams * int64(t.Rank)
		e.Adapters += one
		commits := int64(math.Ceil(e.Stages[1+2*i].Seconds/float64(t.SegmentSeconds))) + 1
		e.Storage += one + 3*one*max(commits-1, 1)
	}
}
