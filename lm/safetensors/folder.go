package safetensors

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// DefaultShard is the size at which WriteFolder begins a new file, in bytes: what Hugging Face's tools use.
const DefaultShard = 5 << 30

// WriteFolder writes the tensors, in their order, into dir: as model.safetensors, or, where they have more than shard
// bytes (0 means DefaultShard), as model-00001-of-00002.safetensors and so on with model.safetensors.index.json.
// Nothing is read back and nothing is renamed: until it returns, dir is not whole.
func WriteFolder(dir string, tensors []Tensor, metadata map[string]string, shard int64) error {
	if shard == 0 {
		shard = DefaultShard
	}
	var groups [][]Tensor
	at, total := shard, int64(0)
	for _, t := range tensors {
		n, err := t.bytes()
		if err != nil {
			return fmt.Errorf("safetensors: write: tensor %q: %w", t.Name, err)
		}
		if at += n; at > shard {
			groups, at = append(groups, nil), n
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], t)
		total += n
	}
	if len(groups) == 0 {
		return errors.New("safetensors: write: there is no tensor")
	}
	if len(groups) > maxShards {
		return fmt.Errorf("safetensors: write: %d files, allowed are %d; write larger ones", len(groups), maxShards)
	}
	where := map[string]string{}
	for i, g := range groups {
		name := single
		if len(groups) > 1 {
			name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(groups))
		}
		if err := writeFile(filepath.Join(dir, name), g, metadata); err != nil {
			return err
		}
		for _, t := range g {
			if where[t.Name] != "" {
				return fmt.Errorf("safetensors: write: the name %q stands twice", t.Name)
			}
			where[t.Name] = name
		}
	}
	if len(groups) == 1 {
		return nil
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(map[string]any{"metadata": map[string]any{"total_size": total}, "weight_map": where}); err != nil {
		return fmt.Errorf("safetensors: write: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, indexName), text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("safetensors: write: %w", err)
	}
	return nil
}

func writeFile(path string, tensors []Tensor, metadata map[string]string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("safetensors: write: %w", err)
	}
	defer func() {
		if e := f.Close(); err == nil && e != nil {
			err = fmt.Errorf("safetensors: write: %w", e)
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := WriteTensors(w, tensors, metadata); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("safetensors: write: %w", err)
	}
	return nil
}
