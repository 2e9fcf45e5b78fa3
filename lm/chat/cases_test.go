package chat

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ardanlabs/jinja"
)

// ordered turns JSON into a template value with the keys in file order.
func ordered(t *testing.T, d *json.Decoder) jinja.Value {
	t.Helper()
	tok, err := d.Token()
	if err != nil {
		t.Fatal(err)
	}
	switch v := tok.(type) {
	case json.Delim:
		if v == '[' {
			var items []jinja.Value
			for d.More() {
				items = append(items, ordered(t, d))
			}
			d.Token()
			return jinja.NewList(items)
		}
		o := jinja.NewDict()
		for d.More() {
			key, err := d.Token()
			if err != nil {
				t.Fatal(err)
			}
			o.AsDict().Set(key.(string), ordered(t, d))
		}
		d.Token()
		return o
	default:
		return jinja.FromGoValue(v)
	}
}

// TestRecordedTemplates compares with what Python's jinja2, set up as
// transformers does, made of nine models' templates.
func TestRecordedTemplates(t *testing.T) {
	dir := filepath.Join(need(t, "CHARACTER_TESTDATA", "testdata"), "templates")
	f, err := os.Open(filepath.Join(dir, "cases.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	tok := bytesOnly(t)
	counts := map[bool]int{}
	for d := json.NewDecoder(z); ; {
		var c struct {
			Tmpl, Conv string
			Ctx        struct {
				Messages json.RawMessage `json:"messages"`
				Prompt   bool            `json:"add_generation_prompt"`
				Thinking *bool           `json:"enable_thinking"`
			}
			Out, Err *string
		}
		if err := d.Decode(&c); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		parts := c.Conv == "parts" || c.Conv == "sysparts"
		if parts && c.Tmpl != "tmpl_gemma3" || c.Err != nil && strings.HasPrefix(*c.Err, "TypeError") {
			continue // contents that are lists, where Python itself raises or prints a Python list
		}
		src, err := os.ReadFile(filepath.Join(dir, c.Tmpl+".jinja"))
		if err != nil {
			t.Fatal(err)
		}
		o := Options{EnableThinking: c.Ctx.Thinking}
		if o.EnableThinking == nil { // not passed: only an explicit false turns Qwen3's thinking off
			on := true
			o.EnableThinking = &on
		}
		if c.Out != nil {
			if _, rest, ok := strings.Cut(*c.Out, "Today Date: "); ok {
				o.DateString, _, _ = strings.Cut(rest, "\n")
			}
		}
		format, err := NewWithOptions(tok, string(src), o)
		if err != nil {
			t.Fatalf("%s: %v", c.Tmpl, err)
		}
		dec := json.NewDecoder(bytes.NewReader(c.Ctx.Messages))
		dec.UseNumber()
		got, err := format.renderValues(ordered(t, dec), len(c.Ctx.Messages), c.Ctx.Prompt)
		counts[c.Err == nil]++
		switch {
		case c.Err != nil:
			_, want, _ := strings.Cut(*c.Err, ": ")
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s: error %v, want %q", c.Tmpl, c.Conv, err, want)
			}
		case err != nil:
			t.Errorf("%s %s: %v", c.Tmpl, c.Conv, err)
		case got != *c.Out:
			t.Errorf("%s %s (prompt %v)\n got %q\nwant %q", c.Tmpl, c.Conv, c.Ctx.Prompt, got, *c.Out)
		}
	}
	t.Logf("%d texts and %d refusals compared", counts[true], counts[false])
	if counts[true] < 400 || counts[false] < 40 {
		t.Errorf("only %v cases", counts)
	}
}
