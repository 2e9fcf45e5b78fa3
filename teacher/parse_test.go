package teacher

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/testenv/hostile"
)

func TestStripKeepAlive(t *testing.T) {
	for in, want := range map[string]string{
		"{}":                            "{}",
		"\n\n: keep-alive\n\n{}":        "{}",
		": keep-alive\r\n\r\n{\n}\n":    "{\n}",
		"{}\n: keep-alive\n\n":          "{}",
		": keep-alive":                  "",
		"":                              "",
		"{\"a\":\n\": not a comment\"}": "{\"a\":\n\": not a comment\"}",
	} {
		if got := string(stripKeepAlive([]byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, " 1.5 ": 1500 * time.Millisecond, "-3": 0, "NaN": 0, "soon": 0, "1e300": 24 * time.Hour,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
	} {
		if got := retryAfter(in, now); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestParseModels(t *testing.T) {
	for in, want := range map[string]int{`{"data":[{"id":"a"},{"id":"b"}]}`: 2, `[{"id":"a"}]`: 1, `{"data":[]}`: 0, `{"data":null}`: 0} {
		if ids, err := parseModels([]byte(in)); err != nil || len(ids) != want {
			t.Errorf("%s: %v, %v", in, ids, err)
		}
	}
	for _, in := range []string{`{"data":"x"}`, `3`, `"x"`} {
		if _, err := parseModels([]byte(in)); err == nil {
			t.Errorf("%s was accepted", in)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"choices":[{"message":{"content":"x","reasoning_content":"y"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`))
	f.Add([]byte(`{"choices":[]}`))
	f.Add([]byte(`{"choices":[{"message":{"content":null,"refusal":"no"},"finish_reason":null}]}`))
	f.Add([]byte(`{"error":{"message":"m","code":401}}`))
	f.Add([]byte(`{"data":[{"id":"a"}]}`))
	f.Add([]byte(": keep-alive\n\n[{\"id\":\"a\"}]\n: x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var body []byte
		// A line of colons is looked at again for each line of its end.
		hostile.Bounds{}.Hold(t, len(data), func() { body = stripKeepAlive(data) })
		if json.Valid(bytes.TrimSpace(data)) && !json.Valid(body) {
			t.Errorf("stripping broke %q: %q", data, body)
		}
		if r, err := parseCompletion(body); err == nil && (r.PromptTokens < 0 || r.CompletionTokens < 0) {
			t.Errorf("%+v", r)
		}
		_, _ = parseModels(body)
		e := statusError(500, http.Header{"Retry-After": {string(data)}}, data, time.Unix(0, 0))
		if e.RetryAfter < 0 || e.RetryAfter > 24*time.Hour || e.Error() == "" {
			t.Errorf("%+v", e)
		}
	})
}
