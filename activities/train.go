package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/tensor"
)

// Files that a checkpoint has beside the trainer's own.
const (
	metricsFile = "metrics.jsonl" // values only: equal bytes in equal runs
	timingsFile = "timings.jsonl" // clocks only
)

// SegmentOutput is a committed segment.
type SegmentOutput struct {
	Step    int                `json:"step"`
	Total   int                `json:"total"`
	Seconds float64            `json:"seconds"`
	Tokens  int64              `json:"tokens"`
	Values  map[string]float64 `json:"values,omitempty"` // the last step's metrics
	Done    bool               `json:"done"`
	Adapter *AdapterRef        `json:"adapter,omitempty"` // when done
	Metrics *store.Ref         `json:"metrics,omitempty"` // when done
	Timings *store.Ref         `json:"timings,omitempty"` // when done
	// Changed says that the kernel variant changed within the training: bits from here on follow the new one.
	Changed string `json:"changed,omitempty"`
}

// note is kept in HEAD.json beside the files.
type note struct {
	Variant  string `json:"variant"`
	Workflow string `json:"workflow"`
	Run      string `json:"run"`
	Attempt  int32  `json:"attempt"`
}

// TrainSegment continues a training from its last committed checkpoint for a bounded time or number of steps and
// commits the next. The stream is fenced: a timed-out attempt that still runs cannot overwrite its successor.
func (e *Engine) TrainSegment(ctx context.Context, in TrainInput) (SegmentOutput, error) {
	var live progress
	return onDevice(ctx, e, &live, func(ctx context.Context) (SegmentOutput, error) {
		out, err := e.segment(ctx, in, &live)
		debug.FreeOSMemory() // the trainer is gone: what comes next shall not grow on top of it
		return out, err
	})
}

