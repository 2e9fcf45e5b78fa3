// Package constitution reads, checks and renders characters.
//
// A constitution describes a character as numbered first-person traits, each
// with a few questions that bring the trait out. It is scaffolding: the teacher
// sees it while the training data is made, the finished model does not.
//
// The package reads four forms (our YAML, the published method's JSON and
// JSONL, structured studio YAML, plain text), holds a built-in library of
// characters, general prompts, reflection prompts, conversation openers and
// recorded in-character answers, and writes the system prompts. It knows
// nothing of models, tokens, data sets or storage.
//
// Start at Load, then TeacherSystem in systems.go; docs/constitutions.md is the
// guide for authors.
package constitution

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

//go:embed library/*.yaml library/prompts/*.txt library/recorded/*.jsonl
var library embed.FS

// Trait is one first-person statement and the questions that bring it out.
type Trait struct {
	Text      string   `json:"trait"`
	Questions []string `json:"questions,omitempty"`
}

// Example is one user prompt with an answer in character.
type Example struct {
	Prompt   string `json:"prompt"`
	Response string `json:"response"`
}

// Constitution is one character. The zero value is not valid: fill Name and
// Traits at least, then call Validate.
type Constitution struct {
	// Name is the identifier, ^[a-z0-9][a-z0-9_-]{0,63}$. Parse derives it from the
	// file name when the file gives none.
	Name string `json:"name"`
	// Description is one or two sentences for people; no prompt uses it.
	Description string `json:"description,omitempty"`
	// SpeakerName is what the character calls itself. Empty means the Name with
	// capital letters ("old_robot" speaks as "Old Robot").
	SpeakerName string `json:"speaker,omitempty"`
	// Short is the whole character in at most a few short second-person sentences,
	// for teachers too small to follow ten traits. See TeacherSystemShort.
	Short string `json:"short,omitempty"`
	// Traits are in the order the teacher sees them.
	Traits []Trait `json:"traits"`
	// Examples are answers in character, the best ones first.
	Examples []Example `json:"examples,omitempty"`
	// TeacherNotes are extra instructions appended to the teacher's system prompt.
	TeacherNotes string `json:"teacher_notes,omitempty"`

	// Author, Version and Tags are information only: they are not part of the
	// canonical form and change no hash.
	Author  string   `json:"-"`
	Version string   `json:"-"`
	Tags    []string `json:"-"`

	// SHA256 is the hexadecimal SHA-256 of Canonical, set by Load and Parse.
	SHA256 string `json:"-"`

	file  string         // where it was read from, for messages
	lines map[string]int // place ("trait 3") -> line in file
}

// Question is one example question with the trait it belongs to.
type Question struct {
	Trait int // index into Traits
	Text  string
}

// Load returns the built-in character of that name or reads the constitution
// file at that path. Anything with a path separator or a file extension is
// taken as a path.
func Load(nameOrPath string) (*Constitution, error) {
	if nameOrPath == "" {
		return nil, errors.New("constitution: no name or file given; built-in characters: " + strings.Join(Builtin(), ", "))
	}
	if slices.Contains(Builtin(), nameOrPath) {
		data, err := library.ReadFile("library/" + nameOrPath + ".yaml")
		if err != nil {
			return nil, fmt.Errorf("constitution: built-in %q: %w", nameOrPath, err)
		}
		return Parse(data, nameOrPath+".yaml")
	}
	info, err := os.Stat(nameOrPath)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !strings.ContainsAny(nameOrPath, `/\.`):
		return nil, fmt.Errorf("constitution: no built-in character and no file called %q; built-in characters: %s", nameOrPath, strings.Join(Builtin(), ", "))
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("constitution: no file %q; check the path, or use a built-in character: %s", nameOrPath, strings.Join(Builtin(), ", "))
	case err != nil:
		return nil, fmt.Errorf("constitution: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("constitution: %s is not a regular file; give the path of a .yaml, .json, .jsonl or .txt file", nameOrPath)
	case info.Size() > MaxFileBytes:
		return nil, sizeError(nameOrPath, info.Size())
	}
	data, err := os.ReadFile(nameOrPath)
	if err != nil {
		return nil, fmt.Errorf("constitution: %w", err)
	}
	return Parse(data, nameOrPath)
}

// Builtin returns the names of the built-in characters: captain and sarcastic
// first, the others in alphabetical order.
func Builtin() []string {
	files, err := fs.Glob(library, "library/*.yaml")
	if err != nil {
		panic(err) // the pattern is constant
	}
	names := []string{"captain", "sarcastic"}
	for _, f := range files {
		name := strings.TrimSuffix(path.Base(f), ".yaml")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Canonical returns the stable JSON form: fixed field order, one trailing
// newline, no information-only fields. Parse reads it back to an equal
// constitution. Its SHA-256 identifies the character.
func (c *Constitution) Canonical() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(c); err != nil {
		panic(err) // plain strings and slices always encode
	}
	return b.Bytes()
}

// Questions returns the distinct questions of all traits in order. A question
// that stands under several traits is kept under the first (Check reports it).
func (c *Constitution) Questions() []Question {
	var out []Question
	seen := map[string]bool{}
	for i, t := range c.Traits {
		for _, q := range t.Questions {
			if k := fold(q); !seen[k] {
				seen[k] = true
				out = append(out, Question{Trait: i, Text: q})
			}
		}
	}
	return out
}

// seal fills the derived fields after parsing.
func (c *Constitution) seal() {
	sum := sha256.Sum256(c.Canonical())
	c.SHA256 = hex.EncodeToString(sum[:])
}
