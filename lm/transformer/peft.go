package transformer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/opencharacter/opencharacter/lm/safetensors"
)

// Files of a PEFT adapter folder.
const (
	peftConfigFile  = "adapter_config.json"
	peftWeightsFile = "adapter_model.safetensors"
)

// headerBytes is room for one tensor in a safetensors header, with some to spare.
const headerBytes = 200

// peftConfig is adapter_config.json as PEFT's LoraConfig writes and reads it. The
// fields after TaskType change what an adapter computes; a file that sets one to
// anything but its neutral value is refused.
type peftConfig struct {
	Alpha         float64         `json:"lora_alpha"`
	BaseModel     string          `json:"base_model_name_or_path"`
	Bias          string          `json:"bias"`
	Dropout       float64         `json:"lora_dropout"`
	FanInFanOut   bool            `json:"fan_in_fan_out"`
	InferenceMode bool            `json:"inference_mode"`
	InitWeights   json.RawMessage `json:"init_lora_weights"`
	PeftType      string          `json:"peft_type"`
	Rank          int             `json:"r"`
	TargetModules json.RawMessage `json:"target_modules"`
	TaskType      string          `json:"task_type"`

	AlphaPattern   map[string]any  `json:"alpha_pattern"`
	RankPattern    map[string]any  `json:"rank_pattern"`
	LayersPattern  json.RawMessage `json:"layers_pattern"`
	LayersToChange json.RawMessage `json:"layers_to_transform"`
	ModulesToSave  json.RawMessage `json:"modules_to_save"`
	UseDoRA        bool            `json:"use_dora"`
	UseRSLoRA      bool            `json:"use_rslora"`
	LoRABias       bool            `json:"lora_bias"`
}

// PEFT encodes the adapter as the files of a PEFT folder: adapter_config.json and
// adapter_model.safetensors, float32. baseModel is recorded as the model's name or
// path and may be empty. The same adapter gives the same bytes.
func (a *Adapter) PEFT(baseModel string) (map[string][]byte, error) {
	modules := make([]string, 0, projCount)
	for _, name := range projNames {
		modules = append(modules, name[strings.LastIndexByte(name, '.')+1:])
	}
	slices.Sort(modules)
	null := json.RawMessage("null")
	targets, err := json.Marshal(modules)
	if err != nil {
		return nil, fmt.Errorf("peft: encode target modules: %w", err)
	}
	cfg, err := json.MarshalIndent(peftConfig{
		Alpha: a.Alpha, BaseModel: baseModel, Bias: "none", InferenceMode: true, InitWeights: json.RawMessage("true"),
		PeftType: "LORA", Rank: a.Rank, TargetModules: targets, TaskType: "CAUSAL_LM",
		AlphaPattern: map[string]any{}, RankPattern: map[string]any{}, LayersPattern: null, LayersToChange: null, ModulesToSave: null,
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("peft: encode %s: %w", peftConfigFile, err)
	}
	var entries []safetensors.Entry
	size := 0
	for _, m := range a.Matrices() {
		if !finite(m.T.Data()) {
			return nil, fmt.Errorf("peft: tensor %q holds a value that is not finite; the adapter is damaged", m.Name)
		}
		entries = append(entries, safetensors.Entry{
			Name: m.Name, DType: "F32", Shape: []int{m.T.Rows, m.T.Cols}, Data: safetensors.F32Bytes(m.T.Data()),
		})
		size += 4*len(m.T.Data()) + headerBytes
	}
	var weights bytes.Buffer
	weights.Grow(size)
	if err := safetensors.Write(&weights, entries, map[string]string{"format": "pt"}); err != nil {
		return nil, fmt.Errorf("peft: encode %s: %w", peftWeightsFile, err)
	}
	return map[string][]byte{peftConfigFile: append(cfg, '\n'), peftWeightsFile: weights.Bytes()}, nil
}

// ReadPEFT decodes the files of a PEFT folder into an adapter for a model with the
// given dimensions. Only the two files of PEFT are looked at. Whatever does not fit
// exactly is an error that names the file and the field or tensor.
func ReadPEFT(files map[string][]byte, cfg Config) (*Adapter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	for _, name := range []string{peftConfigFile, peftWeightsFile} {
		if _, ok := files[name]; !ok {
			return nil, fmt.Errorf("peft: %s is missing from the adapter folder", name)
		}
	}
	var p peftConfig
	if err := json.Unmarshal(files[peftConfigFile], &p); err != nil {
		return nil, fmt.Errorf("peft: %s is not valid: %w", peftConfigFile, err)
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("peft: %s: %w", peftConfigFile, err)
	}
	f, err := safetensors.Parse(files[peftWeightsFile])
	if err != nil {
		return nil, fmt.Errorf("peft: %s: %w", peftWeightsFile, err)
	}
	a, err := readAdapter(f, cfg, p)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("peft: %s: %w", peftWeightsFile, err)
	}
	return a, nil
}

