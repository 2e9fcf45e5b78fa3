package spec

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"runtime"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The rules of this file are about form alone: what a name, a path or an address in a spec may look like on any worker.
// Package permit has the other half: what a worker's operator allows.

var (
	upload = regexp.MustCompile(`^uploads/[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	sha    = regexp.MustCompile(`^[0-9a-f]{64}$`)
	drive  = regexp.MustCompile(`^[A-Za-z]:`)
	quoted = func(s string) string { return fmt.Sprintf("%.120q", s) }
)

// CheckModel refuses what is neither a model's name nor a clean path: leaving a folder with "..", addresses, control
// characters, the network and device paths of Windows, and its drives where this is not Windows.
func CheckModel(name string) error { return checkModel(name, runtime.GOOS == "windows") }

func checkModel(name string, windows bool) error {
	bad := func(why string) error {
		return fmt.Errorf("model %s: %s; give a known model's name or the plain path of a .gguf file or model folder", quoted(name), why)
	}
	if err := text(name); err != nil {
		return bad(err.Error())
	}
	slashed := strings.ReplaceAll(name, `\`, "/")
	for part := range strings.SplitSeq(slashed, "/") {
		if part == ".." {
			return bad(`".." may not be in it`)
		}
	}
	switch {
	case strings.HasPrefix(slashed, "//"):
		return bad("network and device paths are not read")
	case strings.Contains(slashed, "://") || len(name) > 5 && strings.EqualFold(name[:5], "file:"):
		return bad("addresses are not read")
	case !windows && (slashed != name || drive.MatchString(name)):
		return bad("write it with forward slashes and without a drive")
	}
	return nil
}

// CheckUpload refuses what is not "ref:uploads/NAME". It returns the key: uploads/NAME.
func CheckUpload(field, value string) (string, error) {
	key, ok := strings.CutPrefix(value, "ref:")
	if !ok || !upload.MatchString(key) || strings.Contains(key, "..") {
		return "", fmt.Errorf("spec: %s is %s; want ref:uploads/...: start the run with `character run`, which uploads files", field, quoted(value))
	}
	return key, nil
}

// CheckRunID refuses ids under which a run's record could not be stored, or would lie inside another run's.
func CheckRunID(id string) error {
	err := text(id)
	if err == nil && (strings.ContainsAny(id, `/\`) || id == "." || id == ".." || len(id) > 200) {
		err = errors.New("it has a slash or backslash, is only dots, or has more than 200 bytes")
	}
	if err != nil {
		return fmt.Errorf("run id %s: %w; use letters, digits, dot, dash and underscore", quoted(id), err)
	}
	return nil
}

// CheckEndpoint reads a teacher's address: https://HOST[:PORT][/PATH] or http, with nothing in it that could carry a
// secret or name another place than it seems to. Errors continue "the address is" and repeat nothing of it where a
// secret may be.
func CheckEndpoint(base string) (*url.URL, error) {
	if err := text(base); err != nil {
		return nil, fmt.Errorf("not usable: %w", err)
	}
	u, err := url.Parse(base)
	switch {
	case err != nil || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(base, "#"):
		return nil, errors.New("not a plain address; want https://HOST/v1 without user, password or query; the key belongs into an environment variable")
	case u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.Opaque != "":
		return nil, fmt.Errorf("%s; want https://HOST/v1", quoted(base))
	case u.RawPath != "" || strings.Contains(u.Path, `\`) || u.Path != "" && strings.TrimSuffix(u.Path, "/") != strings.TrimSuffix(path.Clean(u.Path), "/"):
		return nil, fmt.Errorf("%s, whose path has dots, doubled or escaped slashes; want https://HOST/v1", quoted(base))
	}
	return u, nil
}

// CheckReferences refuses every name, path and address of a resolved spec that no worker may follow. Validate is for
// values; this is for a spec that is about to be used by somebody else's machine.
func (s Spec) CheckReferences() error {
	var errs []error
	add := func(field string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("spec: %s: %w", field, err))
		}
	}
	add("model", CheckModel(s.Model))
	if o := s.TeacherOptions; s.Teacher == "local" && o.Model != "" {
		add("teacher_options.model", CheckModel(o.Model))
	}
	if b := s.TeacherOptions.BaseURL; b != "" {
		if _, err := CheckEndpoint(b); err != nil {
			errs = append(errs, fmt.Errorf("spec: teacher_options.base_url is %w", err))
		}
	}
	if s.ModelSHA256 != "" && !sha.MatchString(s.ModelSHA256) {
		add("model_sha256", errors.New("want 64 hexadecimal digits in small letters"))
	}
	for _, f := range []struct{ field, value string }{
		{"teacher_options.file", s.TeacherOptions.File}, {"preferences.file", s.Preferences.File},
		{"preferences.prompts", s.Preferences.Prompts}, {"introspection.file", s.Introspection.File},
	} {
		if f.value != "" {
			if _, err := CheckUpload(f.field, f.value); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// text refuses what is no name at all.
func text(s string) error {
	switch {
	case s == "":
		return errors.New("it is empty")
	case len(s) > 4096:
		return fmt.Errorf("it has %d bytes", len(s))
	case !utf8.ValidString(s):
		return errors.New("it is not valid UTF-8")
	case strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }):
		return errors.New("it has control characters")
	}
	return nil
}

// Endpoint is an address and the environment variable whose key may be sent to it.
type Endpoint struct{ BaseURL, KeyEnv string }

// PresetEndpoints are those of the presets.
func PresetEndpoints() []Endpoint {
	var out []Endpoint
	seen := map[Endpoint]bool{}
	for _, name := range Presets() {
		s, _ := preset(name)
		e := Endpoint{s.TeacherOptions.BaseURL, s.TeacherOptions.KeyEnv}
		if e.BaseURL != "" && !seen[e] {
			seen[e] = true
			out = append(out, e)
		}
	}
	return out
}
