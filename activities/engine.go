package activities

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/heartbeat"
	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/lm/tokenizer"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/permit"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/tensor"
)

// Engine serves the activities that run a model on this machine. It keeps one model in memory; a worker gives it one
// slot a device, so its methods do not run at the same time as each other.
type Engine struct {
	Store *store.Store
	// Hub says where models are kept on this machine.
	Hub hub.Options
	// Pull lets the engine fetch a known model that is not there yet.
	Pull bool
	// Stall is how long an attempt may make no progress before it ends and is tried again; 0 means
	// heartbeat.DefaultStall. Loading a model does not count.
	Stall time.Duration
	// Lanes tells how many chunks the live workers of a queue can make at once, 0 if that cannot be known; nil: never known.
	Lanes func(ctx context.Context, queue string) int
	// Did is told of every unit of work as soon as it is done; nil tells nobody. It must be quick.
	Did func(Work)
	// Meter counts tokens, steps and models for metrics; nil counts nothing.
	Meter Meter
	// Allow says which model files a spec may name; nil = any, for tests and programs that write their own specs.
	Allow *permit.Rules
	// Own is as in [Data].
	Own Own

	device   sync.Mutex // held by the one attempt that works
	mu       sync.Mutex
	model    *Loaded
	adapters map[string]*transformer.Adapter
	rows     map[string]*trainingRows
	ws       *transformer.Workspace
}

// Loaded is a model in memory with its chat format.
type Loaded struct {
	*transformer.Model
	Tokens *tokenizer.Tokenizer
	Chat   *chat.Format
	Info   ModelInfo
}

// LoadModel opens a model by name or path, checks that vocabulary and weights fit, and describes it. weights says how
// its matrices are kept: "" or bf16, or quantized, for sampling only (see spec.Spec).
func LoadModel(nameOrPath, weights string, o hub.Options) (*Loaded, error) {
	if weights == "bf16" {
		weights = ""
	}
	file, err := hub.Resolve(nameOrPath, o)
	if err != nil {
		return nil, err
	}
	tokJSON, meta, template, err := file.TokenizerSource()
	if err != nil {
		return nil, err
	}
	var tok *tokenizer.Tokenizer
	if len(tokJSON) > 0 {
		tok, err = tokenizer.FromJSON(tokJSON)
	} else {
		tok, err = tokenizer.FromGGUF(meta)
	}
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", nameOrPath, err)
	}
	var m *transformer.Model
	switch {
	case file.Format == "gguf":
		open := transformer.LoadGGUF
		if weights == quantized {
			open = transformer.LoadGGUFQuantized
		}
		var f *gguf.File
		if f, err = gguf.Open(file.Path); err == nil {
			m, err = open(f)
			err = errors.Join(err, f.Close())
		}
	case weights == quantized:
		err = errors.New("weights: quantized needs a GGUF file with Q4_0, Q4_1 or Q8_0 matrices; leave weights out for this model")
	default:
		m, err = transformer.LoadSafetensors(file.Path)
	}
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", nameOrPath, err)
	}
	if err := tok.Fit(m.Vocab); err != nil {
		return nil, fmt.Errorf("model %s: %w", nameOrPath, err)
	}
	format, err := chat.New(tok, template)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", nameOrPath, err)
	}
	return &Loaded{Model: m, Tokens: tok, Chat: format, Info: ModelInfo{Name: nameOrPath, SHA256: file.SHA256, Format: file.Format,
		Architecture: m.Architecture, Context: m.Context, Vocab: m.Vocab, ChatHash: format.Hash(), Weights: weights}}, nil
}

