package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/lm/chat"
)

// inputRow is a row of `generate --in` and `score --in`.
type inputRow struct {
	Prompt   string         `json:"prompt,omitempty"`
	Messages []chat.Message `json:"messages,omitempty"`
	Response *string        `json:"response,omitempty"`

	whole map[string]json.RawMessage // the row with all its fields
}

// with is the row as it came, with its score.
func (r inputRow) with(logProb float64, tokens int) (map[string]json.RawMessage, error) {
	if math.IsNaN(logProb) || math.IsInf(logProb, 0) {
		return nil, fmt.Errorf("its log-prob is %v: this model diverged in training", logProb)
	}
	row := maps.Clone(r.whole)
	row["logprob"], _ = json.Marshal(logProb) // finite
	row["tokens"], _ = json.Marshal(tokens)
	return row, nil
}

// conversation is what stands before the answer.
func (r inputRow) conversation() []chat.Message {
	if len(r.Messages) > 0 {
		return r.Messages
	}
	return []chat.Message{{Role: "user", Content: r.Prompt}}
}

// readRows reads JSONL rows; "-" is standard input. Errors name the line.
func readRows(path string, wantResponse bool) ([]inputRow, error) {
	var b []byte
	var err error
	if path == "-" {
		b, err = limited(os.Stdin, path)
	} else {
		b, err = readFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("--in: %w", err)
	}
	return parseRows(b, path, wantResponse)
}

// maxInput is the most that is read of a file that the user names, in bytes.
const maxInput = dataset.MaxJSONLBytes

// readFile reads a whole file of bounded size: the path may be a device without end.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := limited(f, path)
	return b, errors.Join(err, f.Close())
}

func limited(r io.Reader, path string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err == nil && len(b) > maxInput {
		err = fmt.Errorf("%s has more than %d bytes (256 MiB); split it", path, maxInput)
	}
	return b, err
}

func parseRows(b []byte, path string, wantResponse bool) ([]inputRow, error) {
	var rows []inputRow
	sc := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))))
	sc.Buffer(nil, 16<<20)
	line := 1
	for ; sc.Scan(); line++ {
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		var r inputRow
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s line %d: %w; want one JSON object a line", path, line, err)
		}
		if (r.Prompt == "") == (len(r.Messages) == 0) {
			return nil, fmt.Errorf(`%s line %d: want either "prompt" or "messages"`, path, line)
		}
		if wantResponse && r.Response == nil {
			return nil, fmt.Errorf(`%s line %d: "response" is missing`, path, line)
		}
		if err := json.Unmarshal(sc.Bytes(), &r.whole); err != nil {
			return nil, fmt.Errorf("%s line %d: %w", path, line, err)
		}
		rows = append(rows, r)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%s line %d: %w; a row can have 16 MiB", path, line, err)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s has no row; put one JSON object a line", path)
	}
	return rows, nil
}

// writeRows writes JSONL to a file, whole or not at all; "-" or "" is standard output.
func writeRows[T any](path string, out io.Writer, rows []T) error {
	b, err := jsonLines(rows)
	if err != nil {
		return err
	}
	if path == "" || path == "-" {
		_, err := out.Write(b)
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o644); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return os.Rename(path+".new", path)
}

// jsonLines writes one JSON value a line.
func jsonLines[T any](rows []T) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for _, r := range rows {
		if err := e.Encode(r); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// writeNew writes a file that is not there yet, whole or not at all.
func writeNew(path string, b []byte) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already: name another file, or remove it", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".partial-")
	if err != nil {
		return fmt.Errorf("write %s: %w; name a file in a folder that exists", path, err)
	}
	defer func() {
		if rerr := os.Remove(f.Name()); !errors.Is(rerr, os.ErrNotExist) { // it has its name, or is left over
			err = errors.Join(err, rerr)
		}
	}()
	_, werr := f.Write(b)
	if err := errors.Join(werr, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
