package main_test

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

func get(t *testing.T, url, host string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		r.Host = host
	}
	a, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, string(b)
}

// TestLiveReport watches a run's page while it trains: counts and curves grow, and rows can be read, dropped ones too.
func TestLiveReport(t *testing.T) {
	m := newMachine(t)
	up := m.alone()
	address := regexp.MustCompile(`Live reports\s+(http://127\.0\.0\.1:\d+)`).FindStringSubmatch(up.output())
	if address == nil {
		t.Fatalf("no address in\n%s", up.output())
	}
	m.must(m.runArgs("watched", "--set", "dpo.segment_steps=1", "--set", "preferences.chunk=2", "--detach")...)
	page := address[1] + "/runs/watched"
	rows := func(query string) (a struct {
		Total, Matching int
		Reasons         []struct{ Reason string }
		Rows            []struct{ Prompt, Chosen, Rejected, Text, Drop string }
	}) {
		code, b := get(t, page+"/rows?"+query, "")
		if err := json.Unmarshal([]byte(b), &a); err != nil || code != http.StatusOK {
			t.Fatalf("%s: %d %s", query, code, b)
		}
		return a
	}
	m.waitFor("watched", "a pair", func(s runState) bool { return s.Stages[0].Kept >= 1 })
	if a := rows("kind=pairs&drop=kept"); a.Matching == 0 || a.Rows[0].Chosen == "" || a.Rows[0].Rejected == "" {
		t.Errorf("pairs of a stage that goes on: %+v", a)
	}
	m.waitFor("watched", "steps", func(s runState) bool { return s.Stages[1].Done >= 2 })
	_, one := get(t, page, "")
	m.waitFor("watched", "more steps", func(s runState) bool { return s.Stages[1].Done >= 4 || s.Stages[2].State != "pending" })
	_, two := get(t, page, "")
	for _, p := range []string{one, two} {
		if !strings.Contains(p, `aria-label="Loss"`) || !strings.Contains(p, `id="browse"`) {
			t.Errorf("no curve of the training under way, or no rows, on\n%.3000s", p)
		}
	}
	if one == two {
		t.Error("the page does not grow")
	}
	if code, _ := get(t, page, "evil.example"); code != http.StatusMisdirectedRequest {
		t.Errorf("a foreign host name is answered with %d", code)
	}
	m.waitFor("watched", "the end", func(s runState) bool { return s.State == "completed" })
	for _, kind := range []string{"pairs", "reflections", "interactions"} {
		kept, all := rows("kind="+kind+"&drop=kept"), rows("kind="+kind)
		want := map[string]int{"pairs": 24, "reflections": 16, "interactions": 3}[kind]
		if kept.Matching != want || all.Total < want || all.Total > want && len(all.Reasons) == 0 {
			t.Errorf("%s: %d kept of %d, reasons %v; want %d", kind, kept.Matching, all.Total, all.Reasons, want)
		}
	}
}
