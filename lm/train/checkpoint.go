package train

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/opencharacter/opencharacter/lm/safetensors"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// Files of a checkpoint beside the two PEFT files of the adapter.
const (
	stateFile   = "trainer.json"
	momentsFile = "moments.safetensors"
)

// Names of AdamW's moments in moments.safetensors, after the matrix name.
var momentNames = [2]string{".exp_avg", ".exp_avg_sq"}

// ErrDamaged marks a checkpoint that no trainer can have written: it does not parse, does
// not fit the model, or holds numbers that are not finite. An earlier one may be good.
var ErrDamaged = errors.New("the checkpoint is damaged")

// State is trainer.json: where a run stands and what it must be continued with. There
// is no generator state: the order of rows is a function of the seed and the step.
type State struct {
	Step    int      `json:"step"`              // steps applied
	Seed    uint64   `json:"seed"`              // of the order of rows
	Options string   `json:"options"`           // hash of the resolved options
	Model   string   `json:"model"`             // hash of the base model
	Compute string   `json:"compute,omitempty"` // mode of the products, unless exact
	Frozen  []string `json:"frozen"`            // hashes of the frozen adapters
}

// state describes the trainer as it stands.
func (t *Trainer) state() State {
	s := State{Step: t.step, Seed: t.o.Seed, Options: t.o.hash(), Model: t.m.Hash(), Frozen: []string{}}
	if c := t.m.Compute(); c != tensor.Exact {
		s.Compute = c.String()
	}
	for _, f := range t.stack[:len(t.stack)-1] {
		s.Frozen = append(s.Frozen, f.Hash())
	}
	return s
}

// Save encodes everything that the next step depends on: the adapter as a PEFT folder,
// AdamW's moments and trainer.json. The same state gives the same bytes.
func (t *Trainer) Save() (map[string][]byte, error) {
	files, err := t.adapter.PEFT(t.o.BaseModel)
	if err != nil {
		return nil, fmt.Errorf("train: save step %d: %w", t.step, err)
	}
	var entries []safetensors.Entry
	size := 0
	for i, p := range t.adapter.Matrices() {
		for k, suffix := range momentNames {
			entries = append(entries, safetensors.Entry{
				Name: p.Name + suffix, DType: "F32", Shape: []int{p.T.Rows, p.T.Cols}, Data: safetensors.F32Bytes(t.moment[i][k]),
			})
			size += 4*len(t.moment[i][k]) + 200 // data and header
		}
	}
	var moments bytes.Buffer
	moments.Grow(size)
	if err := safetensors.Write(&moments, entries, nil); err != nil {
		return nil, fmt.Errorf("train: save step %d: encode %s: %w", t.step, momentsFile, err)
	}
	state, err := json.MarshalIndent(t.state(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("train: save step %d: encode %s: %w", t.step, stateFile, err)
	}
	files[momentsFile], files[stateFile] = moments.Bytes(), append(state, '\n')
	return files, nil
}

// ReadState decodes trainer.json of a checkpoint.
func ReadState(files map[string][]byte) (State, error) {
	var s State
	data, ok := files[stateFile]
	if !ok {
		return s, fmt.Errorf("train: %w: %s is missing", ErrDamaged, stateFile)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("train: %w: %s is not valid: %w; go back to an earlier one", ErrDamaged, stateFile, err)
	}
	if s.Step < 0 {
		return s, fmt.Errorf("train: %w: %s: step is %d; go back to an earlier one", ErrDamaged, stateFile, s.Step)
	}
	return s, nil
}

// Restore sets the trainer to a saved state. The checkpoint must come from the same
// model, frozen adapters, rank and options; on error nothing has changed. A checkpoint that
// names the same and yet cannot be used gives ErrDamaged.
func (t *Trainer) Restore(files map[string][]byte) error {
	s, err := ReadState(files)
	if err != nil {
		return err
	}
	mine := t.state()
	switch {
	case s.Model != mine.Model:
		return fmt.Errorf("train: restore: the checkpoint was trained on model %.12s, this is %.12s; use the same model", s.Model, mine.Model)
	case s.Compute != mine.Compute:
		return fmt.Errorf("train: restore: the checkpoint was trained in compute mode %s, this model is in %s; use the same mode or start a new run", cmp.Or(s.Compute, "exact"), cmp.Or(mine.Compute, "exact"))
	case !slices.Equal(s.Frozen, mine.Frozen):
		return errors.New("train: restore: the checkpoint was trained on other frozen adapters; pass the same ones")
	case s.Options != mine.Options || s.Seed != mine.Seed:
		return errors.New("train: restore: the checkpoint was trained with other options; use the same ones or start a new run")
	}
	a, err := transformer.ReadPEFT(files, t.m.Config)
	if err != nil {
		return fmt.Errorf("train: restore: %w: %w", ErrDamaged, err)
	}
	if a.Rank != t.adapter.Rank || a.Alpha != t.adapter.Alpha {
		return fmt.Errorf("train: restore: %w: it has rank %d and alpha %v, the trainer %d and %v", ErrDamaged, a.Rank, a.Alpha, t.adapter.Rank, t.adapter.Alpha)
	}
	moments, err := t.readMoments(files)
	if err != nil {
		return fmt.Errorf("train: restore: %w: %s: %w", ErrDamaged, momentsFile, err)
	}
	saved := a.Matrices()
	for i, p := range t.adapter.Matrices() {
		copy(p.T.Data(), saved[i].T.Data())
	}
	t.moment, t.step = moments, s.Step
	t.reach = t.measure()
	return nil
}

// readMoments decodes moments.safetensors: exactly two tensors for every matrix.
func (t *Trainer) readMoments(files map[string][]byte) (moments [][2][]float32, err error) {
	data, ok := files[momentsFile]
	if !ok {
		return nil, errors.New("the file is missing from the checkpoint")
	}
	f, err := safetensors.Parse(data)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	unknown := maps.Clone(f.Tensors)
	for _, p := range t.adapter.Matrices() {
		var pair [2][]float32
		for k, suffix := range momentNames {
			name := p.Name + suffix
			info, ok := f.Tensors[name]
			if !ok {
				return nil, fmt.Errorf("tensor %q is missing", name)
			}
			if info.DType != "F32" || !slices.Equal(info.Shape, []int{p.T.Rows, p.T.Cols}) {
				return nil, fmt.Errorf("tensor %q is %s %v; it must be F32 [%d %d]", name, info.DType, info.Shape, p.T.Rows, p.T.Cols)
			}
			if pair[k], err = f.Floats(name); err != nil {
				return nil, err
			}
			for _, v := range pair[k] {
				if !finite(float64(v)) || k == 1 && v < 0 {
					return nil, fmt.Errorf("tensor %q holds %v, which no optimiser step leaves behind", name, v)
				}
			}
			delete(unknown, name)
		}
		moments = append(moments, pair)
	}
	for name := range unknown {
		return nil, fmt.Errorf("tensor %q belongs to no matrix of the adapter", name)
	}
	return moments, nil
}
