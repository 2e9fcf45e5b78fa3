package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/testenv/hostile"
)

func TestParseRows(t *testing.T) {
	for _, c := range []struct {
		in       string
		response bool
		rows     int
		err      string
	}{
		{`{"prompt":"a"}` + "\n\n" + `{"messages":[{"role":"user","content":"b"}]}`, false, 2, ""},
		{"\ufeff" + `{"prompt":"a","response":""}` + "\r\n", true, 1, ""},
		{"", false, 0, "has no row"},
		{"\n\n", false, 0, "has no row"},
		{`{"prompt":"a"}` + "\nplain", false, 0, "line 2"},
		{`{"prompt":"a"}` + "\n[1]", false, 0, "line 2"},
		{"null", false, 0, `line 1: want either "prompt" or "messages"`},
		{`{"prompt":"a","messages":[{"role":"user","content":"b"}]}`, false, 0, "line 1"},
		{`{"prompt":"a"}`, true, 0, `"response" is missing`},
		{`{"prompt":"a"}` + "\n" + `{"prompt":"` + strings.Repeat("x", 17<<20) + `"}`, false, 0, "line 2"},
	} {
		rows, err := parseRows([]byte(c.in), "f.jsonl", c.response)
		if len(rows) != c.rows || (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "f.jsonl")) {
			t.Errorf("%.60q: %d rows, %v", c.in, len(rows), err)
		}
	}
}

// TestScoreAdds: a scored row keeps what it came with.
func TestScoreAdds(t *testing.T) {
	rows, err := parseRows([]byte(`{"id":9007199254740993,"prompt":"a","response":"b"}`), "f", true)
	if err != nil {
		t.Fatal(err)
	}
	row, err := rows[0].with(-1.5, 2)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(row)
	if want := `{"id":9007199254740993,"logprob":-1.5,"prompt":"a","response":"b","tokens":2}`; err != nil || string(b) != want {
		t.Errorf("%s %v, want %s", b, err, want)
	}
	if _, err := rows[0].with(math.Inf(-1), 2); err == nil {
		t.Error("an infinite log-prob was written")
	}
}

func TestWriteRowsIsWholeOrNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.jsonl")
	if err := writeRows(path, nil, []generated{{Prompt: "<a>", Finish: "stop"}}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), `"<a>"`) {
		t.Errorf("%s %v", b, err)
	}
	if err := writeRows(filepath.Join(t.TempDir(), "none", "out.jsonl"), nil, []generated{{}}); err == nil || !strings.Contains(err.Error(), "--out") {
		t.Errorf("error %v", err)
	}
}

func FuzzParseRows(f *testing.F) {
	f.Add([]byte(`{"prompt":"a","response":"b"}`), true)
	f.Add([]byte(`{"messages":[{"role":"user","content":"b"}]}`+"\n{}"), false)
	f.Fuzz(func(t *testing.T, b []byte, response bool) {
		var rows []inputRow
		var err error
		hostile.Bounds{PerByte: 400}.Hold(t, len(b), func() { rows, err = parseRows(b, "f", response) })
		if (len(rows) == 0) != (err != nil) {
			t.Errorf("%d rows and %v", len(rows), err)
		}
		for _, r := range rows {
			if len(r.conversation()) == 0 || response && r.Response == nil {
				t.Errorf("row %+v", r)
			}
			row, err := r.with(-1, 1)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := json.Marshal(row); err != nil {
				t.Error(err)
			}
		}
	})
}
