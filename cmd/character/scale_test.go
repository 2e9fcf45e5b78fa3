package main_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

const (
	mostEvents = 2000
	mostBytes  = 10_000
)

// TestHistoryBudget looks at every history of a tiny run. With CHARACTER_SCALE=paper it is a run of the tutorial's
// counts (1,500 pairs, 12,000 introspection rows), which takes many minutes.
func TestHistoryBudget(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.startUntil([]string{"up"}, func(line string) bool { return strings.Contains(line, "Temporal UI") })
	args := m.runArgs("tiny")
	if os.Getenv("CHARACTER_SCALE") == "paper" {
		for _, s := range []string{"preferences.pairs=1500", "preferences.max_candidates=20000", "preferences.repeats=200", "preferences.chunk=64", "dpo.epochs=1", "dpo.batch_size=32", "dpo.segment_steps=2",
			"introspection.reflections=10000", "introspection.interactions=2000", "introspection.chunk=32", "sft.epochs=1", "sft.batch_size=32", "sft.segment_steps=1"} {
			args = append(args, "--set", s)
		}
	}
	m.must(args...)
	for _, id := range []string{"tiny", "tiny/preferences", "tiny/dpo", "tiny/introspection", "tiny/sft", "tiny/evaluation"} {
		events, largest := m.histories(id)
		t.Logf("%-20s events %v, largest payload %d bytes", id, events, largest)
		if slices.Max(events) >= mostEvents || largest >= mostBytes {
			t.Errorf("%s: events %v, largest payload %d bytes; want under %d and %d", id, events, largest, mostEvents, mostBytes)
		}
	}
}

// histories counts the events of each of a workflow's histories, the first at the front, and finds its largest payload.
func (m *machine) histories(id string) (events []int, largest int) {
	m.t.Helper()
	for run := ""; ; {
		var h struct {
			Events []map[string]json.RawMessage `json:"events"`
		}
		args := []string{"_history", id}
		if run != "" {
			args = append(args, run)
		}
		if err := json.Unmarshal([]byte(m.must(args...)), &h); err != nil {
			m.t.Fatal(err)
		}
		events = slices.Insert(events, 0, len(h.Events))
		for _, e := range h.Events {
			for _, raw := range e {
				largest = max(largest, payloads(m.t, raw))
			}
		}
		var start struct {
			ContinuedExecutionRunID string `json:"continuedExecutionRunId"`
		}
		if err := json.Unmarshal(h.Events[0]["workflowExecutionStartedEventAttributes"], &start); err != nil {
			m.t.Fatal(err)
		}
		if run = start.ContinuedExecutionRunID; run == "" {
			return events, largest
		}
	}
}

// payloads is the size of the largest payload within an event.
func payloads(t *testing.T, raw json.RawMessage) int {
	t.Helper()
	most := 0
	var list []json.RawMessage
	var object map[string]json.RawMessage
	switch {
	case json.Unmarshal(raw, &list) == nil:
		for _, x := range list {
			most = max(most, payloads(t, x))
		}
	case json.Unmarshal(raw, &object) == nil:
		if _, ok := object["metadata"]; ok && object["data"] != nil {
			var b64 string
			if err := json.Unmarshal(object["data"], &b64); err != nil {
				t.Fatal(err)
			}
			b, err := base64.StdEncoding.DecodeString(b64)
			if err != nil {
				t.Fatal(err)
			}
			return len(b)
		}
		for _, x := range object {
			most = max(most, payloads(t, x))
		}
	}
	return most
}
