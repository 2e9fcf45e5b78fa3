package dataset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxJSONLBytes is the largest file of rows that is read.
const MaxJSONLBytes = 256 << 20

// checkSize refuses a file of rows that is too large to be held together with its rows.
func checkSize(data []byte) error {
	if len(data) > MaxJSONLBytes {
		return fmt.Errorf("dataset: the file of rows has %d bytes; the limit is %d (256 MiB); split the file", len(data), MaxJSONLBytes)
	}
	return nil
}

// eachLine gives the lines of a JSONL file that are not blank, with their numbers from 1.
func eachLine(data []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // a byte order mark, as some editors write it
		n := 0
		for line := range bytes.SplitSeq(data, []byte("\n")) {
			n++
			line = bytes.TrimSpace(line)
			if len(line) > 0 && !yield(n, line) {
				return
			}
		}
	}
}

// decodeLine reads one JSON object and nothing after it.
func decodeLine(line []byte, into any) error {
	if !utf8.Valid(line) {
		return errors.New("it is not valid UTF-8; save the file as UTF-8")
	}
	if line[0] != '{' {
		return errors.New("it is not a JSON object; write one {...} a line")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	if err := d.Decode(into); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = errors.New("the line ends inside the object")
		}
		return fmt.Errorf("not valid JSON of a row: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object; write one object a line")
	}
	return nil
}

func atLine(n int, err error) error { return fmt.Errorf("dataset: line %d: %w", n, err) }

func writeLine(buf *bytes.Buffer, v any) {
	e := json.NewEncoder(buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // the callers pass plain structs of strings
	}
}

// text is a message list that is written as a plain string when it is the single message of its role, as the tutorial's shape has it.
type text struct {
	role     string
	messages []Message
}

func (t text) MarshalJSON() ([]byte, error) {
	var buf bytes.Buffer
	if len(t.messages) == 1 && t.messages[0].Role == t.role {
		writeLine(&buf, t.messages[0].Content)
	} else {
		writeLine(&buf, t.messages)
	}
	return bytes.TrimSpace(buf.Bytes()), nil
}

// readText reads a field that is a text or a list of messages, gives a plain text its role, and checks every message.
func readText(field string, raw json.RawMessage, role string, otherRoles ...string) ([]Message, error) {
	var messages []Message
	switch {
	case len(raw) == 0:
		return nil, fmt.Errorf("field %q is missing", field)
	case raw[0] == '"':
		messages = []Message{{Role: role}}
		if err := json.Unmarshal(raw, &messages[0].Content); err != nil {
			return nil, fmt.Errorf("field %q: %w", field, err)
		}
	case raw[0] == '[':
		if err := json.Unmarshal(raw, &messages); err != nil {
			return nil, fmt.Errorf("field %q: a list of messages must hold objects with role and content", field)
		}
	default:
		return nil, fmt.Errorf("field %q must be a text, or a list of messages", field)
	}
	if len(messages) == 0 {
		return nil, fmt.Errorf("field %q is an empty list", field)
	}
	for _, m := range messages {
		if m.Role != role && !slices.Contains(otherRoles, m.Role) {
			return nil, fmt.Errorf("field %q has a message of role %q", field, m.Role)
		}
		if strings.TrimSpace(m.Content) == "" {
			return nil, fmt.Errorf("field %q has an empty text", field)
		}
	}
	return messages, nil
}
