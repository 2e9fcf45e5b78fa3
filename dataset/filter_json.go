package dataset

import (
	"encoding/json"
	"strings"
)

// answerKeys are the names under which models put their answer when they wrap it in JSON.
var answerKeys = []string{"response", "answer", "content", "reply", "text", "output", "message", "reflection"}

// unwrapJSON takes the answer out of a text that is nothing but a JSON object. ok is false when it is JSON, or begins as such, and holds no answer
// that could be told. Text that only contains JSON is left as it is.
func unwrapJSON(text string) (answer string, ok bool) {
	body := text
	if inner, found := strings.CutPrefix(body, "```"); found {
		inner, closed := strings.CutSuffix(inner, "```")
		inner = strings.TrimPrefix(inner, "json")
		if !closed || strings.Contains(inner, "```") {
			return text, true // text with code in it
		}
		body = strings.TrimSpace(inner)
	}
	if !strings.HasPrefix(body, "{") && !strings.HasPrefix(body, "[{") && !strings.HasPrefix(body, `["`) {
		return text, true
	}
	if body[0] == '[' {
		if json.Valid([]byte(body)) {
			return text, false
		}
		return text, true
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(body), &object); err != nil {
		// {"response": "... that never closes, or has a stray quote: what was meant can not be told.
		after := strings.TrimSpace(body[1:])
		return text, !strings.HasPrefix(after, `"`)
	}
	for _, key := range answerKeys {
		if s, found := object[key].(string); found {
			return strings.TrimSpace(s), true
		}
	}
	if len(object) == 1 {
		for _, v := range object {
			if s, found := v.(string); found {
				return strings.TrimSpace(s), true
			}
		}
	}
	return text, false
}
