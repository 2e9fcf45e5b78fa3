package activities

import (
	"context"
	"fmt"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/heartbeat"
	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
)

// TrainInput names one adapter's training. The same input goes to preparation, reference and every segment.
type TrainInput struct {
	Plan store.Ref `json:"plan"`
	Kind string    `json:"kind"` // KindDPO or KindSFT
	Key  string    `json:"key"`
	// Data are the parts of pairs (dpo) or conversations (sft).
	Data []store.Ref `json:"data"`
	// Frozen adapters stand under the trained one.
	Frozen []AdapterRef `json:"frozen,omitempty"`
	// Reference is the chain of stored reference log-probs (dpo segments).
	Reference *store.Ref `json:"reference,omitempty"`
	// From and To bound a reference chunk, Previous is its chain.
	From     int        `json:"from,omitempty"`
	To       int        `json:"to,omitempty"`
	Previous *store.Ref `json:"previous,omitempty"`
}

// trainingRows are a data set's rows as tokens, in the data set's order.
type trainingRows struct {
	pairs   []train.Pair
	rows    []train.Row
	kept    int // rows of the data set
	dropped map[string]int64
	turns   int64 // early messages left out of too-long conversations that are kept
	tokens  int64
}

func (r *trainingRows) len() int { return len(r.pairs) + len(r.rows) }

func trainSpec(p Plan, kind string) spec.Training {
	if kind == KindDPO {
		return p.Spec.DPO
	}
	return p.Spec.SFT
}

// tokens reads and tokenises the rows of a training. Too-long pairs are dropped; a too-long conversation loses whole
// early turns, and is dropped if its last turn alone is too long. Nothing is cut inside a turn.
func (e *Engine) tokens(ctx context.Context, in TrainInput, p Plan, m *Loaded) (*trainingRows, error) {
	key := dataset.InputHash([]any{in.Kind, in.Data, trainSpec(p, in.Kind).MaxLength, p.Model})
	e.mu.Lock()
	have := e.rows[key]
	e.mu.Unlock()
	if have != nil {
		return have, nil
	}
	r := &trainingRows{dropped: map[string]int64{}}
	var err error
	if in.Kind == KindDPO {
		err = r.readPairs(ctx, e.Store, in, m, trainSpec(p, in.Kind).MaxLength)
	} else {
		err = r.readTalks(ctx, e.Store, in, m, trainSpec(p, in.Kind).MaxLength)
	}
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	e.rows = map[string]*trainingRows{key: r}
	e.mu.Unlock()
	return r, nil
}

// encode lays messages out as training rows: one, or one an assistant turn where the model's template rewrites history.
func encode(m *Loaded, id string, msgs []dataset.Message) ([]train.Example, error) {
	cm := make([]chat.Message, len(msgs))
	for i, x := range msgs {
		cm[i] = chat.Message{Role: x.Role, Content: x.Content}
	}
	rows, err := m.Chat.EncodeTurns(cm)
	if err != nil {
		return nil, fatal(BadInput, fmt.Errorf("row %s: %w", id, err))
	}
	out := make([]train.Example, len(rows))
	for i, r := range rows {
		out[i] = train.Example{Tokens: r.IDs, Mask: r.Mask}
	}
	return out, nil
}

// encodePair lays out one side of a pair, which must end in its only assistant turn.
func encodePair(m *Loaded, id string, prompt, answer []dataset.Message) (train.Example, error) {
	rows, err := encode(m, id, append(append([]dataset.Message{}, prompt...), answer...))
	if err != nil {
		return train.Example{}, err
	}
	if len(rows) != 1 {
		return train.Example{}, fatal(BadInput, fmt.Errorf("row %s: this model's template rewrites earlier turns, so a pair can have one assistant turn only", id))
	}
	return rows[0], nil
}

func (r *trainingRows) readPairs(ctx context.Context, s *store.Store, in TrainInput, m *Loaded, limit int) error {
	rows, err := dataset.ReadParts[dataset.Pair](ctx, s, in.Data)
	if err != nil {
		return err
	}
	return r.addPairs(rows, m, limit)
}

func (r *trainingRows) addPairs(rows []dataset.Pair, m *Loaded, limit int) error {
	for _, x := range rows {
		c, err := encodePair(m, x.ID, x.Prompt, x.Chosen)
		if err != nil {
			return err
		}
		j, err := encodePair(m, x.ID, x.Prompt, x.Rejected)
		if err != nil {
			return err
		}
		if x.RejectedFinish == "length" {
			noEnd(j.Mask)
		}
		if max(len(c.Tokens), len(j.Tokens)) > limit {
			r.dropped["too_many_tokens"]++
			continue
		}
		r.tokens += int64(len(c.Tokens) + len(j.Tokens))
		r.kept++
		r.pairs = append(r.pairs, train.Pair{ID: x.ID, Chosen: c, Rejected: j})
	}
	return nil
}