// load returns the wanted model, loading it when another (or none) is in memory. wanted.SHA256 may be empty.
func (e *Engine) load(ctx context.Context, wanted ModelInfo) (*Loaded, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	lacks := notHere // a worker had it when the run began, so it is this one's fault
	if wanted.SHA256 == "" {
		lacks = func(err error) error { return fatal(BadInput, err) }
	}
	path, err := e.path(wanted.Name)
	if err != nil {
		return nil, lacks(err)
	}
	if wanted.SHA256 == "" { // the file may have changed since it was loaded
		if f, err := hub.Resolve(path, e.Hub); err == nil {
			wanted.SHA256 = f.SHA256
		}
	}
	if e.model != nil && e.model.Info.Name == wanted.Name && wanted.SHA256 == e.model.Info.SHA256 && wanted.Weights == e.model.Info.Weights {
		return e.model, e.model.compute(wanted)
	}
	e.model, e.adapters, e.rows = nil, nil, nil // never two models in memory
	if _, err := hub.Resolve(path, e.Hub); err != nil {
		if !e.Pull || !errors.Is(err, hub.ErrNotPulled) {
			return nil, lacks(err)
		}
		if _, err := hub.Pull(ctx, path, e.Hub); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	m, err := LoadModel(path, wanted.Weights, e.Hub)
	if err != nil {
		e.meter().Loaded("", "", time.Since(began), err)
		return nil, lacks(err)
	}
	e.meter().Loaded(m.Info.Architecture, m.Info.Format, time.Since(began), nil)
	m.Info.Name = wanted.Name // as the spec has it: where the file lies differs from worker to worker
	if wanted.SHA256 != "" && wanted.SHA256 != m.Info.SHA256 {
		return nil, notHere(fmt.Errorf("model %s on this worker has sha256 %s, the run needs %s; put the same file there", wanted.Name, m.Info.SHA256, wanted.SHA256))
	}
	e.model = m
	return m, m.compute(wanted)
}

// loadFor is load with the watchdog held off.
func (e *Engine) loadFor(ctx context.Context, live *progress, wanted ModelInfo) (*Loaded, error) {
	live.loading.Add(1)
	defer live.loading.Add(-1)
	return e.load(ctx, wanted)
}

// path is where the model of a spec lies here: a known name stays one, all else must be allowed.
func (e *Engine) path(name string) (string, error) {
	if e.Allow == nil || hub.IsKnown(name) {
		return name, nil
	}
	return e.Allow.Model(name)
}

// kernels compares this worker's kernels with those that the run began with: other ones make other bits. While other
// workers live the task is left to them, until all have had a turn; then it is done here, and said tells it.
func (e *Engine) kernels(ctx context.Context, p Plan, m *Loaded) (said string, err error) {
	have := tensor.VariantOf(m.Compute())
	if m.Info.Weights == quantized || p.Variant == have { // quantised products are exact whatever the run's arithmetic is
		return "", nil
	}
	if e.others(ctx) {
		return "", notHere(fmt.Errorf("this worker has %s kernels, the run began with %s: rows would differ in their last bits", have, p.Variant))
	}
	return fmt.Sprintf("a worker has %s kernels, the run began with %s: what it makes follows its own", have, p.Variant), nil
}

// compute sets the arithmetic in which a run uses the model.
func (m *Loaded) compute(wanted ModelInfo) error {
	c, err := tensor.ParseCompute(wanted.Compute)
	if err != nil {
		return fatal(BadInput, err)
	}
	if m.Compute() != c {
		if err := m.SetCompute(c); err != nil {
			return fatal(BadInput, err)
		}
	}
	m.Info.Compute = wanted.Compute
	return nil
}

// workspace is the engine's one scratch area.
func (e *Engine) workspace() *transformer.Workspace {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ws == nil {
		e.ws = transformer.NewWorkspace()
	}
	return e.ws
}

// ReadAdapter fetches an adapter's files and checks them against the model.
func ReadAdapter(ctx context.Context, s *store.Store, m *transformer.Model, r AdapterRef) (*transformer.Adapter, error) {
	files := map[string][]byte{}
	for name, ref := range r.Files {
		b, err := s.Get(ctx, ref)
		if err != nil {
			return nil, fmt.Errorf("adapter file %s: %w", name, err)
		}
		files[name] = b
	}
	return transformer.ReadPEFT(files, m.Config)
}

// stack reads adapters, the first at the bottom. Those of the last stack are still in memory.
func (e *Engine) stack(ctx context.Context, m *transformer.Model, refs []AdapterRef) ([]*transformer.Adapter, error) {
	var out []*transformer.Adapter
	e.mu.Lock()
	have := e.adapters
	e.mu.Unlock()
	used := map[string]*transformer.Adapter{}
	for _, r := range refs {
		key := dataset.InputHash(r)
		a := have[key]
		if a == nil {
			var err error
			if a, err = ReadAdapter(ctx, e.Store, m, r); err != nil {
				return nil, err
			}
		}
		used[key] = a
		out = append(out, a)
	}
	if len(refs) > 0 { // a worker that serves many runs must not keep all their adapters
		e.mu.Lock()
		e.adapters = used
		e.mu.Unlock()
	}
	return out, nil
}

// open returns a model and the adapters on top of it.
func (e *Engine) open(ctx context.Context, live *progress, wanted ModelInfo, adapters []AdapterRef) (*Loaded, []*transformer.Adapter, error) {
	m, err := e.loadFor(ctx, live, wanted)
	if err != nil {
		return nil, nil, err
	}
	stack, err := e.stack(ctx, m.Model, adapters)
	return m, stack, err
}

// InspectModelInput has the draft plan.
type InspectModelInput struct {
	Plan store.Ref `json:"plan"`
}

// InspectModelOutput has the finished plan.
type InspectModelOutput struct {
	Plan    store.Ref `json:"plan"`
	Model   ModelInfo `json:"model"`
	Variant string    `json:"variant"`
}

// InspectModel finds the run's models on this machine, loads the student and pins both by hash in the finished plan.
// Fetching and loading can take minutes, so it beats.
func (e *Engine) InspectModel(ctx context.Context, in InspectModelInput) (InspectModelOutput, error) {
	var out InspectModelOutput
	err := heartbeat.Run(ctx, heartbeat.Options{}, func(ctx context.Context) (err error) {
		out, err = e.inspect(ctx, in)
		return e.elsewhere(ctx, err)
	})
	return out, err
}

// elsewhere lets other workers try what was wrong with a model on this one: until all that are live have had a turn.
func (e *Engine) elsewhere(ctx context.Context, err error) error {
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != BadInput {
		return err
	}
	if e.others(ctx) {
		return notHere(err)
	}
	return err
}

// others says that another live worker has not had its turn at this task yet, as far as can be known.
func (e *Engine) others(ctx context.Context) bool {
	n := lanesOf(ctx, e.Lanes, EngineQueue)
	return n > 1 && int(activity.GetInfo(ctx).Attempt) < 2*n
}

func (e *Engine) inspect(ctx context.Context, in InspectModelInput) (InspectModelOutput, error) {
	p, err := getPlan(ctx, e.Store, in.Plan)
	if err != nil {
		return InspectModelOutput{}, err
	}
	if err := e.Own.bind(&p, ownFilter, ownEvaluation); err != nil { // before rows are made: elsewhere asks the other workers
		return InspectModelOutput{}, fatal(BadInput, err)
	}
	if t := p.Spec.TeacherOptions.Model; p.Spec.Teacher == "local" && p.Pairs == nil && t != "" && t != p.Spec.Model {
		m, err := e.load(ctx, p.sampling(ModelInfo{Name: t, Compute: p.Spec.Compute}))
		if err != nil {
			return InspectModelOutput{}, err
		}
		p.Teacher = m.Info
	}
	if student := p.sampling(ModelInfo{Name: p.Spec.Model}); student.Weights != "" { // a file that cannot be sampled so fails now
		if _, err := e.load(ctx, student); err != nil {
			return InspectModelOutput{}, err
		}
	}
	m, err := e.load(ctx, ModelInfo{Name: p.Spec.Model, Compute: p.Spec.Compute})
	if err != nil {
		return InspectModelOutput{}, err
	}
	if want := p.Spec.ModelSHA256; want != "" && want != m.Info.SHA256 {
		return InspectModelOutput{}, fatal(BadInput, fmt.Errorf("spec: model_sha256 is %s, but %s on the engine worker has %s; put the right file there or leave model_sha256 out", want, p.Spec.Model, m.Info.SHA256))
	}
	p.Model, p.Variant, p.Shape = m.Info, tensor.VariantOf(m.Compute()), m.Config
	if p.Spec.Teacher == "local" && p.Teacher.SHA256 == "" {
		p.Teacher = m.Info
	}
	for _, l := range []struct {
		field string
		n     int
	}{{"dpo.max_length", p.Spec.DPO.MaxLength}, {"sft.max_length", p.Spec.SFT.MaxLength}} {
		if l.n > m.Context {
			return InspectModelOutput{}, fatal(BadInput, fmt.Errorf("spec: %s %d is more than the model's context of %d tokens; set a smaller one", l.field, l.n, m.Context))
		}
	}
	out := InspectModelOutput{Model: p.Model, Variant: p.Variant}
	out.Plan, err = putJSON(ctx, e.Store, "plans", p)
	return out, err
}
