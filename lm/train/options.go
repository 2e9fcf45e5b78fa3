package train

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"

	"github.com/opencharacter/opencharacter/lm/transformer"
)

// Losses and schedules by name.
const (
	LossDPO = "dpo"
	LossSFT = "sft"

	ScheduleConstant = "constant"
	ScheduleCosine   = "cosine"
)

// DefaultMicroTokens bounds the tokens of one forward and backward pass. It keeps a
// model of 135 million parameters under 1.5 GB; larger values are not faster.
const DefaultMicroTokens = 512

// Options are the settings of a training run. Zero values mean the default named
// beside the field; Loss and LR have none and must be set.
type Options struct {
	Loss string `json:"loss"` // "dpo" or "sft"

	Beta float64 `json:"beta"`         // DPO: strength of the preference; 0 means 0.1
	NLL  float64 `json:"nll"`          // DPO: weight of the chosen answers' mean token loss; 0 means none
	KL   float64 `json:"kl,omitempty"` // DPO: weight of the squared drift from the reference's log-probs; 0 means none

	LR          float64 `json:"lr"`           // peak learning rate
	Schedule    string  `json:"schedule"`     // "" means constant; both schedules warm up first
	WarmupSteps int     `json:"warmup_steps"` // steps of linear warm-up
	MinLRRatio  float64 `json:"min_lr_ratio"` // cosine: final rate / peak rate
	TotalSteps  int     `json:"total_steps"`  // cosine: length of the run, as Steps gives; required there

	ClipNorm    float64 `json:"clip_norm"` // largest norm of all gradients together; 0 means no clipping
	Beta1       float64 `json:"beta1"`     // 0 means 0.9
	Beta2       float64 `json:"beta2"`     // 0 means 0.999
	Eps         float64 `json:"eps"`       // 0 means 1e-8
	WeightDecay float64 `json:"weight_decay"`

	BatchSize int    `json:"batch_size"` // pairs or rows a step; 0 means 8
	Epochs    int    `json:"epochs"`     // 0 means 1
	Seed      uint64 `json:"seed"`       // of the order of rows

	// Not part of a run's identity: they change no number.
	MicroTokens int                    `json:"-"` // tokens a forward pass; 0 means DefaultMicroTokens. A longer row passes alone.
	BaseModel   string                 `json:"-"` // model name recorded in adapter_config.json
	Workspace   *transformer.Workspace `json:"-"` // scratch memory to use; nil means the trainer's own
}

// Resolve fills in the defaults and validates the result.
func (o Options) Resolve() (Options, error) {
	o.Beta = cmp.Or(o.Beta, 0.1)
	o.Schedule = cmp.Or(o.Schedule, ScheduleConstant)
	o.Beta1, o.Beta2, o.Eps = cmp.Or(o.Beta1, 0.9), cmp.Or(o.Beta2, 0.999), cmp.Or(o.Eps, 1e-8)
	o.BatchSize, o.Epochs = cmp.Or(o.BatchSize, 8), cmp.Or(o.Epochs, 1)
	o.MicroTokens = cmp.Or(o.MicroTokens, DefaultMicroTokens)
	return o, o.validate()
}

func (o Options) validate() error {
	if o.Loss != LossDPO && o.Loss != LossSFT {
		return fmt.Errorf("train: loss is %q; it must be %q or %q", o.Loss, LossDPO, LossSFT)
	}
	if o.Schedule != ScheduleConstant && o.Schedule != ScheduleCosine {
		return fmt.Errorf("train: schedule is %q; it must be %q or %q", o.Schedule, ScheduleConstant, ScheduleCosine)
	}
	for _, f := range []struct {
		name  string
		value float64
		ok    bool
		want  string
	}{
		{"beta", o.Beta, o.Beta > 0, "above 0"},
		{"nll", o.NLL, o.NLL >= 0, "0 or more"},
		{"kl", o.KL, o.KL >= 0, "0 or more"},
		{"lr", o.LR, o.LR > 0 && o.LR < 1, "between 0 and 1"},
		{"min_lr_ratio", o.MinLRRatio, o.MinLRRatio >= 0 && o.MinLRRatio <= 1, "in 0..1"},
		{"clip_norm", o.ClipNorm, o.ClipNorm >= 0, "0 or more"},
		{"beta1", o.Beta1, o.Beta1 > 0 && o.Beta1 < 1, "between 0 and 1"},
		{"beta2", o.Beta2, o.Beta2 > 0 && o.Beta2 < 1, "between 0 and 1"},
		{"eps", o.Eps, o.Eps > 0 && o.Eps < 1, "between 0 and 1"},
		{"weight_decay", o.WeightDecay, o.WeightDecay >= 0 && o.WeightDecay*o.LR < 1, "0 or more and, times lr, below 1"},
		{"warmup_steps", float64(o.WarmupSteps), o.WarmupSteps >= 0, "0 or more"},
		{"total_steps", float64(o.TotalSteps), o.TotalSteps >= 0, "0 or more"},
		{"batch_size", float64(o.BatchSize), o.BatchSize >= 1, "1 or more"},
		{"epochs", float64(o.Epochs), o.Epochs >= 1, "1 or more"},
		{"micro_tokens", float64(o.MicroTokens), o.MicroTokens >= 1, "1 or more"},
	} {
		if !f.ok || math.IsInf(f.value, 0) {
			return fmt.Errorf("train: %s is %v; it must be %s", f.name, f.value, f.want)
		}
	}
	if o.Loss == LossSFT && (o.NLL != 0 || o.KL != 0) {
		return fmt.Errorf("train: nll is %v and kl is %v, but they weigh parts of the dpo loss; leave them out for sft", o.NLL, o.KL)
	}
	if o.Schedule == ScheduleCosine && o.TotalSteps <= o.WarmupSteps {
		return fmt.Errorf("train: the cosine schedule needs total_steps (%d) above warmup_steps (%d); set it from Steps", o.TotalSteps, o.WarmupSteps)
	}
	return nil
}

// hash identifies the settings that shape a run's numbers. o must be resolved.
func (o Options) hash() string {
	data, err := json.Marshal(o)
	if err != nil {
		panic("train: validated options must encode: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// rate is the learning rate of step k, counted from 0. With W warm-up steps it is
// LR*(k+1)/(W+1) for k < W; then LR, or for the cosine schedule
//
//	LR * (r + (1-r) * (1 + cos(pi * (k-W)/(TotalSteps-W))) / 2),  r = MinLRRatio.
func (o Options) rate(k int) float64 {
	switch {
	case k < o.WarmupSteps:
		return o.LR * float64(k+1) / float64(o.WarmupSteps+1)
	case o.Schedule == ScheduleConstant:
		return o.LR
	case k >= o.TotalSteps:
		return o.LR * o.MinLRRatio
	}
	progress := float64(k-o.WarmupSteps) / float64(o.TotalSteps-o.WarmupSteps)
	return o.LR * (o.MinLRRatio + (1-o.MinLRRatio)*(1+math.Cos(math.Pi*progress))/2)
}
