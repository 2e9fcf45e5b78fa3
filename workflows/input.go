package workflows

import (
	"bytes"
	"encoding/json"
	"fmt"

	"go.temporal.io/sdk/temporal"

	"github.com/opencharacter/opencharacter/activities"
)

// Input is the JSON that a user starts a workflow with. It is kept as it came, because encoding/json would drop
// unknown fields silently: they are refused when the spec is resolved.
type Input struct{ raw json.RawMessage }

// UnmarshalJSON keeps the bytes.
func (i *Input) UnmarshalJSON(b []byte) error { i.raw = append(i.raw[:0], b...); return nil }

// MarshalJSON returns the bytes; an empty input is an empty object.
func (i Input) MarshalJSON() ([]byte, error) {
	if len(i.raw) == 0 {
		return []byte("{}"), nil
	}
	return i.raw, nil
}

// NewInput wraps a spec's JSON.
func NewInput(spec []byte) Input { return Input{raw: spec} }

// StageInput starts one stage. A child gets Brief and its upstream stages; a user who starts a stage alone gives spec,
// and the upstream stages as the results of earlier runs show them.
type StageInput struct {
	Spec json.RawMessage `json:"spec,omitempty"`
	// Kind is dpo or sft for TrainAdapter.
	Kind          string            `json:"kind,omitempty"`
	Preferences   *activities.Stage `json:"preferences,omitempty"`
	DPO           *activities.Stage `json:"dpo,omitempty"`
	Introspection *activities.Stage `json:"introspection,omitempty"`
	SFT           *activities.Stage `json:"sft,omitempty"`
	Brief         *activities.Brief `json:"brief,omitempty"`
	Continued     *Continued        `json:"continued,omitempty"`
	Parent        string            `json:"parent,omitempty"` // workflow id that hears of progress
	Paused        bool              `json:"paused,omitempty"`
}

// stageInput reads a stage's input and refuses unknown fields.
func stageInput(in Input) (StageInput, error) {
	var s StageInput
	if len(in.raw) == 0 {
		return s, nil
	}
	d := json.NewDecoder(bytes.NewReader(in.raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, badInput(fmt.Errorf(`stage input: %w; a stage started alone takes {"spec": {...}} and its upstream stages`, err))
	}
	return s, nil
}

func badInput(err error) error {
	return temporal.NewNonRetryableApplicationError(err.Error(), activities.BadInput, err)
}
