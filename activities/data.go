package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
)

// Data serves the activities that need nothing but the object store.
type Data struct {
	Store *store.Store
	// Attributes tells which search attributes the cluster knows; nil means none. The workflow upserts only those,
	// because an unknown attribute would fail its workflow task again and again.
	Attributes func(ctx context.Context) ([]string, error)
	// Lanes is as in [Engine].
	Lanes func(ctx context.Context, queue string) int
	// Report is the address under which `character up` serves reports; "" = nobody does.
	Report string
	// Own are the program's own teachers, filters and evaluations that specs may name.
	Own Own

	collectors collectors
}

// ResolveInput is the user's spec as it came.
type ResolveInput struct {
	Spec json.RawMessage `json:"spec,omitempty"`
}

// Brief is the plan's ref and the few of its values that workflows steer by and show.
type Brief struct {
	Plan           store.Ref `json:"plan"` // a draft until [Engine.InspectModel] has pinned the models
	Constitution   string    `json:"constitution"`
	Preset         string    `json:"preset"`
	Model          string    `json:"model"`
	Teacher        string    `json:"teacher"`
	Pairs          int       `json:"pairs"`
	PairChunk      int       `json:"pair_chunk"`
	Reflections    int       `json:"reflections"`
	Interactions   int       `json:"interactions"`
	Chunk          int       `json:"chunk"`
	SegmentSeconds int       `json:"segment_seconds"`
	// The user gave these rows: nothing is generated.
	OwnPairs         bool `json:"own_pairs,omitempty"`
	OwnIntrospection bool `json:"own_introspection,omitempty"`
	// Spec is where the resolved spec lies as an object of its own: what counts, adjustments included.
	Spec string `json:"spec,omitempty"`
	// Report is the address of the live report of all runs; "" where nobody serves it.
	Report string `json:"report,omitempty"`
	// Attributes are the search attributes that the cluster knows.
	Attributes []string `json:"attributes,omitempty"`
}

// ResolveSpec lays the user's fields over the preset, checks every value and every file it names, and stores the plan.
func (d *Data) ResolveSpec(ctx context.Context, in ResolveInput) (Brief, error) {
	s, err := spec.Resolve(in.Spec)
	if err != nil {
		return Brief{}, fatal(BadInput, err)
	}
	if err := d.collectors.held(ctx, d.Store); err != nil {
		return Brief{}, err
	}
	if err := s.CheckReferences(); err != nil {
		return Brief{}, fatal(BadInput, err)
	}
	if activity.IsActivity(ctx) { // a whole run's id becomes a key in the bucket: better refused now than at its first record
		if i := activity.GetInfo(ctx); i.WorkflowType != nil && i.WorkflowType.Name == "CharacterTraining" {
			if err := spec.CheckRunID(i.WorkflowExecution.ID); err != nil {
				return Brief{}, fatal(BadInput, err)
			}
		}
	}
	p := Plan{Spec: s}
	if p.Own, err = d.Own.pin(s); err != nil {
		return Brief{}, fatal(BadInput, err)
	}
	c, err := d.loadConstitution(ctx, s.Constitution)
	if err != nil {
		return Brief{}, err
	}
	p.Name = c.Name
	if p.Constitution, err = d.Store.Put(ctx, "constitutions", ".json", c.Canonical()); err != nil {
		return Brief{}, err
	}
	if s.Preferences.Prompts != "" {
		if p.Prompts, err = d.pin(ctx, "preferences.prompts", s.Preferences.Prompts); err != nil {
			return Brief{}, err
		}
		if _, err := userPrompts(ctx, d.Store, *p.Prompts); err != nil {
			return Brief{}, err
		}
		if s.Teacher == "recorded" || !slices.Contains(s.Preferences.Sources, "user") {
			return Brief{}, fatal(BadInput, fmt.Errorf("spec: preferences.prompts would not be used: teacher is %s and preferences.sources are %v; add user to the sources (teacher recorded answers its own prompts only)", s.Teacher, s.Preferences.Sources))
		}
	}
	if s.Preferences.File != "" {
		if s.Preferences.Prompts != "" {
			return Brief{}, fatal(BadInput, fmt.Errorf("spec: preferences.prompts would not be used: preferences.file has pairs with prompts of their own; leave one out"))
		}
		check := func(b []byte) error { _, err := dataset.RunPreferences(b); return err }
		if p.Pairs, err = d.rows(ctx, "preferences.file", s.Preferences.File, check); err != nil {
			return Brief{}, err
		}
	}
	if s.Introspection.File != "" {
		check := func(b []byte) error { _, err := dataset.RunIntrospection(b); return err }
		if p.Talks, err = d.rows(ctx, "introspection.file", s.Introspection.File, check); err != nil {
			return Brief{}, err
		}
	}
	if s.TeacherOptions.File != "" {
		if p.Recorded, err = d.pin(ctx, "teacher_options.file", s.TeacherOptions.File); err != nil {
			return Brief{}, err
		}
	}
	rec, err := recorded(ctx, d.Store, p)
	if err != nil {
		return Brief{}, err
	}
	if s.Teacher == "recorded" && p.Pairs == nil && len(rec) < s.Evaluation.HeldOut+s.Preferences.MinPairs {
		return Brief{}, fatal(BadInput, fmt.Errorf("spec: teacher recorded has %d answers for %q, but preferences.min_pairs %d and evaluation.held_out %d need %d; name a larger file in teacher_options.file or choose another teacher",
			len(rec), c.Name, s.Preferences.MinPairs, s.Evaluation.HeldOut, s.Evaluation.HeldOut+s.Preferences.MinPairs))
	}
	return brief(ctx, d, p)
}

