package constitution

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// readJSON parses exactly one JSON value. firstLine is the line of data's first
// byte in the file.
func readJSON(data []byte, firstLine int) (*node, error) {
	d := &jsonReader{dec: json.NewDecoder(bytes.NewReader(data)), data: data, line: firstLine}
	d.dec.UseNumber()
	n, err := d.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := d.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("line %d: more text after the end of the JSON value; keep one list or object (one object a line makes it JSONL)", d.here())
	}
	return n, nil
}

type jsonReader struct {
	dec  *json.Decoder
	data []byte
	line int // line at offset at
	at   int64
}

// here returns the line of the decoder's position.
func (d *jsonReader) here() int {
	off := min(d.dec.InputOffset(), int64(len(d.data)))
	d.line += bytes.Count(d.data[d.at:off], []byte("\n"))
	d.at = off
	return d.line
}

func (d *jsonReader) token() (json.Token, int, error) {
	t, err := d.dec.Token()
	line := d.here()
	if err == nil {
		return t, line, nil
	}
	var syn *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, line, fmt.Errorf("line %d: the JSON ends too early; the file may be cut off, or a bracket is missing", line)
	case errors.As(err, &syn):
		// The decoder's own offset may lag behind or run ahead of the bad byte.
		end := max(d.at, min(syn.Offset, int64(len(d.data))))
		line += bytes.Count(d.data[d.at:end], []byte("\n"))
	}
	return nil, line, fmt.Errorf("line %d: not valid JSON: %v", line, err)
}

func (d *jsonReader) value(depth int) (*node, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("line %d: nested too deep (limit %d levels); a constitution needs four", d.here(), maxNesting)
	}
	t, line, err := d.token()
	if err != nil {
		return nil, err
	}
	switch v := t.(type) {
	case json.Delim:
		if v == '[' {
			return d.list(line, depth)
		}
		return d.object(line, depth)
	case string:
		return &node{kind: kindScalar, line: line, scalar: v}, nil
	case nil:
		return &node{kind: kindNull, line: line}, nil
	default: // json.Number, bool
		return &node{kind: kindScalar, line: line, scalar: fmt.Sprint(v)}, nil
	}
}

func (d *jsonReader) list(line, depth int) (*node, error) {
	out := &node{kind: kindList, line: line}
	for d.dec.More() {
		item, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out.items = append(out.items, item)
	}
	_, _, err := d.token() // the closing bracket
	return out, err
}

func (d *jsonReader) object(line, depth int) (*node, error) {
	out := &node{kind: kindMap, line: line}
	for d.dec.More() {
		key, keyLine, err := d.token()
		if err != nil {
			return nil, err
		}
		name, ok := key.(string)
		if !ok {
			return nil, fmt.Errorf("line %d: a field name must be in quotes", keyLine)
		}
		val, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if err := out.add(name, val, keyLine); err != nil {
			return nil, err
		}
	}
	_, _, err := d.token()
	return out, err
}
