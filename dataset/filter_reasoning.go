package dataset

import "strings"

// cutReasoning returns what follows the LAST </think>: some models answer, reason again and answer again, and only the last answer is meant.
// open is true when a reasoning block was begun and never ended.
func cutReasoning(text string) (answer string, open bool) {
	end := -1
	for _, tag := range []string{"</think>", "</thinking>"} {
		if i := strings.LastIndex(text, tag); i >= 0 {
			end = max(end, i+len(tag))
		}
	}
	if end >= 0 {
		text = text[end:]
	}
	for _, tag := range []string{"<think>", "<thinking>"} {
		open = open || strings.Contains(text, tag)
	}
	return strings.TrimSpace(text), open
}
