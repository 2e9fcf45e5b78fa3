package permit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// FileName is where the local stack keeps its rules, in the data directory: whoever may write there is its operator.
const FileName = "allowed"

const maxFile = 1 << 20

// read reads a file of rules; a missing one has none.
func read(path string) (set, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return set{}, nil
	}
	if err != nil {
		return set{}, fmt.Errorf("permit: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return set{}, fmt.Errorf("permit: %s: %w", path, err)
	}
	s, err := parse(b)
	if err != nil {
		return set{}, fmt.Errorf("permit: %s: %w", path, err)
	}
	return s, nil
}

// parse reads lines "path P" and "url URL[,VARIABLE]". A last line without its end was not written whole and is left out.
func parse(b []byte) (set, error) {
	var s set
	if len(b) > maxFile {
		return s, fmt.Errorf("more than %d bytes; take away the lines that are not needed", maxFile)
	}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		text, whole := strings.CutSuffix(string(line), "\n")
		if text = strings.TrimSuffix(text, "\r"); !whole || strings.TrimSpace(text) == "" || text[0] == '#' {
			continue
		}
		kind, value, _ := strings.Cut(text, " ")
		var err error
		switch {
		case kind == "path" && filepath.IsAbs(value):
			err = s.addPath(value)
		case kind == "url":
			err = s.addEndpoint(value)
		default:
			err = errors.New(`want "path /FOLDER" or "url https://HOST/v1,VARIABLE"`)
		}
		if err != nil {
			return set{}, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return s, nil
}

// Append adds rules to a file, which is made for the owner's eyes only; rules that it has already are not repeated.
func Append(file string, o Options) error {
	more, err := New(Options{Paths: o.Paths, Endpoints: o.Endpoints})
	if err != nil {
		return err
	}
	have, err := read(file)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, p := range more.paths {
		if !slices.Contains(have.paths, p) {
			b.WriteString("path " + p + "\n")
		}
	}
	for _, e := range more.endpoints {
		if !slices.Contains(have.endpoints, e) {
			b.WriteString("url " + e.origin + e.path)
			if e.key != "" {
				b.WriteString("," + e.key)
			}
			b.WriteString("\n")
		}
	}
	if b.Len() == 0 {
		return nil
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("permit: %w", err)
	}
	if err = dropCut(f); err == nil {
		_, err = f.WriteString(b.String()) // one write: two runs that start together both have their lines
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("permit: %s: %w", file, err)
	}
	return nil
}

// dropCut takes away a last line that a crash cut off: with an end of line it would be another, wider rule.
func dropCut(f *os.File) error {
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if whole := bytes.LastIndexByte(b, '\n') + 1; whole < len(b) && len(b) <= maxFile {
		return f.Truncate(int64(whole))
	}
	return nil
}

// Targets lists what must be allowed so that a model at path can be read: the file or folder itself, and the files
// elsewhere to which links in a model folder lead (a hub's cache keeps them so).
func Targets(path string) ([]string, error) {
	out := []string{path}
	entries, err := os.ReadDir(path)
	if err != nil {
		return out, nil //nolint:nilerr // a file, or nothing that can be read: opening it tells
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 {
			continue
		}
		to, err := filepath.EvalSymlinks(filepath.Join(path, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("permit: %w", err)
		}
		out = append(out, to)
	}
	return out, nil
}
