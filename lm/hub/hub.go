// Package hub finds models on this machine and fetches the ones it knows by name.
//
// A model is a GGUF file or a folder with config.json, tokenizer.json and safetensors weights. The
// package knows where a pinned file can be fetched ([Known]), how to check it, and how to tell two
// models apart by sha256. It does not load weights (lm/transformer does) and reads no environment
// variables: [Options] come from the caller.
//
// Start at [Resolve] for a name or path, [Pull] to fetch, [Model.TokenizerSource] and [Inspect] to look inside.
package hub

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// DefaultEndpoint is the model hub that serves the second way of [Pull].
const DefaultEndpoint = "https://huggingface.co"

// Options says where models are kept and how they are fetched.
type Options struct {
	// CacheDir keeps pulled models and remembered hashes. Pull and known names need it; the program
	// chooses opencharacter/models in the user's cache directory.
	CacheDir string
	// Endpoint is the address of the model hub; "" means DefaultEndpoint.
	Endpoint string
	// Clients are the package clients to try, each a command with its first arguments; nil means
	// python3 -m pip, pip3, pip. An empty list that is not nil switches this way off.
	Clients [][]string
	// Progress, if set, is told how many of total bytes a step has; from one goroutine at a time.
	Progress func(step string, done, total int64)
}

// Model is a model on this machine.
type Model struct {
	Name   string `json:"name"`
	Path   string `json:"path"`
	Format string `json:"format"` // "gguf" or "safetensors" (a folder)
	SHA256 string `json:"sha256"` // of the file; of a folder: over all files that shape what the model computes
	Size   int64  `json:"size"`   // bytes, of a folder: of the same files
}

// ErrNotPulled says that a known model is not on this machine yet.
var ErrNotPulled = errors.New("not on this machine")

// Resolve finds a model by its known name, or by the path of a .gguf file or of a folder with config.json
// and safetensors weights. It fetches nothing: for a known name that is not in the cache the error is ErrNotPulled.
func Resolve(nameOrPath string, o Options) (Model, error) {
	if e, ok := entry(nameOrPath); ok {
		return resolveKnown(e, o)
	}
	st, err := os.Stat(nameOrPath)
	switch {
	case nameOrPath == "":
		return Model{}, fmt.Errorf("hub: no model is named; give one of %s, or the path of a .gguf file or model folder", knownNames())
	case errors.Is(err, os.ErrNotExist):
		return Model{}, fmt.Errorf("hub: model %q is neither a known name (%s) nor a path on this machine", nameOrPath, knownNames())
	case err != nil:
		return Model{}, fmt.Errorf("hub: model %q: %w", nameOrPath, err)
	case st.IsDir():
		return resolveFolder(nameOrPath, o)
	}
	return resolveFile(nameOrPath, o)
}

func resolveKnown(e Entry, o Options) (Model, error) {
	if o.CacheDir == "" {
		return Model{}, fmt.Errorf("hub: model %s: no cache directory is set", e.Name)
	}
	path := e.path(o)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return Model{}, fmt.Errorf("hub: model %s is %w; run `character model pull %s`, or give a file you have with --model PATH", e.Name, ErrNotPulled, e.Name)
	}
	sum, size, err := fileSum(path, o)
	if err != nil {
		return Model{}, fmt.Errorf("hub: model %s: %w", e.Name, err)
	}
	if size != e.Size || sum != e.SHA256 {
		return Model{}, fmt.Errorf("hub: model %s: %s has %d bytes and sha256 %s, the model has %d and %s: it is damaged; run `character model pull %s` to fetch it again",
			e.Name, path, size, sum, e.Size, e.SHA256, e.Name)
	}
	return Model{Name: e.Name, Path: path, Format: "gguf", SHA256: sum, Size: size}, nil
}

func resolveFile(path string, o Options) (Model, error) {
	f, err := os.Open(path)
	if err != nil {
		return Model{}, fmt.Errorf("hub: %w", err)
	}
	var magic [4]byte
	_, err = io.ReadFull(f, magic[:])
	if err := errors.Join(notEOF(err), f.Close()); err != nil {
		return Model{}, fmt.Errorf("hub: %s: %w", path, err)
	}
	if string(magic[:]) != "GGUF" {
		if strings.HasSuffix(path, ".safetensors") {
			return Model{}, fmt.Errorf("hub: %s holds weights only; give its folder, with config.json and tokenizer.json", path)
		}
		return Model{}, fmt.Errorf("hub: %s is not a GGUF file; give a .gguf file or a folder with config.json and safetensors weights", path)
	}
	sum, size, err := fileSum(path, o)
	if err != nil {
		return Model{}, fmt.Errorf("hub: %w", err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return Model{}, fmt.Errorf("hub: %w", err)
	}
	name := strings.TrimSuffix(filepath.Base(abs), ".gguf")
	return Model{Name: name, Path: abs, Format: "gguf", SHA256: sum, Size: size}, nil
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

func resolveFolder(path string, o Options) (Model, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return Model{}, fmt.Errorf("hub: %w", err)
	}
	sum, size, err := folderSum(abs, o)
	if err != nil {
		return Model{}, fmt.Errorf("hub: model folder %s: %w", path, err)
	}
	return Model{Name: filepath.Base(abs), Path: abs, Format: "safetensors", SHA256: sum, Size: size}, nil
}

// List returns the known models that are in the cache, and an error that names the damaged ones.
func List(o Options) ([]Model, error) {
	var out []Model
	var bad error
	for _, e := range registry {
		m, err := resolveKnown(e, o)
		switch {
		case err == nil:
			out = append(out, m)
		case !errors.Is(err, ErrNotPulled):
			bad = errors.Join(bad, err)
		}
	}
	return out, bad
}
