//go:build unix

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// job is what the loop needs: the plan of a run, and how its prompts were cut.
type job struct {
	Plan   activities.Plan     `json:"plan"`
	Chunks map[string][][2]int `json:"chunks"` // from and to, by teacher, reflection, interaction
	Whole  bool                `json:"whole"`  // one cut a role
	GC     int                 `json:"gc"`
}

// took is wall and CPU seconds.
type took struct {
	Wall float64 `json:"wall"`
	CPU  float64 `json:"cpu"`
}

// loopRun is what a loop took and made.
type loopRun struct {
	took
	Load   took              `json:"load"` // the model
	Stages map[string]took   `json:"stages"`
	Sums   map[string]string `json:"sums"` // sha256
}

// plainJob runs the loop of a job file, and prints its result as JSON.
func plainJob(ctx context.Context, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var j job
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	debug.SetGCPercent(j.GC)
	r, err := j.run(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// loop has what the stages share.
type loop struct {
	job
	ctx  context.Context
	c    *constitution.Constitution
	rec  []constitution.Example
	m    *activities.Loaded
	ws   *transformer.Workspace
	sums map[string]string
}

func (j job) run(ctx context.Context) (loopRun, error) {
	p, s := j.Plan, j.Plan.Spec
	if s.Teacher != "local" || s.Weights == "quantized" || p.Pairs != nil || p.Talks != nil || p.Prompts != nil || p.Recorded != nil || p.Teacher.SHA256 != p.Model.SHA256 {
		return loopRun{}, errors.New("the loop knows a local teacher that is the student's own model, weights in bf16, and a built-in character; leave the other settings out")
	}
	out := loopRun{Stages: map[string]took{}, Sums: map[string]string{}}
	l := &loop{job: j, ctx: ctx, ws: transformer.NewWorkspace(), sums: out.Sums}
	var err error
	if out.Load, err = timed(l.load); err != nil {
		return out, err
	}
	var pairs []dataset.Pair
	var talks []dataset.Conversation
	var dpo, sft *transformer.Adapter
	var measured [3]activities.Measured
	for _, stage := range []struct {
		name string
		do   func() error
	}{
		{activities.KindPreferences, func() (err error) { pairs, err = l.preferences(); return err }},
		{activities.KindDPO, func() (err error) { dpo, err = l.dpo(pairs); return err }},
		{activities.KindIntrospection, func() (err error) { talks, err = l.introspection(dpo); return err }},
		{activities.KindSFT, func() (err error) { sft, err = l.sft(talks, dpo); return err }},
		{activities.KindEvaluation, func() (err error) { measured, err = l.evaluation(dpo, sft); return err }},
	} {
		if out.Stages[stage.name], err = timed(stage.do); err != nil {
			return out, fmt.Errorf("%s: %w", stage.name, err)
		}
	}
	return out, errors.Join(l.parquet("pairs", encoded(pairs)), l.parquet("introspection", encoded(talks)),
		l.adapter("dpo adapter", dpo), l.adapter("sft adapter", sft), l.json("evaluation", measured[:]))
}

func (l *loop) load() (err error) {
	p := l.Plan
	if l.c, err = constitution.Load(p.Name); err != nil {
		return err
	}
	l.rec, _ = constitution.Recorded(p.Name)
	if l.m, err = activities.LoadModel(p.Model.Name, "", hub.Options{}); err != nil {
		return err
	}
	compute, err := tensor.ParseCompute(p.Spec.Compute)
	if err == nil && l.m.Compute() != compute {
		err = l.m.SetCompute(compute)
	}
	if err == nil && l.m.Info.SHA256 != p.Model.SHA256 {
		err = errors.New("the model's file has changed since the pipeline ran")
	}
	return err
}

// cuts are the pieces in which prompts are answered.
func (l *loop) cuts(role string) [][2]int {
	c := l.Chunks[role]
	if l.Whole && len(c) > 1 {
		return [][2]int{{c[0][0], c[len(c)-1][1]}}
	}
	return c
}

func (l *loop) preferences() ([]dataset.Pair, error) {
	prompts, err := activities.Prompts(l.ctx, nil, l.Plan, l.c, activities.KindPreferences)
	if err != nil {
		return nil, err
	}
	var chosen, rejected []dataset.Response
	for _, cut := range l.cuts(activities.RoleTeacher) {
		rows := prompts[cut[0]:cut[1]]
		said, err := activities.Answers(l.ctx, l.m, nil, l.Plan, l.c, activities.RoleTeacher, rows, nil, activities.Watch{})
		if err != nil {
			return nil, err
		}
		kept := map[string]string{}
		var left []dataset.Prompt
		for i, a := range said {
			if a.Drop == "" {
				kept[a.ID] = a.Text
				left = append(left, rows[i])
			}
		}
		other, err := activities.Answers(l.ctx, l.m, nil, l.Plan, l.c, activities.RoleStudent, left, kept, activities.Watch{})
		if err != nil {
			return nil, err
		}
		chosen, rejected = append(chosen, said...), append(rejected, other...)
	}
	return activities.PairsOf(l.Plan, chosen, rejected, &activities.Stage{})
}

func (l *loop) dpo(data []dataset.Pair) (*transformer.Adapter, error) {
	pairs, err := activities.TrainingPairs(l.Plan, l.m, data)
	if err != nil {
		return nil, err
	}
	ref, err := activities.References(l.ctx, l.Plan, l.m, l.ws, pairs, nil, func([]dataset.Reference) {})
	if err != nil {
		return nil, err
	}
	if pairs, err = activities.WithReference(pairs, ref); err != nil {
		return nil, err
	}
	t, adapter, o, err := activities.NewTrainer(l.Plan, activities.KindDPO, l.m, nil, len(pairs), l.ws)
	if err != nil {
		return nil, err
	}
	for step := range o.Steps(len(pairs)) {
		var batch []train.Pair
		for _, i := range o.Batch(len(pairs), step) {
			batch = append(batch, pairs[i])
		}
		if _, err := t.StepDPO(batch); err != nil {
			return nil, err
		}
	}
	return adapter, nil
}

func (l *loop) introspection(dpo *transformer.Adapter) ([]dataset.Conversation, error) {
	stack := []*transformer.Adapter{dpo}
	var said []dataset.Response
	var talks []dataset.Conversation
	for _, kind := range []string{"reflection", "interaction"} {
		prompts, err := activities.Prompts(l.ctx, nil, l.Plan, l.c, kind)
		if err != nil {
			return nil, err
		}
		for _, cut := range l.cuts(kind) {
			rows := prompts[cut[0]:cut[1]]
			if kind == "interaction" {
				more, err := activities.Talks(l.ctx, l.m, stack, l.Plan, l.c, rows, activities.Watch{})
				if err != nil {
					return nil, err
				}
				talks = append(talks, more...)
				continue
			}
			more, err := activities.Answers(l.ctx, l.m, stack, l.Plan, l.c, activities.RoleReflection, rows, nil, activities.Watch{})
			if err != nil {
				return nil, err
			}
			said = append(said, more...)
		}
	}
	return activities.IntrospectionOf(l.Plan, l.c, said, talks, &activities.Stage{})
}

func (l *loop) sft(data []dataset.Conversation, dpo *transformer.Adapter) (*transformer.Adapter, error) {
	rows, err := activities.TrainingRows(l.Plan, l.m, data)
	if err != nil {
		return nil, err
	}
	t, adapter, o, err := activities.NewTrainer(l.Plan, activities.KindSFT, l.m, []*transformer.Adapter{dpo}, len(rows), l.ws)
	if err != nil {
		return nil, err
	}
	for step := range o.Steps(len(rows)) {
		var batch []train.Row
		for _, i := range o.Batch(len(rows), step) {
			batch = append(batch, rows[i])
		}
		if _, err := t.StepSFT(batch); err != nil {
			return nil, err
		}
	}
	return adapter, nil
}

func (l *loop) evaluation(dpo, sft *transformer.Adapter) (out [3]activities.Measured, err error) {
	stack := []*transformer.Adapter{dpo, sft}
	var plain []activities.Answer
	for i, which := range []string{activities.WhichBase, activities.WhichDPO, activities.WhichCharacter} {
		if out[i], err = activities.Measure(l.ctx, l.Plan, l.m, l.ws, stack[:i], which, l.c, l.rec, plain); err != nil {
			return out, err
		}
		if i == 0 {
			plain = append([]activities.Answer{}, out[0].PlainAnswers...)
		}
	}
	return out, nil
}

// partRows is how many rows the pipeline's parts have at most.
const partRows = 1000

func encoded[T any](rows []T) func() ([]byte, error) {
	return func() ([]byte, error) {
		if len(rows) > partRows {
			return nil, fmt.Errorf("%d rows are more than one part holds; choose a smaller run", len(rows))
		}
		return dataset.EncodeParquet(rows, nil)
	}
}

// parquet, adapter and json note the sha256 of what the pipeline keeps in its store.
func (l *loop) parquet(name string, encode func() ([]byte, error)) error {
	b, err := encode()
	l.sums[name] = sum(b)
	return err
}

func (l *loop) adapter(name string, a *transformer.Adapter) error {
	files, err := a.PEFT(l.Plan.Model.Name)
	l.sums[name] = sum(files[adapterFile])
	return err
}

func (l *loop) json(name string, list []activities.Measured) error {
	all := ""
	for _, v := range list {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		all += sum(b)
	}
	l.sums[name] = sum([]byte(all))
	return nil
}

const adapterFile = "adapter_model.safetensors"

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// timed runs f and says what it took of this process.
func timed(f func() error) (took, error) {
	start, before := time.Now(), used()
	err := f()
	return took{time.Since(start).Seconds(), used() - before}, err
}

// used is the CPU time of this process so far, in seconds.
func used() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for a wrong argument only
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