func (d *Data) loadConstitution(ctx context.Context, value string) (*constitution.Constitution, error) {
	for _, name := range constitution.Builtin() {
		if name == value {
			c, err := constitution.Load(name)
			return c, fatal(BadInput, err)
		}
	}
	if len(value) < 4 || value[:4] != "ref:" {
		return nil, fatal(BadInput, fmt.Errorf("spec: constitution %q is not built in (%d are: see `character constitution list`); for a file of your own start the run with `character run FILE`, which uploads it",
			value, len(constitution.Builtin())))
	}
	b, key, err := uploaded(ctx, d.Store, "constitution", value)
	if err != nil {
		return nil, err
	}
	c, err := constitution.Parse(b, path.Base(key))
	if err != nil {
		return nil, fatal(BadInput, err)
	}
	return c, fatal(BadInput, c.Validate())
}

// pin turns an uploaded key into a ref with size and hash.
func (d *Data) pin(ctx context.Context, field, value string) (*store.Ref, error) {
	b, key, err := uploaded(ctx, d.Store, field, value)
	if err != nil {
		return nil, err
	}
	r, err := d.Store.Put(ctx, path.Dir(key), path.Ext(key), b)
	return &r, err
}

// rows pins a file of rows after a check.
func (d *Data) rows(ctx context.Context, field, value string, check func([]byte) error) (*store.Ref, error) {
	r, err := d.pin(ctx, field, value)
	if err != nil {
		return nil, err
	}
	b, err := d.Store.Get(ctx, *r)
	if err != nil {
		return nil, err
	}
	if err := check(b); err != nil {
		return nil, fatal(BadInput, fmt.Errorf("spec: %s: %w", field, err))
	}
	return r, nil
}

// recorded returns the recorded answers of the plan's character: the user's file, else the built-in ones, else none.
// Only what no retry can mend is a fatal error.
func recorded(ctx context.Context, s *store.Store, p Plan) ([]constitution.Example, error) {
	if p.Recorded != nil {
		b, err := s.Get(ctx, *p.Recorded)
		if err != nil {
			return nil, err
		}
		rows, err := constitution.ParseRecorded(b, path.Base(p.Recorded.Key))
		return rows, fatal(BadInput, err)
	}
	rows, ok := constitution.Recorded(p.Name)
	if !ok && p.Spec.Teacher == "recorded" {
		return nil, fatal(BadInput, fmt.Errorf("spec: no recorded answers are built in for %q; give a file in teacher_options.file", p.Name))
	}
	return rows, nil
}

// FindStageInput names a stage by what shapes it.
type FindStageInput struct {
	Kind     string       `json:"kind"`
	Plan     store.Ref    `json:"plan"`
	Upstream []string     `json:"upstream,omitempty"` // keys or hashes of the inputs
	Adapters []AdapterRef `json:"adapters,omitempty"`
}

// FindStageOutput has the stage's key and, where the same work was done before, its result.
type FindStageOutput struct {
	Key   string `json:"key"`
	Stage *Stage `json:"stage,omitempty"`
}

func stageObject(kind, key string) string { return "stages/" + kind + "/" + key + ".json" }

// FindStage computes the stage's key and looks whether that stage is already there (law 8).
func (d *Data) FindStage(ctx context.Context, in FindStageInput) (FindStageOutput, error) {
	p, err := getPlan(ctx, d.Store, in.Plan)
	if err != nil {
		return FindStageOutput{}, err
	}
	c, err := getConstitution(ctx, d.Store, p)
	if err != nil {
		return FindStageOutput{}, err
	}
	rec, err := recorded(ctx, d.Store, p)
	if err != nil {
		return FindStageOutput{}, err
	}
	out := FindStageOutput{Key: dataset.InputHash(map[string]any{"kind": in.Kind, "shape": shape(in.Kind, p), "texts": texts(in.Kind, p, c, rec), "upstream": in.Upstream, "adapters": in.Adapters})[:32]}
	b, err := d.Store.GetKey(ctx, stageObject(in.Kind, out.Key))
	if errors.Is(err, store.ErrNotFound) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	var st Stage
	if err := json.Unmarshal(b, &st); err != nil {
		return out, fmt.Errorf("stage %s: %w; remove that object to do the stage again", stageObject(in.Kind, out.Key), err)
	}
	st.Reused = true
	out.Stage = &st
	return out, nil
}

// KeepStage commits a finished stage under its key. If it was committed before, that first result stays and is
// returned: a stage's values are equal by the row law, only its timings may differ.
func (d *Data) KeepStage(ctx context.Context, st Stage) (Stage, error) {
	key := stageObject(st.Kind, st.Key)
	_, err := d.Store.PutKey(ctx, key, mustJSON(st))
	if !errors.Is(err, store.ErrConflict) {
		return st, err
	}
	b, err := d.Store.GetKey(ctx, key)
	if err != nil {
		return Stage{}, err
	}
	var first Stage
	if err := json.Unmarshal(b, &first); err != nil {
		return Stage{}, temporal.NewNonRetryableApplicationError("stage "+key+" is not readable: "+err.Error(), StageFailed, err)
	}
	return first, nil
}
