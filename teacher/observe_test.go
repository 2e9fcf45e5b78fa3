package teacher_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/teacher"
	fake "github.com/opencharacter/opencharacter/testenv/teacher"
)

// TestObserve: every attempt is told of, with what came of it; the tokens are those of the answers.
func TestObserve(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		script []fake.Behaviour
		want   []string
	}{
		"good":       {nil, []string{"ok"}},
		"throttled":  {[]fake.Behaviour{fake.TooMany("0.01")}, []string{"throttled", "ok"}},
		"server":     {[]fake.Behaviour{fake.Status(500), fake.Status(503)}, []string{"server_error", "server_error", "ok"}},
		"refused":    {[]fake.Behaviour{fake.Status(400)}, []string{"refused"}},
		"cut":        {[]fake.Behaviour{fake.Truncated}, []string{"network", "ok"}},
		"unreadable": {[]fake.Behaviour{fake.HalfJSON, fake.EmptyChoices}, []string{"unreadable", "unreadable", "ok"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var got []string
			prompt, completion := 0, 0
			c := client(t, fake.Start(t, fake.Options{Script: tc.script}), func(o *teacher.Options) {
				o.Observe = func(a teacher.Attempt) {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, a.Outcome)
					prompt, completion = prompt+a.PromptTokens, completion+a.CompletionTokens
					if a.Took <= 0 || a.Took > time.Minute {
						t.Errorf("it took %v", a.Took)
					}
				}
			})
			a, _ := ask(t, c)
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(got, tc.want) || prompt != a.PromptTokens || completion != a.CompletionTokens {
				t.Errorf("%v with %d and %d tokens, want %v with %d and %d", got, prompt, completion, tc.want, a.PromptTokens, a.CompletionTokens)
			}
		})
	}
}
