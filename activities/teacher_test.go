//go:build !noserver

package activities

import (
	"net/http"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/testenv/teacher"
)

// TestTeacherEndpoint asks a real HTTP endpoint: prompts that it refuses are dropped under a reason of their own, and
// only a request that it takes from nobody ends the run, as do a wrong key and a missing one.
func TestTeacherEndpoint(t *testing.T) {
	fake := teacher.Start(t, teacher.Options{Answer: func(m []teacher.Message) string { return "Aye, " + m[len(m)-1].Content }})
	k := newKit(t, "teacher", "openai", "teacher_options.base_url", fake.URL, "teacher_options.model", "test-model", "teacher_options.key_env", "SOME_KEY",
		"teacher_options.concurrency", "1")
	set := do[PromptSet](k, k.data.MakePrompts, MakePromptsInput{Plan: k.plan, Kind: KindPreferences})
	in := ChunkInput{Plan: k.plan, Role: RoleTeacher, Prompts: set.Index, To: 6}
	keys := map[string]string{"SOME_KEY": fake.Key}
	asker := &Teacher{Store: k.store, Key: func(name string) string { return keys[name] }}
	if _, err := try[struct{}](k, asker.CheckTeacher, CheckTeacherInput{Plan: k.plan}, nil, nil); err != nil && !strings.Contains(err.Error(), "no data available") {
		t.Fatal(err)
	}
	fake.Then(teacher.Normal, teacher.Status(http.StatusBadRequest), teacher.Status(http.StatusInternalServerError))
	out := do[ChunkOutput](k, asker.AskTeacher, in)
	if out.Rows != 6 || out.Kept != 5 || out.Dropped[dropRefused] != 1 {
		t.Errorf("one refused prompt: %+v", out)
	}
	kept, err := keptAnswers(t.Context(), k.store, out.Chain)
	if err != nil || len(kept) != 5 {
		t.Errorf("%d answers are kept, %v", len(kept), err)
	}
	for _, text := range kept {
		if !strings.HasPrefix(text, "Aye, ") {
			t.Errorf("answer %q", text)
		}
	}
	for range 6 {
		fake.Then(teacher.Status(http.StatusUnprocessableEntity))
	}
	_, err = try[ChunkOutput](k, asker.AskTeacher, in, nil, nil)
	if kind, fatal := failure(err); !fatal || kind != BadInput || !strings.Contains(err.Error(), "all 6 prompts") {
		t.Errorf("all refused: %v", err)
	}
	for name, key := range map[string]string{"missing": "", "wrong": "sk-wrong"} {
		keys["SOME_KEY"] = key
		_, err = try[ChunkOutput](k, asker.AskTeacher, in, nil, nil)
		if kind, fatal := failure(err); !fatal || kind != BadInput || !strings.Contains(err.Error(), "environment variable") || strings.Contains(err.Error(), "sk-wrong") {
			t.Errorf("%s key: %v", name, err)
		}
	}
}
