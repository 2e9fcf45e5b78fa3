package constitution_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

func TestParseRecorded(t *testing.T) {
	text := `{"prompt": "Hello", "chosen": "Arr!"}

{"prompt": "Hello", "response": "Aye!", "rejected": "Hi."}
{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me.\nReally."}]}
{"messages": [{"role": "system", "content": "Be loud."}, {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}`
	got, err := constitution.ParseRecorded([]byte(text), "a.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	want := []constitution.Example{{"Hello", "Arr!"}, {"Hello", "Aye!"}, {"Who?", "Me.\nReally."}, {"Why?", "So."}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseRecordedErrors(t *testing.T) {
	const ok = `{"prompt": "Hello", "chosen": "Arr!"}` + "\n"
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "\n\n", []string{"a.jsonl", "no rows", "response"}},
		{"not JSON", ok + "hello", []string{"a.jsonl", "line 2", "not valid JSON"}},
		{"cut row", ok + `{"prompt": "Hel`, []string{"line 2"}},
		{"not UTF-8", ok + "{\"prompt\": \"\xff\"}", []string{"line 2", "UTF-8"}},
		{"unknown field", ok + `{"prompt": "a", "answer": "b"}`, []string{"line 2", `unknown field "answer"`, "chosen"}},
		{"no answer", ok + `{"prompt": "a"}`, []string{"line 2", "answer", "empty"}},
		{"empty prompt", ok + `{"prompt": " ", "chosen": "b"}`, []string{"line 2", "prompt is empty"}},
		{"two answers", ok + `{"prompt": "a", "chosen": "b", "response": "c"}`, []string{"line 2", "both chosen and response"}},
		{"prompt and messages", ok + `{"prompt": "a", "messages": []}`, []string{"line 2", "both messages and prompt"}},
		{"list row", ok + `["a", "b"]`, []string{"line 2", "found a list"}},
		{"two turns", ok + `{"messages": [{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]}`, []string{"line 2", "message 3", "one user turn"}},
		{"no assistant", ok + `{"messages": [{"role":"user","content":"a"}]}`, []string{"line 2", "lack the assistant turn"}},
		{"messages as text", ok + `{"messages": "hi"}`, []string{"line 2", "must be a list"}},
		{"control character", ok + `{"prompt": "a\u0000", "chosen": "b"}`, []string{"line 2", "control character in the prompt"}},
		{"repeated row", ok + ok, []string{"line 2", "same prompt and answer as line 1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := constitution.ParseRecorded([]byte(tc.text), "dir/a.jsonl")
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q lacks %q", err, w)
				}
			}
		})
	}
}

func FuzzParseRecorded(f *testing.F) {
	f.Add([]byte(`{"prompt": "Hello", "chosen": "Arr!"}`))
	f.Add([]byte(`{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]}`))
	f.Add([]byte("{\"\":A0")) // an offset that lags behind
	f.Add([]byte("{\"prompt\":\"a\",\"response\":\"b\"}\r\n\r\n{\"prompt\":\"c\",\"response\":\"d\"}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var rows []constitution.Example
		var err error
		hostile.Bounds{PerByte: 400}.Hold(t, len(data), func() { rows, err = constitution.ParseRecorded(data, "a.jsonl") })
		if err == nil && len(rows) == 0 {
			t.Error("no rows and no error")
		}
		for i, r := range rows {
			if strings.TrimSpace(r.Prompt) == "" || strings.TrimSpace(r.Response) == "" {
				t.Errorf("row %d is empty: %+v", i, r)
			}
		}
	})
}
