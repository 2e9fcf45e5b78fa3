package dataset_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

func talk(turns ...string) []dataset.Message {
	var out []dataset.Message
	for _, t := range turns {
		role, content, _ := strings.Cut(t, ":")
		out = append(out, dataset.Message{Role: role, Content: content})
	}
	return out
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestImportPreferencesShapes: one pair in every shape that people have it in.
func TestImportPreferencesShapes(t *testing.T) {
	plain := dataset.Pair{ID: "import-000001", Source: "user", Prompt: talk("user:q"), Chosen: talk("assistant:c"), Rejected: talk("assistant:r")}
	system := plain
	system.Prompt = talk("system:s", "user:q")
	long := plain
	long.Prompt = talk("user:a", "assistant:b", "user:q")
	for name, c := range map[string]struct {
		line string
		want dataset.Pair
	}{
		"texts":             {`{"prompt":"q","chosen":"c","rejected":"r","score":1}`, plain},
		"lists":             {asJSON(t, map[string]any{"prompt": talk("user:q"), "chosen": talk("assistant:c"), "rejected": talk("assistant:r")}), plain},
		"prompt inside":     {asJSON(t, map[string]any{"chosen": talk("user:q", "assistant:c"), "rejected": talk("user:q", "assistant:r")}), plain},
		"prompt twice":      {asJSON(t, map[string]any{"prompt": "q", "chosen": talk("user:q", "assistant:c"), "rejected": talk("user:q", "assistant:r")}), plain},
		"turns inside":      {asJSON(t, map[string]any{"chosen": talk("user:a", "assistant:b", "user:q", "assistant:c"), "rejected": talk("user:a", "assistant:b", "user:q", "assistant:r")}), long},
		"first turn beside": {asJSON(t, map[string]any{"prompt": "a", "chosen": talk("user:a", "assistant:b", "user:q", "assistant:c"), "rejected": talk("user:a", "assistant:b", "user:q", "assistant:r")}), long},
		"marks":             {`{"chosen":"\n\nHuman: a\n\nAssistant: b\n\nHuman: q\n\nAssistant: c","rejected":"\n\nHuman: a\n\nAssistant: b\n\nHuman: q\n\nAssistant: r"}`, long},
		"from and value":    {`{"prompt":[{"from":"human","value":"q"}],"chosen":[{"from":"gpt","value":"c"}],"rejected":[{"from":"gpt","value":"r"}]}`, plain},
		"question, system":  {`{"system":"s","question":"q","chosen":"c","rejected":"r"}`, system},
		"no system":         {`{"system":"","prompt":"q","chosen":"c","rejected":"r"}`, plain},
		"same system":       {asJSON(t, map[string]any{"system": "s", "chosen": talk("system:s", "user:q", "assistant:c"), "rejected": talk("system:s", "user:q", "assistant:r")}), system},
		"null prompt":       {`{"prompt":null,"instruction":"q","chosen":"c","rejected":"r"}`, plain},
		"marks of a prompt": {`{"prompt":"q","chosen":"\n\nHuman: x","rejected":"r"}`, dataset.Pair{ID: plain.ID, Source: "user", Prompt: plain.Prompt, Chosen: talk("assistant:\n\nHuman: x"), Rejected: plain.Rejected}},
	} {
		got, err := dataset.ImportPreferences(dataset.File{Name: "f", Data: []byte(c.line)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff([]dataset.Pair{c.want}, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestImportPreferencesErrors: the first row that does not fit stops all, with file, line and column.
func TestImportPreferencesErrors(t *testing.T) {
	good := `{"prompt":"q","chosen":"c","rejected":"r"}`
	for line, want := range map[string]string{
		`{"prompt":"p","chosen":"c"}`:                  `column "rejected": it is missing`,
		`{"chosen":"c","rejected":"r"}`:                `column "prompt" is missing, and`,
		`{"prompt":"","chosen":"c","rejected":"r"}`:    `column "prompt": message 1 is empty`,
		`{"prompt":7,"chosen":"c","rejected":"r"}`:     `column "prompt": it must be a text, or a list of messages`,
		`{"prompt":"p","chosen":[],"rejected":"r"}`:    `column "chosen": it has no messages`,
		`{"prompt":"p","chosen":[{}],"rejected":"r"}`:  `column "chosen": message 1 needs a role and a content`,
		`{"prompt":"p","chosen":["x"],"rejected":"r"}`: `column "chosen": a list of messages must hold objects`,
		asJSON(t, map[string]any{"prompt": "p", "chosen": []any{map[string]any{"role": "user", "content": []string{"x"}}}, "rejected": "r"}): "both texts",
		asJSON(t, map[string]any{"prompt": talk("assistant:x"), "chosen": "c", "rejected": "r"}):                                             "must end with a message of the user",
		asJSON(t, map[string]any{"prompt": "p", "chosen": talk("tool:x"), "rejected": "r"}):                                                  `has the role "tool"`,
		asJSON(t, map[string]any{"prompt": "p", "chosen": talk("user:p"), "rejected": "r"}):                                                  "must end with a message of the assistant",
		asJSON(t, map[string]any{"chosen": talk("user:p", "assistant:c"), "rejected": talk("assistant:r")}):                                  "holds the prompt and the other does not",
		asJSON(t, map[string]any{"chosen": talk("user:p", "assistant:c"), "rejected": talk("user:q", "assistant:r")}):                        "different prompts",
		asJSON(t, map[string]any{"prompt": "z", "chosen": talk("user:p", "assistant:c"), "rejected": talk("user:p", "assistant:r")}):         `columns "prompt" and "chosen" hold different prompts`,
		asJSON(t, map[string]any{"chosen": talk("user:p", "system:s", "assistant:c"), "rejected": "r"}):                                      "speaks first or not at all",
		asJSON(t, map[string]any{"chosen": talk("system:s", "assistant:c"), "rejected": "r"}):                                                "needs a message of the user before",
		`{"system":["s"],"prompt":"p","chosen":"c","rejected":"r"}`:                                                                          `column "system"`,
		`[]`: "not a JSON object",
		`{`:  "the line ends inside the object",
	} {
		rows, err := dataset.ImportPreferences(dataset.File{Name: "a.jsonl", Data: []byte(good)}, dataset.File{Name: "b.jsonl", Data: []byte(good + "\n\n" + line)})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "b.jsonl: line 3: ") || rows != nil {
			t.Errorf("%s: %d rows, %v, want %q", line, len(rows), err, want)
		}
	}
	for _, files := range [][]dataset.File{nil, {{Name: "x", Data: []byte("\n")}}} {
		if _, err := dataset.ImportPreferences(files...); err == nil || !strings.Contains(err.Error(), "there are no rows") {
			t.Errorf("no rows: %v", err)
		}
	}
}

// TestImportIds: every row of several files has an id of its own.
func TestImportIds(t *testing.T) {
	f := dataset.File{Data: []byte("\n{\"prompt\":\"q\",\"chosen\":\"c\",\"rejected\":\"r\"}")}
	rows, err := dataset.ImportPreferences(f, f)
	if err != nil || len(rows) != 2 || rows[0].ID != "import-01-000002" || rows[1].ID != "import-02-000002" {
		t.Errorf("%+v %v", rows, err)
	}
}

// TestImportOwn: what is exported, as JSON lines and as Parquet, is imported.
func TestImportOwn(t *testing.T) {
	want := []dataset.Pair{
		{ID: "import-000001", Source: "user", Prompt: talk("user:q"), Chosen: talk("assistant:c"), Rejected: talk("assistant:r")},
		{ID: "import-000002", Source: "user", Prompt: talk("system:s", "user:a", "assistant:b", "user:q"), Chosen: talk("assistant:c"), Rejected: talk("assistant:r")},
	}
	parquet, err := dataset.EncodeParquet(want, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"parquet": parquet, "jsonl": dataset.PreferenceJSONL(want)} {
		got, err := dataset.ImportPreferences(dataset.File{Name: name, Data: data})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	talks := []dataset.Conversation{
		{Messages: talk("user:q", "assistant:a"), ID: "import-000001", Kind: "reflection", TemplateID: "import", PromptText: "q", Turns: 1},
		{Messages: talk("user:q", "assistant:a", "user:b", "assistant:c"), ID: "import-000002", Kind: "interaction", TemplateID: "import", PromptText: "q", Turns: 4},
	}
	parquet, err = dataset.EncodeParquet(talks, nil)
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for _, c := range talks {
		lines.WriteString(asJSON(t, map[string]any{"messages": c.Messages}) + "\n")
	}
	for name, data := range map[string][]byte{"parquet": parquet, "messages": []byte(lines.String()), "jsonl": dataset.IntrospectionJSONL(talks)} {
		got, err := dataset.ImportIntrospection(dataset.File{Name: name, Data: data})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(talks, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestImportParquetShapes reads columns of other kinds, and says which row and column is wrong.
func TestImportParquetShapes(t *testing.T) {
	type texts struct {
		Prompt   string  `parquet:"prompt"`
		Chosen   string  `parquet:"chosen,dict"`
		Rejected *string `parquet:"rejected,optional"`
		Score    float64 `parquet:"score"`
	}
	type turn struct {
		From  string  `parquet:"from"`
		Value *string `parquet:"value,optional"`
	}
	type inside struct {
		Chosen   []turn `parquet:"chosen,list"`
		Rejected []turn `parquet:"rejected,list"`
	}
	type numbers struct {
		Prompt int64 `parquet:"prompt"`
	}
	r, s := "r", "q"
	var rows []texts
	for i := range 1500 { // more than a batch and a row group
		rows = append(rows, texts{fmt.Sprint("q", i), fmt.Sprint("c", i), &r, 1})
	}
	got, err := dataset.ImportPreferences(dataset.File{Name: "f", Data: encode(t, rows)})
	if err != nil || len(got) != 1500 || got[1499].Chosen[0].Content != "c1499" || got[1499].ID != "import-001500" {
		t.Fatalf("%d rows, %v", len(got), err)
	}
	rows[1200].Rejected = nil
	if _, err := dataset.ImportPreferences(dataset.File{Name: "f", Data: encode(t, rows)}); err == nil || !strings.Contains(err.Error(), `f: row 1201: column "rejected": it is missing`) {
		t.Errorf("a missing value: %v", err)
	}
	got, err = dataset.ImportPreferences(dataset.File{Data: encode(t, []inside{{[]turn{{"human", &s}, {"gpt", &r}}, []turn{{"human", &s}, {"gpt", &r}}}})})
	if err != nil || len(got) != 1 || got[0].Prompt[0] != (dataset.Message{Role: "user", Content: "q"}) {
		t.Errorf("%+v %v", got, err)
	}
	for want, data := range map[string][]byte{
		`row 1: column "chosen": message 2 has no content`: encode(t, []inside{{[]turn{{"human", &s}, {"gpt", nil}}, nil}}),
		`row 1: column "chosen": it is missing`:            encode(t, []inside{{nil, []turn{{"gpt", &r}}}}),
		`column "prompt": it has the type`:                 encode(t, []numbers{{1}}),
		"it does not begin and end as one":                 []byte("PAR1"),
	} {
		if _, err := dataset.ImportPreferences(dataset.File{Name: "f", Data: data}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func encode[T any](t testing.TB, rows []T) []byte {
	t.Helper()
	b, err := dataset.EncodeParquet(rows, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRunFiles: a run takes all of it, and what is exported reads as it always did.
func TestRunFiles(t *testing.T) {
	pair := dataset.Pair{Prompt: talk("user:q"), Chosen: talk("assistant:c"), Rejected: talk("assistant:r")}
	for name, data := range map[string][]byte{"parquet": encode(t, []dataset.Pair{pair}), "exported": dataset.PreferenceJSONL([]dataset.Pair{pair}),
		"prompt inside": []byte(asJSON(t, map[string]any{"chosen": talk("user:q", "assistant:c"), "rejected": talk("user:q", "assistant:r")}))} {
		rows, err := dataset.RunPreferences(data)
		if err != nil || len(rows) != 1 || rows[0].ID != "import-000001" || !cmp.Equal(rows[0].Prompt, pair.Prompt) {
			t.Errorf("%s: %+v %v", name, rows, err)
		}
	}
	if _, err := dataset.RunPreferences([]byte(`{"prompt":"p"}`)); err == nil || !strings.Contains(err.Error(), `dataset: line 1: column "chosen": it is missing`) {
		t.Errorf("error %v", err)
	}
	said := dataset.Conversation{Messages: talk("user:q", "assistant:a"), Kind: "reflection", PromptText: "q"}
	for name, data := range map[string][]byte{"parquet": encode(t, []dataset.Conversation{said}), "exported": dataset.IntrospectionJSONL([]dataset.Conversation{said})} {
		rows, err := dataset.RunIntrospection(data)
		if err != nil || len(rows) != 1 || rows[0].Kind != "reflection" || !cmp.Equal(rows[0].Messages, said.Messages) {
			t.Errorf("%s: %+v %v", name, rows, err)
		}
	}
	if _, err := dataset.RunIntrospection([]byte(`{"messages":[]}`)); err == nil || !strings.Contains(err.Error(), `column "messages"`) {
		t.Errorf("error %v", err)
	}
}

func TestImportIntrospectionErrors(t *testing.T) {
	for line, want := range map[string]string{
		`{"messages":"x"}`: "must be a list of messages",
		`{"messages":[]}`:  "it has no messages",
		asJSON(t, map[string]any{"messages": talk("user:q")}):                                                "no answer of the assistant",
		asJSON(t, map[string]any{"messages": talk("assistant:a", "user:q")}):                                 "turn 1 is of role",
		asJSON(t, map[string]any{"messages": talk("user:q", "assistant:a"), "kind": "poem"}):                 `column "kind"`,
		asJSON(t, map[string]any{"messages": talk("user:q", "assistant:a", "user:b"), "kind": "reflection"}): `column "kind"`,
		`{"prompt":"p"}`: "unknown shape",
	} {
		if _, err := dataset.ImportIntrospection(dataset.File{Name: "f", Data: []byte(line)}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "f: line 1: ") {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	if _, err := dataset.ImportIntrospection(); err == nil || !strings.Contains(err.Error(), "there are no rows") {
		t.Errorf("no rows: %v", err)
	}
}

// FuzzImport: whatever the bytes, an import gives rows that can be written, or an error that names the package.
func FuzzImport(f *testing.F) {
	pair := dataset.Pair{Prompt: talk("user:q"), Chosen: talk("assistant:c"), Rejected: talk("assistant:r")}
	f.Add(encode(f, []dataset.Pair{pair, pair}))
	f.Add(encode(f, []dataset.Conversation{{Messages: talk("user:q", "assistant:a")}}))
	f.Add([]byte(`{"chosen":"\n\nHuman: a\n\nAssistant: b","rejected":"\n\nHuman: a\n\nAssistant: c"}`))
	f.Add([]byte(`{"prompt":"q","chosen":[{"from":"gpt","value":"c"}],"rejected":"r","system":"s"}`))
	f.Add([]byte(`{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"kind":"reflection"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var pairs []dataset.Pair
		var talks []dataset.Conversation
		var errs [2]error
		hostile.Bounds{Base: 64 << 20, PerByte: 4096}.Hold(t, len(data), func() {
			pairs, errs[0] = dataset.ImportPreferences(dataset.File{Name: "f", Data: data})
			talks, errs[1] = dataset.ImportIntrospection(dataset.File{Name: "f", Data: data})
		})
		for _, err := range errs {
			if err != nil && !strings.HasPrefix(err.Error(), "dataset: ") {
				t.Errorf("error %q does not name the package", err)
			}
		}
		if errs[0] == nil {
			again, err := dataset.ParsePreferenceJSONL(dataset.PreferenceJSONL(pairs))
			if err != nil || len(again) != len(pairs) {
				t.Errorf("%d imported pairs, written and read %d: %v", len(pairs), len(again), err)
			}
		}
		if errs[1] == nil {
			again, err := dataset.ParseIntrospectionJSONL(dataset.IntrospectionJSONL(talks))
			if err != nil || len(again) != len(talks) {
				t.Errorf("%d imported talks, written and read %d: %v", len(talks), len(again), err)
			}
		}
	})
}

// TestKindOfRows goes by columns alone.
func TestKindOfRows(t *testing.T) {
	pairs, err := dataset.EncodeParquet([]dataset.Pair{{ID: "a"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	talks, err := dataset.EncodeParquet([]dataset.Conversation{{ID: "a"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ data, kind, err string }{
		{string(pairs), "dpo", ""},
		{string(talks), "introspection", ""},
		{`{"prompt":"a","chosen":"b","rejected":"c"}`, "dpo", ""},
		{"\n\n" + `{"question":"a","chosen":"b","rejected":"c"}`, "dpo", ""},
		{`{"prompt":"a","reflection":"b"}`, "introspection", ""},
		{`{"messages":[]}`, "introspection", ""},
		{`{"prompt":"a","turns":[]}`, "introspection", ""},
		{`{"chosen":"b","rejected":"c","messages":[]}`, "", "say which with --kind"},
		{`{"text":"a","label":1}`, "", "its columns are label, text"},
		{"", "", "there are no rows"},
		{"[1]", "", "line 1: it is not a JSON object"},
		{"PAR1PAR1", "", "f.x: "},
	} {
		kind, err := dataset.KindOfRows(dataset.File{Name: "f.x", Data: []byte(c.data)})
		if kind != c.kind || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%.60q: %q, %v; want %q, %q", c.data, kind, err, c.kind, c.err)
		}
	}
}

func FuzzKindOfRows(f *testing.F) {
	f.Add([]byte(`{"prompt":"a","chosen":"b","rejected":"c"}`))
	if p, err := dataset.EncodeParquet([]dataset.Pair{{ID: "a"}}, nil); err == nil {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		kind, err := dataset.KindOfRows(dataset.File{Name: "f", Data: data})
		if (kind == "") == (err == nil) {
			t.Errorf("%q, %v", kind, err)
		}
	})
}