// noEnd takes the end token of the last turn out of the mask: an answer that was cut did not end there.
func noEnd(mask []bool) {
	for i := len(mask) - 1; i >= 0; i-- {
		if mask[i] {
			mask[i] = false
			return
		}
	}
}

func (r *trainingRows) readTalks(ctx context.Context, s *store.Store, in TrainInput, m *Loaded, limit int) error {
	rows, err := dataset.ReadParts[dataset.Conversation](ctx, s, in.Data)
	if err != nil {
		return err
	}
	return r.addTalks(rows, m, limit)
}

func (r *trainingRows) addTalks(rows []dataset.Conversation, m *Loaded, limit int) error {
	var err error
	for _, x := range rows {
		msgs := x.Messages
		var ex []train.Example
		var left int64
		for {
			if ex, err = encode(m, x.ID, msgs); err != nil {
				return err
			}
			if longest(ex) <= limit {
				break
			}
			shorter := dropEarly(msgs)
			if shorter == nil {
				break
			}
			left += int64(len(msgs) - len(shorter))
			msgs = shorter
		}
		if longest(ex) > limit {
			r.dropped["too_many_tokens"]++
			continue
		}
		r.kept++
		r.turns += left
		for i, e := range ex {
			id := x.ID
			if len(ex) > 1 {
				id = fmt.Sprintf("%s#%d", x.ID, i)
			}
			r.tokens += int64(len(e.Tokens))
			r.rows = append(r.rows, train.Row{ID: id, Example: e})
		}
	}
	return nil
}

func longest(ex []train.Example) int {
	n := 0
	for _, e := range ex {
		n = max(n, len(e.Tokens))
	}
	return n
}

// dropEarly leaves out the first exchange after the system message, or returns nil when only one is left.
func dropEarly(msgs []dataset.Message) []dataset.Message {
	head := 0
	if len(msgs) > 0 && msgs[0].Role == "system" {
		head = 1
	}
	if len(msgs)-head < 4 {
		return nil
	}
	return append(append([]dataset.Message{}, msgs[:head]...), msgs[head+2:]...)
}

// PrepareOutput says what a training will do.
type PrepareOutput struct {
	Rows    int              `json:"rows"` // training rows
	Kept    int              `json:"kept"` // rows of the data set behind them
	Steps   int              `json:"steps"`
	Tokens  int64            `json:"tokens"`
	Dropped map[string]int64 `json:"dropped,omitempty"`
	// EarlyMessages were left out of conversations that are longer than max_length.
	EarlyMessages int64 `json:"early_messages,omitempty"`
	// Lanes is as in [ChunkOutput].
	Lanes int `json:"lanes,omitempty"`
}

// PrepareTraining tokenises the rows once, so that bad rows and impossible lengths fail before the first step.
func (e *Engine) PrepareTraining(ctx context.Context, in TrainInput) (PrepareOutput, error) {
	var out PrepareOutput
	err := heartbeat.Run(ctx, heartbeat.Options{}, func(ctx context.Context) (err error) {
		out, err = e.prepare(ctx, in)
		out.Lanes = lanesOf(ctx, e.Lanes, EngineQueue)
		return err
	})
	return out, err
}

func (e *Engine) prepare(ctx context.Context, in TrainInput) (PrepareOutput, error) {
	p, err := getPlan(ctx, e.Store, in.Plan)
	if err != nil {
		return PrepareOutput{}, err
	}
	m, err := e.load(ctx, p.Model)
	if err != nil {
		return PrepareOutput{}, err
	}
	r, err := e.tokens(ctx, in, p, m)
	if err != nil {
		return PrepareOutput{}, err
	}
	t := trainSpec(p, in.Kind)
	if r.len() == 0 {
		return PrepareOutput{}, fatal(StageFailed, fmt.Errorf("%s: no row is left to train on; dropped: %v; raise %s.max_length %d", in.Kind, r.dropped, in.Kind, t.MaxLength))
	}
	return PrepareOutput{Rows: r.len(), Kept: r.kept, EarlyMessages: r.turns, Steps: steps(t, trainOptions(in.Kind, t, p.Spec.Seed, r.len()).Steps(r.len())), Tokens: r.tokens, Dropped: counts(r.dropped)}, nil
}

// trainOptions maps the spec's names to the trainer's.
func trainOptions(kind string, t spec.Training, seed uint64, rows int) train.Options {
	o := train.Options{Loss: kind, Beta: t.Beta, NLL: t.NLL, KL: t.KL, LR: t.LearningRate, Schedule: t.Schedule, MinLRRatio: t.MinLRRatio, ClipNorm: t.ClipNorm,
		Beta1: t.Beta1, Beta2: t.Beta2, Eps: t.Eps, WeightDecay: t.WeightDecay, BatchSize: t.BatchSize, MicroTokens: t.MicroTokens, Epochs: t.Epochs, Seed: seed}
	o.TotalSteps = o.Steps(rows)
	o.WarmupSteps = max(0, min(int(t.Warmup*float64(o.TotalSteps)+.5), o.TotalSteps-1))
	return o
}
