package safetensors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	single    = "model.safetensors"
	indexName = "model.safetensors.index.json"
	maxShards = 1000
)

// Set is a model's weights in one or several files, read as if they were one. Its fields are for reading only.
type Set struct {
	Tensors map[string]Info
	Shards  []string // paths of the files, sorted

	files map[string]*File // by tensor name
	open  []*File
}

// OpenIndex opens the weights in a model folder: model.safetensors, or else the files that
// model.safetensors.index.json names, which must lie in the same folder.
func OpenIndex(dir string) (*Set, error) {
	path := filepath.Join(dir, single)
	_, err := os.Stat(path)
	if err == nil {
		f, err := Open(path)
		if err != nil {
			return nil, err
		}
		s := &Set{Tensors: f.Tensors, Shards: []string{path}, files: map[string]*File{}, open: []*File{f}}
		for name := range f.Tensors {
			s.files[name] = f
		}
		return s, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	path = filepath.Join(dir, indexName)
	text, err := readLimited(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("safetensors: %s has neither %s nor %s; give the folder of a model", dir, single, indexName)
	}
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	where, err := parseIndex(text)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", path, err)
	}
	s, err := openShards(dir, where)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", path, err)
	}
	return s, nil
}

// openShards opens every file of an index and checks that it holds what the index says.
func openShards(dir string, where map[string]string) (*Set, error) {
	s := &Set{Tensors: map[string]Info{}, files: map[string]*File{}}
	byFile := map[string]*File{}
	for _, file := range slices.Compact(slices.Sorted(maps.Values(where))) {
		path := filepath.Join(dir, file)
		f, err := Open(path)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.open, s.Shards = append(s.open, f), append(s.Shards, path)
		byFile[file] = f
	}
	for _, name := range slices.Sorted(maps.Keys(where)) {
		f := byFile[where[name]]
		info, ok := f.Tensors[name]
		if !ok {
			return nil, errors.Join(fmt.Errorf("tensor %q is not in %s as the index says; download the folder again", name, where[name]), s.Close())
		}
		s.Tensors[name], s.files[name] = info, f
	}
	return s, nil
}

// parseIndex reads {"metadata": {...}, "weight_map": {tensor: file}}. A file must be a plain name: an
// index can not make us read outside its folder.
func parseIndex(text []byte) (map[string]string, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	where, files := map[string]string{}, map[string]bool{}
	seen := false
	err := object(d, func(key string) error {
		if key != "weight_map" {
			var skip json.RawMessage
			return d.Decode(&skip)
		}
		if seen {
			return errors.New("stands twice")
		}
		seen = true
		return object(d, func(name string) error {
			if _, dup := where[name]; dup {
				return errors.New("stands twice")
			}
			file, err := textToken(d)
			if err != nil {
				return err
			}
			if strings.ContainsAny(file, `/\:`) || !filepath.IsLocal(file) || !strings.HasSuffix(file, ".safetensors") {
				return fmt.Errorf("%q is not the name of a .safetensors file in this folder", file)
			}
			where[name], files[file] = file, true
			if len(files) > maxShards {
				return fmt.Errorf("more than %d files", maxShards)
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if len(where) == 0 {
		return nil, errors.New("weight_map names no tensor")
	}
	return where, nil
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxHeader+1))
	if err == nil && len(text) > maxHeader {
		err = fmt.Errorf("%s: more than %d bytes", path, maxHeader)
	}
	return text, errors.Join(err, f.Close())
}

// Close closes every file.
func (s *Set) Close() error {
	var err error
	for _, f := range s.open {
		err = errors.Join(err, f.Close())
	}
	return err
}

// Floats reads a whole tensor as [File.Floats] does.
func (s *Set) Floats(name string) ([]float32, error) {
	f, ok := s.files[name]
	if !ok {
		return nil, missing(name)
	}
	return f.Floats(name)
}

// ReadRow reads one row as [File.ReadRow] does.
func (s *Set) ReadRow(name string, row int, dst []float32) error {
	f, ok := s.files[name]
	if !ok {
		return missing(name)
	}
	return f.ReadRow(name, row, dst)
}

// Raw reads a tensor's bytes as [File.Raw] does.
func (s *Set) Raw(name string) ([]byte, error) {
	f, ok := s.files[name]
	if !ok {
		return nil, missing(name)
	}
	return f.Raw(name)
}
