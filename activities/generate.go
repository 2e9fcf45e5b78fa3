package activities

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/sample"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
)

// Roles of a generated answer.
const (
	RoleTeacher    = "teacher"    // with the constitution
	RoleStudent    = "student"    // without
	RoleReflection = "reflection" // the character about itself
)

// ChunkInput is one bounded piece of generation: rows [From, To) of a prompt set.
type ChunkInput struct {
	Plan     store.Ref    `json:"plan"`
	Role     string       `json:"role"`
	Prompts  store.Ref    `json:"prompts"`
	From     int          `json:"from"`
	To       int          `json:"to"`
	Adapters []AdapterRef `json:"adapters,omitempty"`
	// Only is a chunk of another role over the same rows: prompts that were dropped there are left out here.
	Only *store.Ref `json:"only,omitempty"`
	// Previous is the chain that this chunk is appended to; a chunk that is made beside others has none, and is linked
	// by [Data.LinkChunks] when its turn comes.
	Previous *store.Ref `json:"previous,omitempty"`
}

// ChunkOutput is a committed chunk.
type ChunkOutput struct {
	Chain   store.Ref        `json:"chain"`
	Rows    int64            `json:"rows"`
	Kept    int64            `json:"kept"`
	Dropped map[string]int64 `json:"dropped,omitempty"`
	Tokens  int64            `json:"tokens"`
	Seconds float64          `json:"seconds"`
	// Lanes is how many chunks this queue's workers can make at once, as seen when this one ended; 0 = not known.
	Lanes int `json:"lanes,omitempty"`
	// Said is what the user should know of this chunk's bits; "" as a rule.
	Said string `json:"said,omitempty"`
}

// lanesOf asks how many chunks a queue's workers can make at once; 0 = not known.
func lanesOf(ctx context.Context, f func(ctx context.Context, queue string) int, queue string) int {
	if f == nil {
		return 0
	}
	return f(ctx, queue)
}

// Generate answers a chunk of prompts with the local model and commits the answers, each with the reason it was
// dropped for, if any.
func (e *Engine) Generate(ctx context.Context, in ChunkInput) (ChunkOutput, error) {
	var live progress
	return onDevice(ctx, e, &live, func(ctx context.Context) (ChunkOutput, error) {
		out, err := e.generate(ctx, in, &live)
		out.Lanes = lanesOf(ctx, e.Lanes, EngineQueue)
		return out, err
	})
}

func (e *Engine) generate(ctx context.Context, in ChunkInput, live *progress) (ChunkOutput, error) {
	start := time.Now()
	p, rows, err := chunkRows(ctx, e.Store, e.Own, in)
	if err != nil {
		return ChunkOutput{}, err
	}
	c, err := getConstitution(ctx, e.Store, p)
	if err != nil {
		return ChunkOutput{}, err
	}
	r, err := roleOf(in.Role, p, c)
	if err != nil {
		return ChunkOutput{}, err
	}
	m, stack, err := e.open(ctx, live, p.sampling(r.model), in.Adapters)
	if err != nil {
		return ChunkOutput{}, err
	}
	said, err := e.kernels(ctx, p, m)
	if err != nil {
		return ChunkOutput{}, err
	}
	var chosen map[string]string // what the pair's other side says
	if in.Only != nil {
		if chosen, err = keptAnswers(ctx, e.Store, *in.Only); err != nil {
			return ChunkOutput{}, err
		}
	}
	live.set(func(l *Live) { l.Total = len(rows) })
	out, err := Answers(ctx, m, stack, p, c, in.Role, rows, chosen, Watch{Alive: live.alive, Did: func(id string) { e.did(ctx, in.Role, id) },
		Drawn:    func(tokens int) { e.meter().Drawn(in.Role, tokens) },
		Progress: func(done, tokens int) { live.set(func(l *Live) { l.Done, l.Tokens = done, l.Tokens+tokens }) }})
	if err != nil {
		return ChunkOutput{}, err
	}
	o, err := commitChunk(ctx, e.Store, in, "parts/"+in.Role, out, ofResponse, start)
	o.Said = said
	return o, err
}

// role is what distinguishes teacher, student and reflection.
type role struct {
	model    ModelInfo
	system   string
	examples []constitution.Example
	sampling spec.Sampling
	judge    judge
	parallel int
	keepCut  bool // an answer cut at max_tokens is not dropped for that
}

