package activities

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
)

// Task queues. A laptop's one worker serves all three; a fleet gives the engine queue to its GPU machines.
const (
	DataQueue    = "character"
	TeacherQueue = "character-teacher"
	EngineQueue  = "character-engine"
)

// Stage kinds, in the order of a whole run.
const (
	KindPreferences   = "preferences"
	KindDPO           = "dpo"
	KindIntrospection = "introspection"
	KindSFT           = "sft"
	KindEvaluation    = "evaluation"
)

// ModelInfo is a model as an engine worker found it. Two workers agree on a model when SHA256 agrees.
type ModelInfo struct {
	Name         string `json:"name"`
	SHA256       string `json:"sha256"`
	Format       string `json:"format"`
	Architecture string `json:"architecture"`
	Context      int    `json:"context"`
	Vocab        int    `json:"vocab"`
	ChatHash     string `json:"chat_hash"`
	Compute      string `json:"compute,omitempty"` // arithmetic of its products; "" = exact
	Weights      string `json:"weights,omitempty"` // how they are kept in memory; "" = bf16
}

const quantized = "quantized" // ModelInfo.Weights

// sampling is the model as text is drawn from it. Products with quantised weights are always exact.
func (p Plan) sampling(m ModelInfo) ModelInfo {
	if p.Spec.Weights == quantized {
		m.Weights, m.Compute = quantized, ""
	}
	return m
}

// Plan is a resolved spec with everything it names pinned by hash. It is stored once; activities get its ref.
type Plan struct {
	Spec         spec.Spec  `json:"spec"`
	Constitution store.Ref  `json:"constitution"`
	Name         string     `json:"name"` // the constitution's name
	Prompts      *store.Ref `json:"prompts,omitempty"`
	Recorded     *store.Ref `json:"recorded,omitempty"`
	Pairs        *store.Ref `json:"pairs,omitempty"` // the user's rows, instead of generated ones
	Talks        *store.Ref `json:"talks,omitempty"`
	Model        ModelInfo  `json:"model"`
	Teacher      ModelInfo  `json:"teacher"` // teacher local only
	Variant      string     `json:"variant"` // kernel variant: bits are fixed per variant
	// Shape is the student's architecture, so that adapters can be read where the model file is not.
	Shape transformer.Config `json:"shape"`
	// Own are the program's own teachers, filters and evaluations that the spec names, with their versions.
	Own []Pinned `json:"own,omitempty"`

	own Own // as this worker has them: see [Own]
}

// AdapterRef is a trained adapter at rest: a PEFT folder's files in the store.
type AdapterRef struct {
	Files map[string]store.Ref `json:"files"`
}

// Stage is what a finished stage leaves behind; it is stored under the stage's key and returned by its workflow.
type Stage struct {
	Kind    string             `json:"kind"`
	Key     string             `json:"key"` // hash of everything that shaped the output
	Parts   []store.Ref        `json:"parts,omitempty"`
	Folder  string             `json:"folder,omitempty"` // key prefix of the data set folder
	Rows    int64              `json:"rows"`
	Kept    int64              `json:"kept"`
	Dropped map[string]int64   `json:"dropped,omitempty"`
	Adapter *AdapterRef        `json:"adapter,omitempty"`
	Metrics *store.Ref         `json:"metrics,omitempty"`
	Timings *store.Ref         `json:"timings,omitempty"`
	Values  map[string]float64 `json:"values,omitempty"` // last metrics or evaluation results
	Reused  bool               `json:"reused,omitempty"`
}

// chunk is one node of a chain of committed chunks: the workflow carries the newest node's ref only, so that its
// payloads do not grow with the number of chunks.
type chunk struct {
	Previous *store.Ref       `json:"previous,omitempty"`
	Part     store.Ref        `json:"part"`
	From     int              `json:"from"`
	To       int              `json:"to"`
	Kept     int64            `json:"kept"`
	Dropped  map[string]int64 `json:"dropped,omitempty"`
}

// addCounts adds b into a and returns it, making a if needed.
func addCounts(a, b map[string]int64) map[string]int64 {
	if a == nil {
		a = map[string]int64{}
	}
	for k, v := range b {
		a[k] += v
	}
	return a
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("activities: %T does not marshal: %v", v, err)) // our own plain structs only
	}
	return b
}

// Counts copies drop counts for a result, nil when nothing was dropped.
func counts(m map[string]int64) map[string]int64 {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}
