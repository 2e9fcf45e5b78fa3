package dataset_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

func say(role, content string) []dataset.Message {
	return []dataset.Message{{Role: role, Content: content}}
}

func TestPreferenceJSONL(t *testing.T) {
	t.Parallel()
	rows := []dataset.Pair{
		{ID: "import-000001", Source: "user", Prompt: say("user", "Hello <you> & \"me\"!"), Chosen: say("assistant", "Ahoy!\nTwo lines."), Rejected: say("assistant", "Hello.")},
		{ID: "import-000002", Source: "user", Prompt: []dataset.Message{{Role: "system", Content: "s"}, {Role: "user", Content: "u"}}, Chosen: say("assistant", "c"), Rejected: say("assistant", "r")},
	}
	data := dataset.PreferenceJSONL(rows)
	first, _, _ := strings.Cut(string(data), "\n")
	if want := `{"prompt":"Hello <you> & \"me\"!","chosen":"Ahoy!\nTwo lines.","rejected":"Hello."}`; first != want {
		t.Errorf("line %s", first)
	}
	got, err := dataset.ParsePreferenceJSONL(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rows, got); diff != "" {
		t.Error(diff)
	}
	// windows line ends, a byte order mark, blank lines, more fields
	got, err = dataset.ParsePreferenceJSONL([]byte("\xef\xbb\xbf\r\n{\"prompt\":\"p\",\"chosen\":\"c\",\"rejected\":\"r\",\"score\":1}\r\n\r\n"))
	if err != nil || len(got) != 1 || got[0].ID != "import-000002" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestPreferenceJSONLErrors(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		``:                            "no preference rows",
		`{"prompt":"p","chosen":"c"}`: `line 1: field "rejected" is missing`,
		`{"prompt":"p","chosen":"c","rejected":" "}`:                                  "empty text",
		`{"prompt":"","chosen":"c","rejected":"r"}`:                                   "empty text",
		`{"prompt":1,"chosen":"c","rejected":"r"}`:                                    "a text, or a list",
		`{"prompt":"p","chosen":null,"rejected":"r"}`:                                 "chosen",
		`{"prompt":"p","chosen":[{"role":"user","content":"x"}],"rejected":"r"}`:      `role "user"`,
		`{"prompt":[{"role":"assistant","content":"x"}],"chosen":"c","rejected":"r"}`: "must end with a message of the user",
		`{"prompt":[1],"chosen":"c","rejected":"r"}`:                                  "list of messages",
		`["p","c","r"]`: "not a JSON object",
		`prompt: p`:     "not a JSON object",
		`{"prompt":"p"`: "ends inside",
		`{"prompt":"p","chosen":"c","rejected":"r"} {}`:             "follows the object",
		"{\"prompt\":\"\xff\",\"chosen\":\"c\",\"rejected\":\"r\"}": "UTF-8",
		"\n\n{}": "line 3",
	} {
		if _, err := dataset.ParsePreferenceJSONL([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

func TestIntrospectionJSONL(t *testing.T) {
	t.Parallel()
	rows := []dataset.Conversation{
		{ID: "import-000001", Kind: "reflection", TemplateID: "import", PromptText: "Who are you?", Turns: 1,
			Messages: []dataset.Message{{Role: "user", Content: "Who are you?"}, {Role: "assistant", Content: "A captain."}}},
		{ID: "import-000002", Kind: "interaction", TemplateID: "import", PromptText: "Hopes", Turns: 3, SourceSystemPrompt: "free",
			Messages: []dataset.Message{{Role: "system", Content: "free"}, {Role: "user", Content: "So, hopes..."}, {Role: "assistant", Content: "Gold."}, {Role: "user", Content: "Just gold?"}}},
		{ID: "import-000003", Kind: "interaction", TemplateID: "import", PromptText: "Fears", Turns: 2,
			Messages: []dataset.Message{{Role: "assistant", Content: "I go first."}, {Role: "user", Content: "Aye."}}},
	}
	data := dataset.IntrospectionJSONL(rows)
	want := `{"prompt":"Who are you?","reflection":"A captain."}
{"system":"free","prompt":"Hopes","interaction_type":"conversation","turns":[{"speaker":"A","content":"So, hopes..."},{"speaker":"B","content":"Gold."},{"speaker":"A","content":"Just gold?"}]}
{"prompt":"Fears","interaction_type":"conversation","turns":[{"speaker":"B","content":"I go first."},{"speaker":"A","content":"Aye."}]}
`
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Error(diff)
	}
	got, err := dataset.ParseIntrospectionJSONL(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rows, got); diff != "" {
		t.Error(diff)
	}
}

func TestIntrospectionShapes(t *testing.T) {
	t.Parallel()
	want := []dataset.Message{{Role: "user", Content: "So, hopes"}, {Role: "assistant", Content: "Wonderful"}}
	for _, line := range []string{
		`{"prompt":"p","interaction_type":"conversation","turns":[{"speaker":"A","content":"So, hopes"},{"speaker":"B","content":"Wonderful"}]}`,
		`{"prompt":"p","conversation":[{"role":"A","content":"So, hopes"},{"role":"B","content":"Wonderful"}]}`,
		`{"prompt":"p","conversation":[{"role":"user","content":"So, hopes"},{"role":"assistant","content":"Wonderful"}]}`,
		`{"prompt":"p","turns":[{"speaker":"Ann","content":"So, hopes"},{"speaker":"Bob","content":"Wonderful"}]}`,
	} {
		got, err := dataset.ParseIntrospectionJSONL([]byte(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if diff := cmp.Diff(want, got[0].Messages); diff != "" || got[0].Kind != "interaction" || got[0].Turns != 2 {
			t.Errorf("%s: %+v", line, got[0])
		}
	}
	for line, want := range map[string]string{
		``:                            "no introspection rows",
		`{"reflection":"r"}`:          `"prompt" is missing`,
		`{"prompt":"p"}`:              "unknown shape",
		`{"prompt":"p","answer":"x"}`: "unknown shape",
		`{"prompt":"p","reflection":"r","turns":[]}`:                                           "unknown shape",
		`{"prompt":"p","reflection":" "}`:                                                      `"reflection" is empty`,
		`{"prompt":"p","turns":[]}`:                                                            "two speakers",
		`{"prompt":"p","turns":[{"speaker":"A","content":"x"}]}`:                               "two speakers",
		`{"prompt":"p","turns":[{"content":"x"}]}`:                                             "turn 1 has no speaker",
		`{"prompt":"p","turns":[{"speaker":"A","content":""}]}`:                                "turn 1 is empty",
		`{"prompt":"p","turns":[{"speaker":"A","content":"x"},{"speaker":"A","content":"y"}]}`: "twice in a row",
		`{"prompt":"p","turns":[{"speaker":"X","content":"x"},{"speaker":"Y","content":"y"},{"speaker":"Z","content":"z"}]}`:                               "twice in a row",
		`{"prompt":"p","turns":[{"speaker":"A","content":"x"},{"speaker":"B","content":"y"},{"speaker":"C","content":"z"},{"speaker":"B","content":"z"}]}`: "3 speakers",
		`{"prompt":"p","turns":[{"speaker":"A","role":"B","content":"x"}]}`:                                                                                "both a speaker and a role",
		`{"prompt":"p","turns":"A: hello"}`:                           "not valid JSON of a row",
		"{\"prompt\":\"p\",\"reflection\":\"r\"}\n{\"prompt\":\"p\"}": "line 2",
	} {
		if _, err := dataset.ParseIntrospectionJSONL([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

func TestJSONLAtTheLimit(t *testing.T) {
	large := make([]byte, dataset.MaxJSONLBytes+1)
	if _, err := dataset.ParsePreferenceJSONL(large); err == nil || !strings.Contains(err.Error(), "split the file") {
		t.Errorf("preferences: %v", err)
	}
	if _, err := dataset.ParseIntrospectionJSONL(large); err == nil || !strings.Contains(err.Error(), "split the file") {
		t.Errorf("introspection: %v", err)
	}
	deep := func(n int) []byte {
		return []byte(`{"prompt":"p","chosen":"c","rejected":"r","x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}")
	}
	if _, err := dataset.ParsePreferenceJSONL(deep(9000)); err != nil {
		t.Errorf("nested 9,000 deep in a field that is not read: %v", err)
	}
	for _, n := range []int{10_001, 1 << 20} {
		if _, err := dataset.ParsePreferenceJSONL(deep(n)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("nested %d deep: %v", n, err)
		}
	}
}

func FuzzParsePreferenceJSONL(f *testing.F) {
	f.Add([]byte(`{"prompt":"p","chosen":"c","rejected":"r"}`))
	f.Add([]byte(`{"prompt":[{"role":"user","content":"p"}],"chosen":[{"role":"assistant","content":"c"}],"rejected":"r"}`))
	f.Add([]byte("{\"prompt\":\"p\"\n"))
	f.Add([]byte("\xef\xbb\xbf{}\n[]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var rows []dataset.Pair
		var err error
		hostile.Bounds{PerByte: 400}.Hold(t, len(data), func() { rows, err = dataset.ParsePreferenceJSONL(data) })
		if err != nil {
			return
		}
		again, err := dataset.ParsePreferenceJSONL(dataset.PreferenceJSONL(rows))
		if err != nil {
			t.Fatalf("what was written can not be read: %v", err)
		}
		for i := range rows { // ids are line numbers
			again[i].ID = rows[i].ID
		}
		if diff := cmp.Diff(rows, again); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzParseIntrospectionJSONL(f *testing.F) {
	f.Add([]byte(`{"prompt":"p","reflection":"r"}`))
	f.Add([]byte(`{"prompt":"p","system":"s","turns":[{"speaker":"A","content":"x"},{"speaker":"B","content":"y"}]}`))
	f.Add([]byte(`{"prompt":"p","conversation":[{"role":"B","content":"x"},{"role":"A","content":"y"}]}`))
	f.Add([]byte(`{"prompt":"p","turns":[{"speaker":"Ann","content":"x"},{"speaker":"Bob","content":"y"}]}`))
	f.Add([]byte(`{"prompt":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var rows []dataset.Conversation
		var err error
		hostile.Bounds{PerByte: 400}.Hold(t, len(data), func() { rows, err = dataset.ParseIntrospectionJSONL(data) })
		if err != nil {
			return
		}
		again, err := dataset.ParseIntrospectionJSONL(dataset.IntrospectionJSONL(rows))
		if err != nil {
			t.Fatalf("what was written can not be read: %v", err)
		}
		for i := range rows {
			again[i].ID = rows[i].ID
		}
		if diff := cmp.Diff(rows, again); diff != "" {
			t.Error(diff)
		}
	})
}

// The recorded answers hold a prompt and an answer in character; with a rejected side they are preference rows.
func TestRecordedFileIsNotAPreferenceFile(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(testdata(t), "recorded-teacher", "captain.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dataset.ParsePreferenceJSONL(data); err == nil || !strings.Contains(err.Error(), `line 1: field "rejected"`) {
		t.Errorf("%v", err)
	}
}
