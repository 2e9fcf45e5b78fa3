// Package permit says what a run's spec may reach on a worker: which model files, and which endpoints with which key.
//
// Whoever can start a workflow writes specs; the worker's operator need not know them. So a spec names files only under
// folders that the operator named, and sends a key only where the operator said that it may go. Without rules nothing
// is allowed. It opens no file of a spec; it follows links, to see where they lead. Start reading at Rules.Model and
// Rules.Endpoint; file.go has the rules that `character run` leaves for the worker of the same machine.
package permit

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencharacter/opencharacter/spec"
)

// ErrRefused is what errors.Is finds where a rule is missing.
var ErrRefused = errors.New("not allowed on this worker")

// Options of New. The zero value allows nothing.
type Options struct {
	// Paths are folders, or single model files, that a spec may name or lie under. Relative names of a spec are looked
	// up in these folders, in order.
	Paths []string
	// Endpoints are "URL" or "URL,VARIABLE": a teacher's address, and the environment variable whose value may be sent
	// there as its key. Addresses below the URL's path are allowed with it.
	Endpoints []string
	// File has more of both, one a line ("path P" or "url URL[,VARIABLE]"); it is read again each time. "" = none.
	File string
}

// Rules are an operator's rules. The nil *Rules allows nothing.
type Rules struct {
	set
	file string
}

type set struct {
	paths     []string
	endpoints []endpoint
}

type endpoint struct {
	origin string // scheme://host:port
	path   string // without a slash at its end
	key    string // environment variable, "" = none
}

// New checks the rules.
func New(o Options) (*Rules, error) {
	r := &Rules{file: o.File}
	for _, p := range o.Paths {
		if err := r.addPath(p); err != nil {
			return nil, fmt.Errorf("permit: %w", err)
		}
	}
	for _, e := range o.Endpoints {
		if err := r.addEndpoint(e); err != nil {
			return nil, fmt.Errorf("permit: %w", err)
		}
	}
	return r, nil
}

func (s *set) addPath(p string) error {
	if strings.TrimSpace(p) == "" || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("allowed path %.120q: want the name of a folder or file", p)
	}
	abs, err := filepath.Abs(p)
	if err != nil {
		return fmt.Errorf("allowed path %s: %w", p, err)
	}
	if abs == filepath.VolumeName(abs)+string(filepath.Separator) {
		return fmt.Errorf("allowed path %s is the whole file system; name the folders that hold models", p)
	}
	s.paths = append(s.paths, abs)
	return nil
}

func (s *set) addEndpoint(text string) error {
	base, key, paired := strings.Cut(text, ",")
	u, err := spec.CheckEndpoint(base)
	if err != nil {
		return fmt.Errorf("allowed URL is %w", err)
	}
	if paired && !validVariable(key) {
		return fmt.Errorf("allowed URL %s: what stands after the comma is not the name of an environment variable; give the variable's name, never the key", base)
	}
	s.endpoints = append(s.endpoints, normal(u, key))
	return nil
}

