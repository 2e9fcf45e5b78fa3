package constitution

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// Limits of a file of recorded answers.
const (
	MaxRecordedBytes = 64 << 20
	MaxRecordedRows  = 1_000_000
)

// Recorded returns the built-in recorded answers of a character: hand-written
// prompts and answers that can stand in for a teacher and measure the held-out
// gain. Rows are grouped by subject; shuffle before use.
func Recorded(name string) ([]Example, bool) {
	if !validName.MatchString(name) {
		return nil, false
	}
	data, err := library.ReadFile("library/recorded/" + name + ".jsonl")
	if err != nil {
		return nil, false
	}
	rows, err := ParseRecorded(data, name+".jsonl")
	if err != nil {
		panic(err) // embedded at build time and covered by a test
	}
	return rows, true
}

// ParseRecorded reads recorded answers as JSON lines. A row is
//
//	{"prompt": "...", "chosen": "..."}      "response" instead of "chosen" works
//	{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
//
// A "rejected" answer and a leading system message may be there and are not
// used: the recorded teacher supplies answers only. Two rows may share a prompt
// but not prompt and answer.
func ParseRecorded(data []byte, filename string) ([]Example, error) {
	where := filepath.Base(filename)
	if filename == "" {
		where = "recorded answers"
	}
	rows, err := parseRecorded(data)
	if err != nil {
		return nil, fmt.Errorf("constitution: %s: %w", where, err)
	}
	return rows, nil
}

func parseRecorded(data []byte) ([]Example, error) {
	if len(data) > MaxRecordedBytes {
		return nil, fmt.Errorf("%d bytes; the limit is %d (64 MiB); split the file", len(data), MaxRecordedBytes)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var rows []Example
	seen := map[Example]int{}
	number := 0
	for line := range bytes.Lines(data) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if len(rows) == MaxRecordedRows {
			return nil, fmt.Errorf("line %d: more than %d rows; split the file", number, MaxRecordedRows)
		}
		if !utf8.Valid(line) {
			return nil, fmt.Errorf("line %d: not valid UTF-8; save the file as UTF-8", number)
		}
		n, err := readJSON(line, number)
		if err != nil {
			return nil, err
		}
		e, err := recordedRow(n)
		if err != nil {
			return nil, err
		}
		if was, dup := seen[e]; dup {
			return nil, fmt.Errorf("line %d: the same prompt and answer as line %d; remove one", number, was)
		}
		seen[e] = number
		rows = append(rows, e)
	}
	if len(rows) == 0 {
		return nil, errors.New("no rows; each line must be {\"prompt\": \"...\", \"response\": \"...\"}")
	}
	return rows, nil
}

var recordedFields = []string{"prompt", "chosen", "response", "rejected", "messages"}

func recordedRow(n *node) (Example, error) {
	var e Example
	var messages *node
	answers := 0
	err := n.fields("", recordedFields, func(key string, v *node) (err error) {
		switch key {
		case "prompt":
			e.Prompt, err = v.text(key)
		case "chosen", "response":
			answers++
			e.Response, err = v.text(key)
		case "messages":
			messages = v
		}
		return err
	})
	switch {
	case err != nil:
		return e, err
	case messages != nil && (e.Prompt != "" || answers > 0):
		return e, fmt.Errorf("line %d: both messages and prompt; give one of the two", n.line)
	case messages != nil:
		if e, err = recordedMessages(messages); err != nil {
			return e, err
		}
	case answers > 1:
		return e, fmt.Errorf("line %d: both chosen and response; give one of the two", n.line)
	}
	for _, f := range []struct{ what, text string }{{"prompt", e.Prompt}, {"answer (chosen or response)", e.Response}} {
		switch r := strings.IndexFunc(f.text, func(r rune) bool { return badRune(r) && r != '\r' }); {
		case strings.TrimSpace(f.text) == "":
			return e, fmt.Errorf("line %d: the %s is empty; fill it in or remove the row", n.line, f.what)
		case r >= 0:
			return e, fmt.Errorf("line %d: control character in the %s; remove it", n.line, f.what)
		}
	}
	return e, nil
}

// recordedMessages reads one user turn and one assistant turn, after an
// optional system message.
func recordedMessages(list *node) (Example, error) {
	var e Example
	if list.kind != kindList {
		return e, fmt.Errorf("line %d: messages must be a list, found %s", list.line, list.kind)
	}
	want := []string{"user", "assistant"}
	for i, m := range list.items {
		var role, content string
		err := m.fields(fmt.Sprintf("message %d", i+1), []string{"role", "content"}, func(key string, v *node) (err error) {
			if key == "role" {
				role, err = v.text(key)
			} else {
				content, err = v.text(key)
			}
			return err
		})
		switch {
		case err != nil:
			return e, err
		case i == 0 && role == "system":
			continue
		case len(want) == 0 || role != want[0]:
			return e, fmt.Errorf("line %d: message %d has role %s; a row needs one user turn and one assistant turn, after an optional system message", list.line, i+1, quote(role))
		case role == "user":
			e.Prompt = content
		default:
			e.Response = content
		}
		want = want[1:]
	}
	if len(want) > 0 {
		return e, fmt.Errorf("line %d: messages lack the %s turn", list.line, want[0])
	}
	return e, nil
}