func (e *Engine) segment(ctx context.Context, in TrainInput, live *progress) (SegmentOutput, error) {
	start := time.Now()
	p, err := getPlan(ctx, e.Store, in.Plan)
	if err != nil {
		return SegmentOutput{}, err
	}
	m, err := e.loadFor(ctx, live, p.Model)
	if err != nil {
		return SegmentOutput{}, err
	}
	if _, err := e.kernels(ctx, p, m); err != nil { // alone, a change is told when the checkpoint is restored
		return SegmentOutput{}, err
	}
	rows, err := e.tokens(ctx, in, p, m)
	if err != nil {
		return SegmentOutput{}, err
	}
	debug.FreeOSMemory() // what sampling left: a training's peak would stand on top of it
	pairs := rows.pairs
	if in.Kind == KindDPO {
		if pairs, err = withReference(ctx, e.Store, in.Reference, pairs); err != nil {
			return SegmentOutput{}, err
		}
	}
	frozen, err := e.stack(ctx, m.Model, in.Frozen)
	if err != nil {
		return SegmentOutput{}, err
	}
	t := trainSpec(p, in.Kind)
	tr, _, o, err := NewTrainer(p, in.Kind, m, frozen, rows.len(), e.workspace())
	if err != nil {
		return SegmentOutput{}, err
	}

	info := activity.GetInfo(ctx)
	claim, err := e.Store.Claim(ctx, checkpoints(in.Key, info.WorkflowExecution.ID), fmt.Sprintf("%s/%s/%d", info.WorkflowExecution.ID, info.ActivityID, info.Attempt))
	if err != nil {
		return SegmentOutput{}, err
	}
	log, times, changed, err := e.restore(ctx, claim, tr, tensor.VariantOf(m.Compute()))
	if err != nil {
		return SegmentOutput{}, err
	}
	base := tr.Step()
	out := SegmentOutput{Total: steps(t, o.Steps(rows.len())), Changed: changed}
	stop := func() bool {
		return ctx.Err() != nil || time.Since(start) > time.Duration(t.SegmentSeconds)*time.Second || (t.SegmentSteps > 0 && tr.Step()-base >= t.SegmentSteps)
	}
	live.set(func(l *Live) { l.Done, l.Total = tr.Step(), out.Total })
	first := true
	for tr.Step() < out.Total && (first || !stop()) && ctx.Err() == nil {
		first = false // a segment makes at least one step, however slow the machine
		began := time.Now()
		batch := o.Batch(rows.len(), tr.Step())
		var mt train.Metrics
		if in.Kind == KindDPO {
			b := make([]train.Pair, len(batch))
			for i, j := range batch {
				b[i] = pairs[j]
			}
			mt, err = tr.StepDPO(b)
		} else {
			b := make([]train.Row, len(batch))
			for i, j := range batch {
				b[i] = rows.rows[j]
			}
			mt, err = tr.StepSFT(b)
		}
		if err != nil && ctx.Err() != nil {
			break // told to end within the step, which changed nothing: what was done before it is kept
		}
		kind := StageFailed
		if errors.Is(err, train.ErrNonFinite) {
			kind = NonFinite
		}
		out.Values = metricValues(in.Kind, mt)
		if name := nonFinite(out.Values); err == nil && name != "" {
			kind, err = NonFinite, fmt.Errorf("step %d: the %s is %v; rows %s", mt.Step, name, out.Values[name], strings.Join(mt.Rows, ", "))
		}
		if err != nil {
			return SegmentOutput{}, fatal(kind, fmt.Errorf("%w; the last good checkpoint is step %d of stream %s", err, base, checkpoints(in.Key, info.WorkflowExecution.ID)))
		}
		out.Tokens += int64(mt.Tokens)
		log.Write(metricLine(in.Kind, mt.Step, out.Values))
		fmt.Fprintf(times, `{"stage":%q,"step":%d,"seconds":%.3f,"tokens":%d,"at":%q}`+"\n", in.Kind, mt.Step, time.Since(began).Seconds(), mt.Tokens, time.Now().UTC().Format(time.RFC3339))
		live.set(func(l *Live) { l.Done, l.Tokens, l.Values = tr.Step(), l.Tokens+mt.Tokens, out.Values })
		e.did(ctx, in.Kind, fmt.Sprint(tr.Step()))
		e.meter().Trained(in.Kind, tr.Step(), out.Total, mt.Tokens, time.Since(began), out.Values)
	}
	out.Values = withRecent(out.Values, log.Bytes())
	o.Workspace.Release() // the checkpoint's copy of adapter and moments takes its place in the peak
	debug.FreeOSMemory()
	files, err := tr.Save()
	if err != nil {
		return SegmentOutput{}, err
	}
	files[metricsFile], files[timingsFile] = log.Bytes(), times.Bytes()
	// A stopping worker still hands over what it has: the commit outlives the cancelled context for a moment.
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if tr.Step() > base {
		n := note{Variant: tensor.VariantOf(m.Compute()), Workflow: info.WorkflowExecution.ID, Run: info.WorkflowExecution.RunID, Attempt: info.Attempt}
		if err := claim.Commit(cctx, int64(tr.Step()), files, n); err != nil {
			return SegmentOutput{}, fmt.Errorf("commit checkpoint at step %d: %w", tr.Step(), err)
		}
	}
	out.Step, out.Done, out.Seconds = tr.Step(), tr.Step() >= out.Total, time.Since(start).Seconds()
	if out.Done {
		out.Adapter = &AdapterRef{Files: map[string]store.Ref{}}
		for _, name := range []string{"adapter_config.json", "adapter_model.safetensors"} {
			if out.Adapter.Files[name], err = e.settle(cctx, files[name]); err != nil {
				return SegmentOutput{}, err
			}
		}
		if out.Metrics, err = e.settleFile(cctx, ".jsonl", files[metricsFile]); err != nil {
			return SegmentOutput{}, err
		}
		if out.Timings, err = e.settleFile(cctx, ".jsonl", files[timingsFile]); err != nil {
			return SegmentOutput{}, err
		}
		return out, nil
	}
	return out, context.Cause(ctx)
}

// checkpoints is the stream of one training of one workflow. Two runs that do the same work at the same time each have
// their own: sharing one, they would fence each other off for ever. What they end with is equal, and kept once.
func checkpoints(key, workflowID string) string { return "train/" + key + "/" + shortHash(workflowID) }

// settle gives a finished adapter's file a content name of its own: checkpoints are swept one day, results stay, and
// the ref of equal bytes is equal in every run.
func (e *Engine) settle(ctx context.Context, data []byte) (store.Ref, error) {
	ext := ".safetensors"
	if bytes.HasPrefix(data, []byte("{")) {
		ext = ".json"
	}
	return e.Store.Put(ctx, "adapters", ext, data)
}

func (e *Engine) settleFile(ctx context.Context, ext string, data []byte) (*store.Ref, error) {
	r, err := e.Store.Put(ctx, "metrics", ext, data)
	return &r, err
}