// judge is what decides over the answers of a role.
type judge struct {
	character, role string
	limits          dataset.Limits
	own             []dataset.Filter
}

func (j judge) check(prompt, finish, text string) (clean, reason string, err error) {
	clean, reason, err = dataset.CheckAnswer(j.limits, j.own, dataset.Answer{Character: j.character, Role: j.role, Prompt: prompt, Text: text, Finish: finish})
	return clean, reason, fatal(BadInput, err)
}

// judgeOf is the judge of a role under a filter of the spec.
func judgeOf(name string, p Plan, l dataset.Limits, f spec.Filter) (judge, error) {
	own, err := p.filters(f.Own)
	return judge{p.Name, name, l, own}, err
}

func roleOf(name string, p Plan, c *constitution.Constitution) (r role, err error) {
	pref, intro := p.Spec.Preferences, p.Spec.Introspection
	switch name {
	case RoleTeacher:
		system, examples := teacherContext(p, c)
		r = role{model: p.Teacher, system: system, examples: examples, sampling: pref.Teacher, parallel: pref.Parallel}
		r.judge, err = judgeOf(name, p, preferenceLimits(pref.Filter), pref.Filter)
		return r, err
	case RoleStudent:
		l := preferenceLimits(pref.Filter)
		l.AllowIdentity = true // a plain answer may say that it is a model: that is what is to be unlearned
		r = role{model: p.Model, sampling: pref.Student, parallel: pref.Parallel, keepCut: pref.KeepCutRejected}
		r.judge, err = judgeOf(name, p, l, pref.Filter)
		return r, err
	case RoleReflection:
		r = role{model: p.Model, system: reflectionSystem(p, c), sampling: intro.Reflection, parallel: intro.Parallel}
		r.judge, err = judgeOf(name, p, limits(intro.Filter), intro.Filter)
		return r, err
	}
	return role{}, fmt.Errorf("activities: role %q is not known", name)
}

// teacherContext is the constitution as the teacher sees it.
func teacherContext(p Plan, c *constitution.Constitution) (string, []constitution.Example) {
	system := c.TeacherSystem()
	if p.Spec.TeacherOptions.System == "short" {
		system = c.TeacherSystemShort()
	}
	ex := c.TeacherExamples()
	return system, ex[:min(len(ex), p.Spec.TeacherOptions.Examples)]
}

// reflectionSystem and interactionSystem follow the teacher's form: a model that needs the short one needs it here too.
func reflectionSystem(p Plan, c *constitution.Constitution) string {
	if p.Spec.TeacherOptions.System == "short" {
		return c.ReflectionSystemShort()
	}
	return c.ReflectionSystem()
}

func interactionSystem(p Plan, c *constitution.Constitution) string {
	if p.Spec.TeacherOptions.System == "short" {
		return c.InteractionSystemShort()
	}
	return c.InteractionSystem()
}

// before is the conversation that stands before every prompt.
func (r role) before() []chat.Message {
	var msgs []chat.Message
	if r.system != "" {
		msgs = append(msgs, chat.Message{Role: "system", Content: r.system})
	}
	for _, x := range r.examples {
		msgs = append(msgs, chat.Message{Role: "user", Content: x.Prompt}, chat.Message{Role: "assistant", Content: x.Response})
	}
	return msgs
}

func limits(f spec.Filter) dataset.Limits {
	return dataset.Limits{MinChars: f.MinChars, MaxChars: f.MaxChars, RepetitionThreshold: f.RepetitionThreshold}
}

// preferenceLimits has the lower floor of preference answers for a floor that is not set: "Aye." is an answer.
func preferenceLimits(f spec.Filter) dataset.Limits {
	f.MinChars = cmp.Or(f.MinChars, dataset.DefaultPreferenceMinChars)
	return limits(f)
}

func params(s spec.Sampling, seed uint64, m *Loaded) sample.Params {
	return sample.Params{Temperature: s.Temperature, TopP: s.TopP, TopK: s.TopK, RepetitionPenalty: s.RepetitionPenalty,
		MaxTokens: s.MaxTokens, Seed: seed, StopTokens: m.Chat.EndTokens()}
}

