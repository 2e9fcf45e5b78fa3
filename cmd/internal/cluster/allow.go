package cluster

import (
	"path/filepath"
	"strings"

	"github.com/opencharacter/opencharacter/permit"
	"github.com/opencharacter/opencharacter/spec"
)

// Help for the two flags of a worker's operator.
const (
	AllowPathUsage = "folder or file that a run's spec may name as its model, beside the folder of --models; relative names of a spec are looked up there (repeatable; CHARACTER_ALLOW_PATHS, separated as in PATH)"
	AllowURLUsage  = "URL of a teacher that a run's spec may name, or URL,VARIABLE: the key in that environment variable may be sent there (repeatable; CHARACTER_ALLOW_URLS, separated by spaces); the presets' teachers are always allowed"
)

// Allow is what a worker's operator allows: the flags, the environment, the folder of models, the teachers of the
// presets and, on the local stack, the rules in file ("" = none).
func Allow(paths, urls []string, env func(string) string, models, file string) (*permit.Rules, error) {
	o := permit.Options{Paths: append([]string(nil), paths...), Endpoints: append([]string(nil), urls...), File: file}
	for _, p := range filepath.SplitList(env("CHARACTER_ALLOW_PATHS")) {
		if p != "" {
			o.Paths = append(o.Paths, p)
		}
	}
	o.Endpoints = append(o.Endpoints, strings.Fields(env("CHARACTER_ALLOW_URLS"))...)
	if models != "" {
		o.Paths = append(o.Paths, models)
	}
	for _, e := range spec.PresetEndpoints() {
		o.Endpoints = append(o.Endpoints, Rule(e))
	}
	return permit.New(o)
}

// Rule is an endpoint in the form of --allow-url.
func Rule(e spec.Endpoint) string {
	if e.KeyEnv == "" {
		return e.BaseURL
	}
	return e.BaseURL + "," + e.KeyEnv
}
