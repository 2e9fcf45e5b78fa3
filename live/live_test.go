//go:build !noserver

package live_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/live"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/s3server"
	"github.com/opencharacter/opencharacter/workflows"
)

// told is a run that says what the test says.
type told struct {
	progress workflows.Progress
	rows     activities.Rows
}

func (t *told) List(context.Context) ([]string, error) { return []string{t.progress.ID}, nil }

func (t *told) Progress(_ context.Context, id string) (workflows.Progress, error) {
	if id != t.progress.ID {
		return workflows.Progress{}, errors.New("workflow not found")
	}
	return t.progress, nil
}

func (t *told) Rows(context.Context, string) (activities.Rows, error) { return t.rows, nil }

// node is a chunk's node in a chain, as activities write it.
type node struct {
	Previous *store.Ref `json:"previous,omitempty"`
	Part     store.Ref  `json:"part"`
	From     int        `json:"from"`
	To       int        `json:"to"`
}

const evil = `<img src=x onerror="document.title='taken'"><script>alert(1)</script>`

// chunk appends rows to a chain.
func chunk(t testing.TB, s *store.Store, previous *store.Ref, rows []dataset.Response) *store.Ref {
	t.Helper()
	parts, err := dataset.WriteParts(t.Context(), s, "parts/test", rows)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(node{Previous: previous, Part: parts[0], To: len(rows)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Put(t.Context(), "parts/test", ".json", b)
	if err != nil {
		t.Fatal(err)
	}
	return &r
}

// grow appends n pairs from number from on: every fifth has a dropped chosen answer, every seventh a dropped rejected one.
func grow(t testing.TB, s *store.Store, r *activities.Rows, from, n int) {
	t.Helper()
	var chosen, rejected []dataset.Response
	for i := from; i < from+n; i++ {
		c := dataset.Response{ID: fmt.Sprintf("p-%05d", i), Prompt: fmt.Sprintf("Question %d?", i), Text: fmt.Sprintf("Aye, %d, says the captain of ship %d. %s", i, i%97, strings.Repeat("word ", 60)), Finish: "stop"}
		if i == 42 {
			c.Text = evil
		}
		if i%5 == 0 {
			c.Drop = "unfinished"
		}
		chosen = append(chosen, c)
		if c.Drop == "" {
			j := dataset.Response{ID: c.ID, Prompt: c.Prompt, Text: fmt.Sprintf("Plain answer %d. %s", i, strings.Repeat("word ", 60)), Finish: "stop"}
			if i%7 == 0 {
				j.Drop = "too_short"
			}
			rejected = append(rejected, j)
		}
	}
	r.Chosen, r.Rejected = chunk(t, s, r.Chosen, chosen), chunk(t, s, r.Rejected, rejected)
}

// site is a handler with a run named r.
func site(t testing.TB) (*told, *store.Store, http.Handler) {
	t.Helper()
	server := s3server.Shared(t)
	s, err := store.Open(t.Context(), store.Config{Endpoint: server.Endpoint, Bucket: "live", Prefix: strings.ToLower(t.Name()), AccessKey: server.AccessKey, SecretKey: server.SecretKey})
	if err != nil {
		t.Fatal(err)
	}
	runs := &told{progress: workflows.Progress{ID: "r", State: workflows.Running, Stages: []workflows.StageProgress{
		{Name: activities.KindPreferences, State: workflows.Running, Workflow: "r/preferences", Unit: "pairs", Done: 3, Total: 10, Step: "teacher answers " + evil},
		{Name: activities.KindDPO, State: workflows.Pending, Workflow: "r/dpo"}}}}
	return runs, s, live.Handler(live.Options{Open: func(context.Context) (*store.Store, live.Runs, error) { return s, runs, nil }, Page: func(id string) string { return "http://127.0.0.1:8233/" + id }})
}

func ask(t testing.TB, h http.Handler, host, path string, head ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://"+host+path, nil)
	for i := 0; i < len(head); i += 2 {
		r.Header.Set(head[i], head[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t testing.TB, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func rows(t testing.TB, h http.Handler, query string) live.Answer {
	t.Helper()
	r := ask(t, h, "127.0.0.1:8235", "/runs/r/rows?"+query)
	b := body(t, r)
	var a live.Answer
	if err := json.Unmarshal([]byte(b), &a); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s", query, r.StatusCode, b)
	}
	return a
}

// TestRows reads ten thousand rows of a stage that goes on: each is there once, in order, with the reason it was dropped
// for, and a search finds what it should.
func TestRows(t *testing.T) {
	runs, s, h := site(t)
	if a := rows(t, h, ""); a.Total != 0 || len(a.Rows) != 0 {
		t.Errorf("before the first chunk: %+v", a)
	}
	const n = 10000
	for from := 0; from < n; from += 1000 {
		grow(t, s, &runs.rows, from, 1000)
		if from == 3000 {
			if a := rows(t, h, ""); a.Total != 4000 {
				t.Errorf("after four chunks: %d rows", a.Total)
			}
		}
	}
	dropped := 0
	for i := range n {
		if i%5 == 0 || i%7 == 0 {
			dropped++
		}
	}
	seen := 0
	for page := 0; ; page++ {
		a := rows(t, h, fmt.Sprintf("kind=pairs&size=200&page=%d", page))
		if a.Total != n || a.Matching != n || a.Page != page {
			t.Fatalf("page %d: %+v", page, a)
		}
		for _, r := range a.Rows {
			if want := fmt.Sprintf("p-%05d", seen); r.ID != want {
				t.Fatalf("row %d is %s", seen, r.ID)
			}
			drop := ""
			if seen%5 == 0 {
				drop = "chosen: unfinished"
			} else if seen%7 == 0 {
				drop = "rejected: too_short"
			}
			if r.Drop != drop || (r.Rejected == "") != (seen%5 == 0) || seen != 42 && !strings.HasPrefix(r.Chosen, fmt.Sprintf("Aye, %d,", seen)) {
				t.Fatalf("row %+v", r)
			}
			seen++
		}
		if seen == n {
			break
		}
	}
	for _, c := range []struct {
		query string
		want  int
	}{
		{"drop=kept", n - dropped}, {"drop=dropped", dropped}, {"drop=" + url.QueryEscape("=chosen: unfinished"), n / 5},
		{"q=" + url.QueryEscape("QUESTION 4242?"), 1}, {"q=nowhere", 0}, {"q=" + url.QueryEscape("ship 96."), n/97 - 1 + 1}, {"kind=reflections", 0},
	} {
		if a := rows(t, h, c.query); a.Matching != c.want {
			t.Errorf("%s: %d rows, want %d", c.query, a.Matching, c.want)
		}
	}
	if a := rows(t, h, "page=99999"); len(a.Rows) == 0 || a.Rows[len(a.Rows)-1].ID != "p-09999" {
		t.Errorf("a page beyond the last: %+v", a.Page)
	}
	// Started again under the same id, with other rows.
	runs.rows = activities.Rows{}
	grow(t, s, &runs.rows, 100, 50)
	if a := rows(t, h, "q=captain"); a.Total != 50 || a.Matching != 50 || a.Rows[0].ID != "p-00100" {
		t.Errorf("a run that began again: %d rows, %d match", a.Total, a.Matching)
	}
}

// TestText: what a row or a step says is text, and nothing of another origin is read or run.
func TestText(t *testing.T) {
	runs, s, h := site(t)
	grow(t, s, &runs.rows, 0, 50)
	r := ask(t, h, "127.0.0.1:8235", "/runs/r")
	page := body(t, r)
	if r.StatusCode != http.StatusOK || strings.Contains(page, evil) || !strings.Contains(page, "&lt;img src=x") {
		t.Errorf("%d: the page must hold the step as text\n%s", r.StatusCode, page)
	}
	csp := r.Header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "script-src 'nonce-") || strings.Contains(csp, "script-src 'unsafe") {
		t.Errorf("policy %s", csp)
	}
	for _, outside := range []string{"src=\"http", "href=\"//", "@import", "url(http"} {
		if strings.Contains(page, outside) {
			t.Errorf("the page names something outside: %s", outside)
		}
	}
	a := ask(t, h, "127.0.0.1:8235", "/runs/r/rows?q=onerror")
	text := body(t, a)
	if a.Header.Get("Content-Type") != "application/json" || a.Header.Get("X-Content-Type-Options") != "nosniff" || bytes.Contains([]byte(text), []byte("<script")) {
		t.Errorf("rows are not plain data: %v\n%s", a.Header, text)
	}
	var got live.Answer
	if err := json.Unmarshal([]byte(text), &got); err != nil || len(got.Rows) != 1 || got.Rows[0].Chosen != evil {
		t.Errorf("%v: %s", err, text)
	}
}

func TestPageChangesWithTheRun(t *testing.T) {
	runs, _, h := site(t)
	r := ask(t, h, "localhost:8235", "/runs/r")
	tag := r.Header.Get("ETag")
	if b := body(t, r); !strings.Contains(b, "3 of 10") || tag == "" {
		t.Errorf("tag %s\n%s", tag, b)
	}
	if r := ask(t, h, "localhost:8235", "/runs/r", "If-None-Match", tag); r.StatusCode != http.StatusNotModified {
		t.Errorf("nothing has changed: %d", r.StatusCode)
	}
	runs.progress.Stages[0].Done = 4
	if r := ask(t, h, "localhost:8235", "/runs/r", "If-None-Match", tag); r.StatusCode != http.StatusOK || !strings.Contains(body(t, r), "4 of 10") {
		t.Errorf("after a change: %d", r.StatusCode)
	}
}

func TestRefusals(t *testing.T) {
	_, _, h := site(t)
	for _, c := range []struct {
		host, path string
		code       int
		want       string
	}{
		{"evil.example", "/", http.StatusMisdirectedRequest, "loopback"},
		{"127.0.0.1.evil.example:8235", "/runs/r", http.StatusMisdirectedRequest, "loopback"},
		{"192.0.2.1:8235", "/runs/r/rows", http.StatusMisdirectedRequest, "loopback"},
		{"[::1]:8235", "/", http.StatusOK, "/runs/r"},
		{"LOCALHOST", "/", http.StatusOK, "/runs/r"},
		{"127.0.0.1", "/runs/ghost", http.StatusNotFound, "no such run"},
		{"127.0.0.1", "/runs/a%2Fb", http.StatusNotFound, "no such run"},
		{"127.0.0.1", "/runs/r/rows?kind=secrets", http.StatusBadRequest, "kind"},
		{"127.0.0.1", "/runs/r/rows?page=-1", http.StatusBadRequest, "page"},
		{"127.0.0.1", "/runs/r/rows?size=100000", http.StatusBadRequest, "size"},
		{"127.0.0.1", "/runs/r/rows?drop=x", http.StatusBadRequest, "drop"},
		{"127.0.0.1", "/runs/r/rows?q=" + strings.Repeat("x", 2000), http.StatusBadRequest, "q has"},
		{"127.0.0.1", "/other", http.StatusNotFound, ""},
	} {
		r := ask(t, h, c.host, c.path)
		if b := body(t, r); r.StatusCode != c.code || !strings.Contains(b, c.want) {
			t.Errorf("%s%s: %d %s, want %d %q", c.host, c.path, r.StatusCode, b, c.code, c.want)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "http://127.0.0.1/runs/r", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

// BenchmarkRows answers a page of 10,000 rows: a search that matches few, which looks at them all.
func BenchmarkRows(b *testing.B) {
	runs, s, h := site(b)
	for from := 0; from < 10000; from += 1000 {
		grow(b, s, &runs.rows, from, 1000)
	}
	rows(b, h, "")
	for b.Loop() {
		rows(b, h, "drop=kept&q="+url.QueryEscape("ship 96."))
	}
}
