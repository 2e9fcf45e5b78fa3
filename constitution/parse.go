package constitution

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxFileBytes is the largest constitution file that is read.
const MaxFileBytes = 1 << 20

// Parse reads a constitution in any of the four forms. filename chooses the
// format by extension (.yaml .yml, .json, .jsonl .ndjson; anything else by
// content), gives the name when the file has none, and stands in every error.
// The result is validated.
func Parse(data []byte, filename string) (*Constitution, error) {
	where := filepath.Base(filename)
	if filename == "" {
		where = "constitution"
	}
	c, err := parse(data, filename)
	if err != nil {
		var big *fileSizeError
		if errors.As(err, &big) {
			return nil, sizeError(where, int64(len(data)))
		}
		return nil, fmt.Errorf("constitution: %s: %w", where, err)
	}
	c.file = where
	if c.Name == "" {
		if c.Name = nameFromFile(filename); c.Name == "" {
			return nil, fmt.Errorf("constitution: %s: no name can be made from the file name; add a line \"name: my-character\"", where)
		}
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.seal()
	return c, nil
}

type fileSizeError struct{}

func (*fileSizeError) Error() string { return "file too large" }

func sizeError(where string, size int64) error {
	return fmt.Errorf("constitution: %s is %d bytes; the limit is %d (1 MiB); keep traits and a few questions each, and put long prompt lists in their own file", where, size, MaxFileBytes)
}

func parse(data []byte, filename string) (*Constitution, error) {
	if len(data) > MaxFileBytes {
		return nil, &fileSizeError{}
	}
	data, err := cleanBytes(data)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("the file is empty; write at least one trait, for example \"I speak like an old sailor.\"")
	}
	switch formatOf(data, strings.ToLower(filepath.Ext(filename))) {
	case formatYAML:
		n, err := readYAML(data)
		if err != nil {
			return nil, err
		}
		return fromTree(n)
	case formatJSON:
		n, err := readJSON(data, 1)
		if err != nil {
			return nil, err
		}
		return fromTree(n)
	case formatJSONL:
		list := &node{kind: kindList, line: 1}
		for i, line := range bytes.Split(data, []byte("\n")) {
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			n, err := readJSON(line, i+1)
			if err != nil {
				return nil, err
			}
			list.items = append(list.items, n)
		}
		return fromTree(list)
	default:
		return fromText(string(data))
	}
}

// cleanBytes checks the encoding, drops a byte order mark and makes every line
// end in \n.
func cleanBytes(data []byte) ([]byte, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
	line := 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return nil, fmt.Errorf("line %d: byte 0x%02x is not valid UTF-8; save the file as UTF-8", line, data[i])
		case r == '\n':
			line++
		case badRune(r):
			return nil, fmt.Errorf("line %d: control character U+%04X is not allowed; remove it", line, r)
		}
		i += size
	}
	return data, nil
}

// badRune reports control characters that have no place in text.
func badRune(r rune) bool {
	return r != '\n' && r != '\t' && unicode.IsControl(r)
}

type format int

const (
	formatText format = iota
	formatYAML
	formatJSON
	formatJSONL
)

// yamlField matches a top-level line that only a YAML constitution has.
var yamlField = regexp.MustCompile(`(?m)^(name|description|speaker|short|traits|examples|teacher_notes|meta|persona|directives):`)

// yamlTrait matches the first item of a list of traits at the top level.
var yamlTrait = regexp.MustCompile(`^-\s+"?trait"?\s*:`)

// formatOf decides the format. An extension that promises a format wins, but
// JSON and JSONL are told apart by content, as files of the published method
// hold JSON under .txt.
func formatOf(data []byte, ext string) format {
	trimmed := bytes.TrimSpace(data)
	switch ext {
	case ".yaml", ".yml":
		return formatYAML
	case ".json", ".jsonl", ".ndjson":
		return jsonKind(trimmed)
	}
	switch {
	case trimmed[0] == '{' || trimmed[0] == '[':
		return jsonKind(trimmed)
	case yamlField.Match(data), yamlTrait.Match(trimmed):
		return formatYAML
	}
	return formatText
}

// jsonKind tells a JSON value from JSON lines: lines when the text begins with
// an object whose own line is complete and other lines follow it.
func jsonKind(trimmed []byte) format {
	first, rest, _ := bytes.Cut(trimmed, []byte("\n"))
	first = bytes.TrimSpace(first)
	if trimmed[0] != '{' || !bytes.HasSuffix(first, []byte("}")) {
		return formatJSON
	}
	if len(bytes.TrimSpace(rest)) > 0 || bytes.Contains(first, []byte(`"trait"`)) && !bytes.Contains(first, []byte(`"traits"`)) {
		return formatJSONL
	}
	return formatJSON
}

// nameFromFile makes a valid name of a file name: lower case, other signs to
// "-". It returns "" when nothing is left.
func nameFromFile(filename string) string {
	base := strings.TrimSuffix(filepath.Base(filename), filepath.Ext(filename))
	var b strings.Builder
	for _, r := range strings.ToLower(base) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_', r == '-':
			b.WriteRune(r)
		default:
			b.WriteByte('-')
		}
	}
	name := strings.Trim(b.String(), "-_")
	if len(name) > 64 {
		name = strings.TrimRight(name[:64], "-_")
	}
	return name
}

// oneLine collapses every run of white space to one space.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// fold is the form under which two texts count as the same: lower case, letters
// and digits only, single spaces.
func fold(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '\''
	}), " ")
}

// quote shortens a text for an error message.
func quote(s string) string {
	r := []rune(oneLine(s))
	if len(r) > 60 {
		r = append(r[:57], []rune("...")...)
	}
	return fmt.Sprintf("%q", string(r))
}