// rowKey names a row for the random numbers: a function of its role and id only.
func rowKey(role, id string) uint64 {
	h := sha256.Sum256([]byte(role + "\x00" + id))
	return binary.LittleEndian.Uint64(h[:8])
}

// Text is the answer. One that was cut at the token limit may end inside a character: that rest is left out.
func (m *Loaded) Text(r sample.Result) string {
	if r.Finish != "length" {
		return m.Tokens.DecodeText(r.Tokens)
	}
	var b strings.Builder
	s := m.Tokens.NewStream()
	for _, id := range r.Tokens {
		b.WriteString(s.Push(id))
	}
	return b.String()
}

func sum(r sample.Result) float64 {
	t := float64(r.EndLogProb)
	for _, l := range r.LogProbs {
		t += float64(l)
	}
	return t
}

func response(q dataset.Prompt, text, finish string, tokens int, logProb float64, j judge) (dataset.Response, error) {
	clean, reason, err := j.check(q.Text, finish, text)
	return dataset.Response{ID: q.ID, Prompt: q.Text, Text: clean, Finish: finish, Tokens: tokens, LogProb: logProb, Drop: reason}, err
}

// chunkRows reads the plan and the chunk's prompts, without those that Only dropped. A worker that lacks one of the
// plan's filters takes no rows.
func chunkRows(ctx context.Context, s *store.Store, own Own, in ChunkInput) (Plan, []dataset.Prompt, error) {
	p, err := getPlan(ctx, s, in.Plan)
	if err != nil {
		return p, nil, err
	}
	if err := own.bind(&p, ownFilter); err != nil {
		return p, nil, notHere(err)
	}
	rows, err := prompts(ctx, s, in.Prompts, in.From, in.To)
	if err != nil || in.Only == nil {
		return p, rows, err
	}
	kept, err := keptAnswers(ctx, s, *in.Only)
	if err != nil {
		return p, nil, err
	}
	var out []dataset.Prompt
	for _, q := range rows {
		if _, ok := kept[q.ID]; ok {
			out = append(out, q)
		}
	}
	return p, out, nil
}

// dropIdentical is the reason of an answer that says what the pair's other side says.
const dropIdentical = "identical_answers"

// keptAnswers are a chunk's kept answers by prompt id.
func keptAnswers(ctx context.Context, s *store.Store, r store.Ref) (map[string]string, error) {
	node, err := getJSON[chunk](ctx, s, r)
	if err != nil {
		return nil, err
	}
	rows, err := dataset.ReadParts[dataset.Response](ctx, s, []store.Ref{node.Part})
	if err != nil {
		return nil, err
	}
	kept := map[string]string{}
	for _, r := range rows {
		if r.Drop == "" {
			kept[r.ID] = r.Text
		}
	}
	return kept, nil
}

// commitChunk writes what a chunk made (answers or conversations) and appends it to its chain. of tells a row's tokens
// and the reason it was dropped for.
func commitChunk[T any](ctx context.Context, s *store.Store, in ChunkInput, folder string, rows []T, of func(T) (tokens int, drop string), start time.Time) (ChunkOutput, error) {
	parts, err := dataset.WriteParts(ctx, s, folder, rows)
	if err != nil {
		return ChunkOutput{}, err
	}
	if len(parts) != 1 {
		return ChunkOutput{}, fatal(StageFailed, fmt.Errorf("activities: a chunk of %d rows made %d parts", len(rows), len(parts)))
	}
	node := chunk{Previous: in.Previous, Part: parts[0], From: in.From, To: in.To}
	out := ChunkOutput{Rows: int64(len(rows))}
	for _, r := range rows {
		tokens, drop := of(r)
		out.Tokens += int64(tokens)
		if drop == "" {
			node.Kept++
		} else {
			node.Dropped = addCounts(node.Dropped, map[string]int64{drop: 1})
		}
	}
	out.Kept, out.Dropped = node.Kept, node.Dropped
	out.Chain, err = putJSON(ctx, s, folder, node)
	out.Seconds = time.Since(start).Seconds()
	return out, err
}

func ofResponse(r dataset.Response) (int, string)         { return r.Tokens, r.Drop }
func ofConversation(r dataset.Conversation) (int, string) { return r.Tokens, r.Drop }
