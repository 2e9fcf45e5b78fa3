package serve_test

import (
	"sync"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/serve"
)

// TestAnswered: the tokens that are told of are those of the answers' own usage, whole and streamed.
func TestAnswered(t *testing.T) {
	var mu sync.Mutex
	told := map[string][3]int{} // requests, prompt, completion
	s := start(t, func(o *serve.Options) {
		o.Answered = func(model string, prompt, completion int) {
			mu.Lock()
			defer mu.Unlock()
			n := told[model]
			told[model] = [3]int{n[0] + 1, n[1] + prompt, n[2] + completion}
		}
	})
	body := object{"model": "base", "messages": user("Hello!"), "seed": 7, "max_tokens": 8, "n": 2}
	_, _, got := s.post("/v1/chat/completions", body)
	usage := func(name string) int { n, _ := at(got, "usage", name).(float64); return int(n) }
	body["stream"], body["model"] = true, "character"
	s.events("/v1/chat/completions", body)
	if status, _, _ := s.post("/v1/chat/completions", object{"model": "none", "messages": user("Hello!")}); status != 404 {
		t.Errorf("status %d", status)
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) { // it is told when the handler ends
		mu.Lock()
		n := len(told)
		mu.Unlock()
		if n == 2 {
			break
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if want := [3]int{1, usage("prompt_tokens"), usage("completion_tokens")}; told["base"] != want || want[2] == 0 {
		t.Errorf("base: %v, want %v", told["base"], want)
	}
	if c := told["character"]; c[0] != 1 || c[1] != usage("prompt_tokens") || c[2] == 0 || len(told) != 2 {
		t.Errorf("%v", told)
	}
}
