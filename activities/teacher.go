package activities

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/heartbeat"
	"github.com/opencharacter/opencharacter/permit"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/teacher"
)

// Teacher serves the teachers that are not a model on an engine worker: an endpoint, or recorded answers.
type Teacher struct {
	Store *store.Store
	// Key returns the API key that an environment variable of this worker holds; cmd reads the environment.
	Key func(env string) string
	// Lanes is as in [Engine].
	Lanes func(ctx context.Context, queue string) int
	// Allow says which endpoints a spec may name, and which key may go there; nil = any, for tests and programs that
	// write their own specs.
	Allow *permit.Rules
	// Own is as in [Data].
	Own Own
	// Asked is told of every request to an endpoint; nil tells nobody. It must be quick and safe for concurrent use.
	Asked func(teacher.Attempt)
}

// AskTeacher answers a chunk of prompts and commits the answers. An answer that came is kept in memory until the chunk
// is committed; a chunk is small, so that a crash costs few requests.
func (t *Teacher) AskTeacher(ctx context.Context, in ChunkInput) (ChunkOutput, error) {
	var out ChunkOutput
	var live progress
	err := heartbeat.Run(ctx, heartbeat.Options{Details: live.details}, func(ctx context.Context) error {
		start := time.Now()
		p, rows, err := chunkRows(ctx, t.Store, t.Own, in)
		if err != nil {
			return err
		}
		live.set(func(l *Live) { l.Total = len(rows) })
		who, err := t.teacher(ctx, p)
		if err != nil {
			return err
		}
		answers, err := t.ask(ctx, who, p, rows, &live)
		if err != nil {
			return err
		}
		out, err = commitChunk(ctx, t.Store, in, "parts/"+in.Role, answers, ofResponse, start)
		out.Lanes = lanesOf(ctx, t.Lanes, TeacherQueue)
		return err
	})
	return out, err
}

// teacher is who answers: one of the program's own, recorded answers, or an endpoint.
func (t *Teacher) teacher(ctx context.Context, p Plan) (teacher.Teacher, error) {
	if name, own := spec.OwnTeacher(p.Spec.Teacher); own {
		if err := t.Own.bind(&p, ownTeacher); err != nil {
			return nil, notHere(err)
		}
		x, err := t.Own.find(ownTeacher, name)
		if err != nil {
			return nil, notHere(err)
		}
		return x.(teacher.Named), nil // has(ownTeacher) holds nothing else
	}
	if p.Spec.Teacher != "recorded" {
		return t.client(p)
	}
	rec, err := recorded(ctx, t.Store, p)
	if err != nil {
		return nil, err
	}
	answers := teacher.Recorded{}
	for _, x := range rec {
		answers[x.Prompt] = x.Response
	}
	return answers, nil
}

// client makes the teacher's client; the key stays in this worker.
func (t *Teacher) client(p Plan) (*teacher.Client, error) {
	o := p.Spec.TeacherOptions
	if t.Allow != nil { // before the key is even looked at
		if err := t.Allow.Endpoint(o.BaseURL, o.KeyEnv); err != nil {
			return nil, fatal(BadInput, err)
		}
	}
	key := ""
	if o.KeyEnv != "" {
		if key = t.Key(o.KeyEnv); key == "" {
			return nil, fatal(BadInput, fmt.Errorf("teacher: environment variable %s is not set on the teacher worker; set it and start the run again", o.KeyEnv))
		}
	}
	c, err := teacher.New(teacher.Options{BaseURL: o.BaseURL, Model: o.Model, APIKey: key, DisableThinking: o.DisableThinking, AllowHTTP: o.AllowHTTP, Observe: t.Asked})
	return c, fatal(BadInput, err)
}

// CheckTeacherInput names the plan.
type CheckTeacherInput struct {
	Plan store.Ref `json:"plan"`
}

// CheckTeacher asks the teacher whether it can answer (an endpoint for its models), so that a wrong key or model id fails
// before work is spent. It also finds that this worker lacks a filter of the run.
func (t *Teacher) CheckTeacher(ctx context.Context, in CheckTeacherInput) error {
	p, err := getPlan(ctx, t.Store, in.Plan)
	if err != nil {
		return err
	}
	if err := t.Own.bind(&p, ownFilter); err != nil {
		return notHere(err)
	}
	who, err := t.teacher(ctx, p)
	if err != nil {
		return err
	}
	return permanent(who.Check(ctx))
}

// permanent marks the endpoint's final answers (wrong key, no balance, bad request) as not to be retried.
func permanent(err error) error {
	var final interface{ NonRetryable() bool }
	if errors.As(err, &final) && final.NonRetryable() {
		return fatal(BadInput, err)
	}
	return err
}

func (t *Teacher) ask(ctx context.Context, c teacher.Teacher, p Plan, rows []dataset.Prompt, live *progress) ([]dataset.Response, error) {
	con, err := getConstitution(ctx, t.Store, p)
	if err != nil {
		return nil, err
	}
	r, err := roleOf(RoleTeacher, p, con)
	if err != nil {
		return nil, err
	}
	out := make([]dataset.Response, len(rows))
	var mu sync.Mutex
	var refused int
	var last error
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.Spec.TeacherOptions.Concurrency)
	for i, q := range rows {
		g.Go(func() error {
			var msgs []teacher.Message
			for _, m := range r.before() {
				msgs = append(msgs, teacher.Message{Role: m.Role, Content: m.Content})
			}
			seed := int64(rowKey(RoleTeacher, q.ID) >> 1)
			a, err := c.Complete(ctx, teacher.Request{Messages: append(msgs, teacher.Message{Role: "user", Content: q.Text}),
				Temperature: r.sampling.Temperature, TopP: r.sampling.TopP, MaxTokens: r.sampling.MaxTokens, Seed: &seed})
			if errors.Is(err, teacher.ErrRefused) {
				// The endpoint will say the same again, of this prompt only: a filter of its own, or its length.
				out[i] = dataset.Response{ID: q.ID, Prompt: q.Text, Finish: "refused", Drop: dropRefused}
				mu.Lock()
				defer mu.Unlock()
				refused, last = refused+1, err
				return nil
			}
			if err != nil {
				return permanent(fmt.Errorf("teacher: prompt %s: %w", q.ID, err))
			}
			if out[i], err = response(q, a.Text, a.Finish, a.CompletionTokens, 0, r.judge); err != nil {
				return err
			}
			live.set(func(l *Live) { l.Done++; l.Tokens += a.CompletionTokens })
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if refused == len(rows) && refused >= fewRefused {
		return nil, fatal(BadInput, fmt.Errorf("teacher: all %d prompts of a chunk were refused, so it is the request that is wrong and not the prompts; the last answer: %w", refused, last))
	}
	return out, nil
}

// dropRefused is the reason of a prompt that the endpoint does not take.
const dropRefused = "refused_by_teacher"

// fewRefused is how many refused prompts, and no other, say that no prompt will be taken.
const fewRefused = 4