func validVariable(s string) bool {
	for i, r := range s {
		if !(r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || i > 0 && r >= '0' && r <= '9') {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

func normal(u *url.URL, key string) endpoint {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	path := strings.TrimRight(strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/chat/completions"), "/")
	return endpoint{u.Scheme + "://" + net.JoinHostPort(strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), port), path, key}
}

// all are the rules with those of the file.
func (r *Rules) all() (set, error) {
	if r == nil {
		return set{}, nil
	}
	if r.file == "" {
		return r.set, nil
	}
	more, err := read(r.file)
	if err != nil {
		return set{}, err
	}
	return set{append(r.paths[:len(r.paths):len(r.paths)], more.paths...), append(r.endpoints[:len(r.endpoints):len(r.endpoints)], more.endpoints...)}, nil
}

// Endpoint says whether a spec may have base asked with the key that the environment variable keyEnv holds ("" = no key).
func (r *Rules) Endpoint(base, keyEnv string) error {
	u, err := spec.CheckEndpoint(base)
	if err != nil {
		return fmt.Errorf("teacher: base_url is %w", err)
	}
	rules, err := r.all()
	if err != nil {
		return err
	}
	want := normal(u, keyEnv)
	known := false
	for _, e := range rules.endpoints {
		if e.origin != want.origin || e.path != want.path && !strings.HasPrefix(want.path, e.path+"/") {
			continue
		}
		if known = true; keyEnv == "" || e.key == keyEnv {
			return nil
		}
	}
	rule := want.origin + want.path
	if keyEnv != "" {
		rule += "," + keyEnv
	}
	what := "the endpoint " + want.origin + want.path + " is"
	if known {
		what = "sending the key in " + keyEnv + " to " + want.origin + want.path + " is"
	}
	return fmt.Errorf("teacher: %s %w: its operator allows it with --allow-url %s (CHARACTER_ALLOW_URLS), or by starting such a run with `character run` on that machine", what, ErrRefused, rule)
}

// Model finds the file or folder that a spec names: an absolute path under an allowed one, or a relative name that is
// there in an allowed folder. The path that it returns has no links left in it.
func (r *Rules) Model(name string) (string, error) {
	if err := spec.CheckModel(name); err != nil {
		return "", err
	}
	rules, err := r.all()
	if err != nil {
		return "", err
	}
	path := filepath.FromSlash(name)
	if filepath.IsAbs(path) {
		return rules.inside(filepath.Clean(path))
	}
	if !filepath.IsLocal(path) {
		return "", fmt.Errorf("model %q: not a name inside a folder", name)
	}
	for _, root := range rules.paths {
		full := filepath.Join(root, path)
		if _, err := os.Lstat(full); err == nil {
			return rules.inside(full)
		}
	}
	return "", fmt.Errorf("model %q is neither a known name nor in a folder that is allowed here (%s): %w; put it there, or allow its folder with --allow-path DIR (CHARACTER_ALLOW_PATHS)", name, list(rules.paths), ErrRefused)
}

func list(paths []string) string {
	if len(paths) == 0 {
		return "none is"
	}
	return strings.Join(paths, ", ")
}

// inside follows the links of an absolute path and refuses what does not lie under an allowed one, before and after.
func (s set) inside(path string) (string, error) {
	refused := fmt.Errorf("model %s is %w: its operator allows the folder with --allow-path DIR (CHARACTER_ALLOW_PATHS), or by starting such a run with `character run` on that machine", path, ErrRefused)
	real := s.real()
	// A path that is not allowed is not even looked at: the answer must not tell whether it exists.
	if !under(path, s.paths) && !under(path, real) {
		return "", refused
	}
	to, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("model %s: %w", path, err)
	}
	if !under(to, real) {
		return "", fmt.Errorf("model %s leads out of the allowed folders by a link: %w", path, ErrRefused)
	}
	st, err := os.Stat(to)
	switch {
	case err != nil:
		return "", fmt.Errorf("model %s: %w", path, err)
	case st.Mode().IsRegular():
		return to, nil
	case !st.IsDir():
		return "", fmt.Errorf("model %s is neither a file nor a folder", path)
	}
	// The files of a model folder are read by their names in it.
	entries, err := os.ReadDir(to)
	if err != nil {
		return "", fmt.Errorf("model %s: %w", path, err)
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 {
			continue
		}
		target, err := filepath.EvalSymlinks(filepath.Join(to, e.Name()))
		if err != nil {
			return "", fmt.Errorf("model %s: %w", path, err)
		}
		if !under(target, real) {
			return "", fmt.Errorf("model %s: its file %s leads out of the allowed folders by a link: %w", path, e.Name(), ErrRefused)
		}
	}
	return to, nil
}

// real are the allowed paths without links; those that are not there have nothing under them.
func (s set) real() []string {
	var out []string
	for _, p := range s.paths {
		if to, err := filepath.EvalSymlinks(p); err == nil {
			out = append(out, to)
		}
	}
	return out
}

func under(path string, roots []string) bool {
	for _, r := range roots {
		if path == r {
			return true
		}
		if rel, err := filepath.Rel(r, path); err == nil && filepath.IsLocal(rel) {
			return true
		}
	}
	return false
}