// check refuses a LoRA variant that this package would compute differently.
func (p *peftConfig) check() error {
	set := func(raw json.RawMessage) bool {
		s := string(raw)
		return len(s) > 0 && s != "null" && s != "[]"
	}
	switch {
	case p.PeftType != "LORA":
		return fmt.Errorf("peft_type is %q; only LORA is supported", p.PeftType)
	case p.Rank < 1 || p.Rank > maxRank:
		return fmt.Errorf("r is %d; it must lie in 1..%d", p.Rank, maxRank)
	case math.IsNaN(p.Alpha) || math.IsInf(p.Alpha, 0) || p.Alpha == 0:
		return fmt.Errorf("lora_alpha is %v; it must be a number other than zero", p.Alpha)
	case p.Bias != "" && p.Bias != "none":
		return fmt.Errorf("bias is %q; only none is supported", p.Bias)
	case p.FanInFanOut:
		return errors.New("fan_in_fan_out is true; transposed weights are not supported")
	case len(p.AlphaPattern) > 0 || len(p.RankPattern) > 0:
		return errors.New("rank_pattern or alpha_pattern is set; one rank and alpha for all modules is needed")
	case set(p.LayersToChange) || set(p.LayersPattern):
		return errors.New("layers_to_transform or layers_pattern is set; the adapter must cover every layer")
	case set(p.ModulesToSave):
		return errors.New("modules_to_save is set; only LoRA matrices are supported")
	case p.UseDoRA, p.UseRSLoRA, p.LoRABias:
		return errors.New("use_dora, use_rslora or lora_bias is true; only plain LoRA is supported")
	}
	return nil
}

// readAdapter takes every matrix from the file and refuses any that is left over.
func readAdapter(f *safetensors.File, cfg Config, p peftConfig) (*Adapter, error) {
	last := fmt.Sprintf("base_model.model.model.layers.%d.mlp.down_proj.lora_B.weight", cfg.Layers-1)
	info, ok := f.Tensors[last]
	if !ok {
		return nil, fmt.Errorf("tensor %q is missing; is the adapter for a model of %d layers?", last, cfg.Layers)
	}
	if len(info.Shape) != 2 || info.Shape[0] != cfg.Width || info.Shape[1] != p.Rank {
		return nil, fmt.Errorf("tensor %q has shape %v, the model and r call for [%d %d]", last, info.Shape, cfg.Width, p.Rank)
	}
	a := &Adapter{Rank: p.Rank, Alpha: p.Alpha, cfg: cfg, pairs: newPairs(cfg, p.Rank)}
	unknown := maps.Clone(f.Tensors)
	for _, m := range a.Matrices() {
		info, ok := f.Tensors[m.Name]
		if !ok {
			return nil, fmt.Errorf("tensor %q is missing", m.Name)
		}
		if !slices.Equal(info.Shape, []int{m.T.Rows, m.T.Cols}) {
			return nil, fmt.Errorf("tensor %q has shape %v, the model and r call for [%d %d]", m.Name, info.Shape, m.T.Rows, m.T.Cols)
		}
		values, err := f.Floats(m.Name)
		if err != nil {
			return nil, err
		}
		if !finite(values) {
			return nil, fmt.Errorf("tensor %q holds a value that is not finite", m.Name)
		}
		copy(m.T.Data(), values)
		delete(unknown, m.Name)
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("tensor %q is not a LoRA matrix of this model's projections (%d such tensors)", sortedKeys(unknown)[0], len(unknown))
	}
	return a, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
