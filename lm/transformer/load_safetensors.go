package transformer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencharacter/opencharacter/lm/safetensors"
)

// LoadSafetensors builds a model from a Hugging Face folder: config.json and either
// model.safetensors or the shards named by model.safetensors.index.json. Values may
// be F32, F16 or BF16; matrices are rounded to bf16.
func LoadSafetensors(dir string) (m *Model, err error) {
	l, cfg, src, err := folderLoader(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	return l.load(cfg, nil)
}

// folderLoader returns what load needs for a folder; the caller closes src.
func folderLoader(dir string) (l *loader, cfg Config, src *shards, err error) {
	path := filepath.Join(dir, "config.json")
	data, err := readJSON(path)
	if err != nil {
		return nil, cfg, nil, fmt.Errorf("safetensors: read config: %w; the folder must hold config.json and the weights", err)
	}
	cfg, err = parseHFConfig(data)
	if err != nil {
		return nil, cfg, nil, fmt.Errorf("safetensors: %s: %w", path, err)
	}
	if src, err = openShards(dir); err != nil {
		return nil, cfg, nil, err
	}
	l = &loader{src: src, from: "safetensors", name: func(hf string) string { return hf }}
	if cfg.Architecture == archGemma3 {
		l.plus = 1
		src.textOf(l)
	}
	return l, cfg, src, nil
}

// maxJSON bounds config.json and the index of a folder, in bytes; the largest index in use has some megabytes.
const maxJSON = 64 << 20

// readJSON reads a whole file of bounded size.
func readJSON(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxJSON+1))
	if err == nil && len(data) > maxJSON {
		err = fmt.Errorf("%s has more than %d bytes", path, maxJSON)
	}
	return data, errors.Join(err, f.Close())
}

// textOf points the loader at the text part of a text and image model of Gemma 3, if
// that is what the files hold, in the naming of transformers 4 or of its later versions.
func (s *shards) textOf(l *loader) {
	const embed = "model.embed_tokens.weight"
	switch {
	case s.where["language_model."+embed] != nil:
		l.name = func(hf string) string { return "language_model." + hf }
		l.skip = []string{"vision_tower.", "multi_modal_projector."}
	case s.where["model.language_model.embed_tokens.weight"] != nil:
		l.name = func(hf string) string {
			if inner, ok := strings.CutPrefix(hf, "model."); ok {
				return "model.language_model." + inner
			}
			return hf
		}
		l.skip = []string{"model.vision_tower.", "model.multi_modal_projector."}
	}
}

// shards is a set of safetensors files that together hold a model.
type shards struct {
	files []*safetensors.File
	where map[string]*safetensors.File
	order []string
}

// openShards opens the single file, or every file that the index names.
func openShards(dir string) (*shards, error) {
	files := []string{"model.safetensors"}
	if _, err := os.Stat(filepath.Join(dir, files[0])); errors.Is(err, fs.ErrNotExist) {
		index := filepath.Join(dir, "model.safetensors.index.json")
		data, err := readJSON(index)
		if err != nil {
			return nil, fmt.Errorf("safetensors: %s holds neither model.safetensors nor model.safetensors.index.json: %w", dir, err)
		}
		if files, err = parseIndex(data); err != nil {
			return nil, fmt.Errorf("safetensors: %s: %w; re-download it", index, err)
		}
	}
	s := &shards{where: map[string]*safetensors.File{}}
	for _, name := range files {
		f, err := safetensors.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.files = append(s.files, f)
		for tensor := range f.Tensors {
			if s.where[tensor] != nil {
				return nil, errors.Join(fmt.Errorf("safetensors: tensor %q stands in two shards of %s; re-download the model", tensor, dir), s.close())
			}
			s.where[tensor] = f
			s.order = append(s.order, tensor)
		}
	}
	return s, nil
}

// parseIndex lists the shard files of an index, each once, in order of name. Only
// plain file names are accepted, so an index cannot point outside its folder.
func parseIndex(data []byte) ([]string, error) {
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("not valid JSON: %w", err)
	}
	seen := map[string]bool{}
	for tensor, file := range index.WeightMap {
		if !filepath.IsLocal(file) || file == "." || strings.ContainsAny(file, `/\`) {
			return nil, fmt.Errorf("tensor %q is said to be in %q, which is not a plain file name", tensor, file)
		}
		seen[file] = true
	}
	if len(seen) == 0 {
		return nil, errors.New("weight_map is empty")
	}
	return sortedKeys(seen), nil
}

func (s *shards) close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func (s *shards) names() []string { return s.order }

func (s *shards) shape(name string) ([]int, bool) {
	f, ok := s.where[name]
	if !ok {
		return nil, false
	}
	return f.Tensors[name].Shape, true
}

func (s *shards) readRow(name string, row int, dst []float32) error {
	return s.where[name].ReadRow(name, row, dst)
}
