package activities

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/tensorboard"
)

// ExportTensorBoard writes the values of every training step, and those of the evaluation, as TensorBoard reads them: a folder
// dir/ID with one folder for each stage. Several runs in one dir stand side by side. It returns how many values it wrote.
func ExportTensorBoard(ctx context.Context, s *store.Store, id, dir string) (n int, err error) {
	r, _, err := ReadRecord(ctx, s, id)
	if err != nil {
		return 0, err
	}
	if err := spec.CheckRunID(id); err != nil { // it becomes a folder
		return 0, err
	}
	to := filepath.Join(filepath.Clean(dir), id)
	if entries, err := os.ReadDir(to); err == nil && len(entries) > 0 {
		return 0, fmt.Errorf("tensorboard: folder %s is not empty; remove it, or name another", to)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return 0, fmt.Errorf("tensorboard: %w", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(to), ".partial-")
	if err != nil {
		return 0, fmt.Errorf("tensorboard: %w; name another folder", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	last := time.Unix(0, 0)
	for _, st := range r.Stages {
		scalars, err := stageScalars(ctx, s, st, &last)
		if err != nil {
			return 0, fmt.Errorf("tensorboard: stage %s: %w", st.Kind, err)
		}
		if len(scalars) == 0 {
			continue
		}
		if err := writeEvents(filepath.Join(work, st.Kind), id, scalars); err != nil {
			return 0, fmt.Errorf("tensorboard: %w", roomHint(err, dir))
		}
		n += len(scalars)
	}
	if n == 0 {
		return 0, fmt.Errorf("tensorboard: run %q has trained nothing yet; see `character status %s`", id, id)
	}
	if err := os.Chmod(work, 0o755); err != nil { // a temporary folder is its owner's only
		return 0, fmt.Errorf("tensorboard: %w", err)
	}
	if err := os.Rename(work, to); err != nil { // an empty folder gives way
		return 0, fmt.Errorf("tensorboard: %w", err)
	}
	return n, nil
}

// stageScalars are a stage's values with the times at which they came. last is the time of the newest value so far: an evaluation has none of its own.
func stageScalars(ctx context.Context, s *store.Store, st Stage, last *time.Time) ([]tensorboard.Scalar, error) {
	if st.Kind == KindEvaluation {
		var out []tensorboard.Scalar
		for _, k := range slices.Sorted(maps.Keys(st.Values)) {
			out = append(out, tensorboard.Scalar{Tag: "evaluation/" + k, Value: st.Values[k], At: *last})
		}
		return out, nil
	}
	if st.Metrics == nil {
		return nil, nil
	}
	at := map[int64]time.Time{}
	if st.Timings != nil {
		b, err := s.Get(ctx, *st.Timings)
		if err != nil {
			return nil, err
		}
		err = linesOf(b, func(line []byte) error {
			var t struct {
				Step int64     `json:"step"`
				At   time.Time `json:"at"`
			}
			err := json.Unmarshal(line, &t)
			at[t.Step] = t.At
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", timingsFile, err)
		}
	}
	b, err := s.Get(ctx, *st.Metrics)
	if err != nil {
		return nil, err
	}
	var out []tensorboard.Scalar
	err = linesOf(b, func(line []byte) error {
		var row map[string]any
		if err := json.Unmarshal(line, &row); err != nil {
			return err
		}
		step, ok := row["step"].(float64)
		if !ok {
			return errors.New("a line has no step")
		}
		if t, ok := at[int64(step)]; ok && t.After(*last) {
			*last = t
		}
		for _, k := range slices.Sorted(maps.Keys(row)) {
			if v, ok := row[k].(float64); ok && k != "step" {
				out = append(out, tensorboard.Scalar{Tag: "train/" + k, Step: int64(step), Value: v, At: *last})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", metricsFile, err)
	}
	return out, nil
}

func linesOf(b []byte, f func([]byte) error) error {
	for line := range bytes.Lines(b) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if err := f(line); err != nil {
			return err
		}
	}
	return nil
}

// writeEvents writes one event file into a new folder.
func writeEvents(dir, who string, scalars []tensorboard.Scalar) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	began := scalars[0].At
	f, err := os.Create(filepath.Join(dir, tensorboard.Name(began, who)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffered := bufio.NewWriter(f)
	w, err := tensorboard.NewWriter(buffered, began)
	if err != nil {
		return err
	}
	for _, s := range scalars {
		if err := w.Write(s); err != nil {
			return err
		}
	}
	return buffered.Flush()
}