// restore loads the newest checkpoint into the trainer. A checkpoint that fails its hash is not used, nor is one with the
// right hash that no trainer can have written: the one before it is, or else the training begins again, which ends with
// the same bytes; that is said in the result.
func (e *Engine) restore(ctx context.Context, claim *store.Claim, tr *train.Trainer, variant string) (log, times *bytes.Buffer, said string, err error) {
	log, times = &bytes.Buffer{}, &bytes.Buffer{}
	h := claim.Head()
	if h.Step == 0 {
		return log, times, "", nil
	}
	files, err := e.checkpoint(ctx, h, tr)
	for errors.Is(err, store.ErrCorrupt) || errors.Is(err, train.ErrDamaged) {
		damaged := h.Step
		var ok bool
		if h, ok = claim.UsePrevious(); !ok || h.Step == 0 {
			return log, times, fmt.Sprintf("checkpoint of step %d is corrupt and there is no good one before it; the training began again", damaged), nil
		}
		said = fmt.Sprintf("checkpoint of step %d is corrupt (%v); continued from step %d", damaged, err, h.Step)
		files, err = e.checkpoint(ctx, h, tr)
	}
	if err != nil {
		return nil, nil, said, err
	}
	log.Write(files[metricsFile])
	times.Write(files[timingsFile])
	var n note
	if json.Unmarshal(h.Note, &n) == nil && n.Variant != "" && n.Variant != variant {
		said = fmt.Sprintf("kernel variant changed from %s to %s at step %d: from here on the numbers follow the new one", n.Variant, variant, h.Step)
	}
	return log, times, said, nil
}

// checkpoint reads a checkpoint, sets the trainer to it and gives its files. When it returns an error the trainer has not
// changed.
func (e *Engine) checkpoint(ctx context.Context, h store.Head, tr *train.Trainer) (map[string][]byte, error) {
	files, err := e.Store.ReadFiles(ctx, h)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint of step %d: %w", h.Step, err)
	}
	switch s, err := train.ReadState(files); {
	case err != nil:
		return nil, fmt.Errorf("checkpoint of step %d: %w", h.Step, err)
	case int64(s.Step) != h.Step:
		return nil, fmt.Errorf("checkpoint of step %d: %w: its state is that of step %d", h.Step, train.ErrDamaged, s.Step)
	}
	err = tr.Restore(files)
	if errors.Is(err, train.ErrDamaged) {
		return nil, fmt.Errorf("checkpoint of step %d: %w", h.Step, err)
	}
	return files, fatal(BadInput, err)
}

func metricValues(kind string, m train.Metrics) map[string]float64 {
	v := map[string]float64{"loss": m.Loss, "learning_rate": m.LR, "grad_norm": m.GradNorm}
	if kind == KindDPO {
		v["preference_loss"], v["accuracy"], v["margin"], v["chosen_reward"], v["rejected_reward"] = m.PreferenceLoss, m.Accuracy, m.Margin, m.ChosenReward, m.RejectedReward
	} else {
		v["perplexity"] = m.Perplexity
	}
	return v
}

// nonFinite names the first value that is NaN or infinite: JSON cannot carry it, and it says that training diverged.
func nonFinite(v map[string]float64) string {
	for _, k := range slices.Sorted(maps.Keys(v)) {
		if math.IsNaN(v[k]) || math.IsInf(v[k], 0) {
			return k
		}
	}
	return ""
}

// metricLine is one line of metrics.jsonl; encoding/json sorts the keys.
func metricLine(kind string, step int, values map[string]float64) []byte {
	row := map[string]any{"stage": kind, "step": step}
	for k, v := range values {
		row[k] = v
	}
	return append(mustJSON(row), '\n')
}

// recent is over how many steps means are taken: one batch of a few rows says little.
const recent = 20

// withRecent completes the last step's values (read from the log when no step was made) with means over the last steps.
func withRecent(last map[string]float64, log []byte) map[string]float64 {
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	lines = lines[max(0, len(lines)-recent):]
	v, sums := map[string]float64{}, map[string]float64{}
	for _, line := range lines {
		var row map[string]any
		if json.Unmarshal(line, &row) != nil {
			return last
		}
		clear(v)
		for k, x := range row {
			if f, ok := x.(float64); ok && k != "step" {
				v[k] = f
			}
		}
		for _, k := range []string{"loss", "accuracy", "preference_loss"} {
			sums[k] += v[k]
		}
	}
	for _, k := range []string{"loss", "accuracy", "preference_loss"} {
		if _, ok := v[k]; ok {
			v["recent_"+k] = sums[k] / float64(len(lines))
		}
	}
	return v
}
