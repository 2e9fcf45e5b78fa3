package live

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/workflows"
)

const (
	pageRows  = 25
	maxRows   = 200 // of one answer
	maxTables = 3   // in memory; 10,000 rows are some 40 MB
	maxQuery  = 1000
)

// tables keeps the rows that were read, newest use last.
type tables struct {
	mu   sync.Mutex
	list []*table
}

// table is one kind of rows of one run, with each row's text for searches.
type table struct {
	key string

	mu sync.Mutex
	activities.Table
	folded []string
	resets int
}

func (t *tables) get(key string) *table {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.list, func(x *table) bool { return x.key == key })
	x := &table{key: key}
	if i >= 0 {
		x = t.list[i]
		t.list = slices.Delete(t.list, i, i+1)
	}
	if t.list = append(t.list, x); len(t.list) > maxTables {
		t.list = slices.Delete(t.list, 0, 1)
	}
	return x
}

// Answer is a page of rows.
type Answer struct {
	Kind     string           `json:"kind"`
	Total    int              `json:"total"`
	Matching int              `json:"matching"`
	Page     int              `json:"page"` // from 0
	Size     int              `json:"size"`
	Reasons  []Reason         `json:"reasons"` // why rows were dropped, most first
	Rows     []activities.Row `json:"rows"`
}

// Reason is one reason to drop rows, and how many it dropped.
type Reason struct {
	Reason string `json:"reason"`
	Rows   int    `json:"rows"`
}

// question is what a reader wants to see.
type question struct {
	kind, drop, q string
	page, size    int
}

// parse reads a question. drop is "" (all), kept, dropped, or =REASON.
func parse(v url.Values) (question, error) {
	x := question{kind: v.Get("kind"), drop: v.Get("drop"), q: strings.ToLower(v.Get("q")), size: pageRows}
	if x.kind == "" {
		x.kind = activities.RowPairs
	}
	if !slices.Contains([]string{activities.RowPairs, activities.RowReflections, activities.RowInteractions}, x.kind) {
		return x, fmt.Errorf("kind %.40q is not known; want pairs, reflections or interactions", x.kind)
	}
	if d := x.drop; d != "" && d != "kept" && d != "dropped" && d[0] != '=' {
		return x, fmt.Errorf("drop %.40q is not known; want kept, dropped or =REASON", d)
	}
	if len(x.q) > maxQuery {
		return x, fmt.Errorf("q has %d bytes; the limit is %d", len(x.q), maxQuery)
	}
	for _, n := range []struct {
		name  string
		to    *int
		least int
		most  int
	}{{"page", &x.page, 0, 1 << 30}, {"size", &x.size, 1, maxRows}} {
		s := v.Get(n.name)
		if s == "" {
			continue
		}
		i, err := strconv.Atoi(s)
		if err != nil || i < n.least || i > n.most {
			return x, fmt.Errorf("%s is %.40q; want %d to %d", n.name, s, n.least, n.most)
		}
		*n.to = i
	}
	return x, nil
}

func (s *server) rows(w http.ResponseWriter, r *http.Request) {
	ask, err := parse(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	x, err := s.run(r.Context(), r.PathValue("id"))
	if err != nil {
		fail(w, err)
		return
	}
	st, runs, err := s.open(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	kind := activities.StageOf(ask.kind)
	var done *activities.Stage
	key := x.id + " " + ask.kind
	if d, ok := x.record.Stage(kind); ok {
		done = &d
		key += " " + d.Key
	}
	t := s.tables.get(key)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.Final() {
		var at activities.Rows
		if sp := x.stage(kind); sp != nil && sp.Workflow != "" && sp.State != workflows.Pending {
			// What does not answer now shows what was read before; a finished stage has its data set.
			at, _ = runs.Rows(r.Context(), sp.Workflow)
		}
		if err := t.Follow(r.Context(), st, ask.kind, at, done); err != nil {
			fail(w, err)
			return
		}
	}
	a := t.answer(ask)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a) // a reader who is gone reads nothing
}

// answer picks a page. A page beyond the last is the last.
func (t *table) answer(ask question) Answer {
	if t.resets != t.Resets {
		t.folded, t.resets = nil, t.Resets
	}
	for i := len(t.folded); i < len(t.Rows); i++ {
		t.folded = append(t.folded, t.Rows[i].Folded())
	}
	a := Answer{Kind: ask.kind, Total: len(t.Rows), Size: ask.size, Rows: []activities.Row{}, Reasons: []Reason{}}
	var hits []int
	reasons := map[string]int{}
	for i := range t.Rows {
		drop := t.Rows[i].Drop
		if drop != "" {
			reasons[drop]++
		}
		switch {
		case ask.drop == "kept" && drop != "", ask.drop == "dropped" && drop == "", strings.HasPrefix(ask.drop, "=") && drop != ask.drop[1:]:
		case ask.q != "" && !strings.Contains(t.folded[i], ask.q):
		default:
			hits = append(hits, i)
		}
	}
	for k, n := range reasons {
		a.Reasons = append(a.Reasons, Reason{k, n})
	}
	slices.SortFunc(a.Reasons, func(x, y Reason) int {
		if x.Rows != y.Rows {
			return y.Rows - x.Rows
		}
		return strings.Compare(x.Reason, y.Reason)
	})
	a.Matching = len(hits)
	a.Page = min(ask.page, max(0, (len(hits)-1)/ask.size))
	for _, i := range hits[min(a.Page*ask.size, len(hits)):min((a.Page+1)*ask.size, len(hits))] {
		a.Rows = append(a.Rows, t.Rows[i])
	}
	return a
}
