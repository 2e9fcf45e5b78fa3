package live

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/report"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workflows"
)

// maxPages is how many runs' gathered records are kept.
const maxPages = 4

// pages keeps what was gathered from records, which change only at the end of a stage.
type pages struct {
	mu   sync.Mutex
	keys []string
	data []report.Data
}

func (p *pages) get(key string) (report.Data, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.keys, key); i >= 0 {
		return p.data[i], true
	}
	return report.Data{}, false
}

func (p *pages) put(key string, d report.Data) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.keys) == maxPages {
		p.keys, p.data = p.keys[1:], p.data[1:]
	}
	p.keys, p.data = append(p.keys, key), append(p.data, d)
}

func (s *server) page(w http.ResponseWriter, r *http.Request) {
	x, err := s.run(r.Context(), r.PathValue("id"))
	if err != nil {
		fail(w, err)
		return
	}
	d, err := s.gather(r.Context(), x)
	if err != nil {
		fail(w, err)
		return
	}
	if u := s.o.Page(x.id); u != "" {
		d.Links = append(slices.Clone(d.Links), report.Link{Text: "Temporal UI", URL: u})
	}
	tag := `"` + hash(d) + `"`
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag { // nothing is drawn that was drawn already
		w.WriteHeader(http.StatusNotModified)
		return
	}
	l := report.Live{Base: "/runs/" + url.PathEscape(x.id), Nonce: nonce()}
	var b bytes.Buffer
	if err := report.RenderLive(&b, d, l); err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'nonce-"+l.Nonce+"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	_, _ = w.Write(b.Bytes()) // a reader who is gone reads nothing
}

// hash names what a page shows.
func hash(v any) string {
	b, err := json.Marshal(v)
	if err != nil { // a value that is not finite: every page is new
		return nonce()
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}

// gather is the recorded run with what it says of itself now.
func (s *server) gather(ctx context.Context, x run) (report.Data, error) {
	st, runs, err := s.open(ctx)
	if err != nil {
		return report.Data{}, err
	}
	d := report.Data{ID: x.id, Name: x.id, State: "starting"}
	if x.recorded {
		key := x.id + " " + hash(x.record)
		have, ok := s.pages.get(key)
		if !ok {
			if have, err = activities.ReportData(ctx, st, x.record, x.plan); err != nil {
				return d, err
			}
			s.pages.put(key, have)
		}
		d = have
	}
	if x.progress == nil {
		return d, nil
	}
	p := x.progress
	d.State, d.Warnings, d.Stages = p.State, nil, slices.Clone(d.Stages)
	if p.Error != "" {
		d.State += ": " + p.Error
	}
	for i := range p.Stages {
		sp := &p.Stages[i]
		d.Warnings = append(d.Warnings, sp.Warnings...)
		n := report.Stage{Name: sp.Name, State: sp.State, Done: sp.Done, Total: sp.Total, Kept: sp.Kept, Dropped: sp.Dropped, Note: sp.Step}
		if j := slices.IndexFunc(d.Stages, func(o report.Stage) bool { return o.Name == sp.Name }); j >= 0 {
			n.Seconds = d.Stages[j].Seconds
			d.Stages[j] = n
		} else {
			d.Stages = append(d.Stages, n)
		}
		if err := curves(ctx, st, runs, &d, sp); err != nil {
			return d, err
		}
	}
	return d, nil
}

// curves adds the points of a training under way.
func curves(ctx context.Context, st *store.Store, runs Runs, d *report.Data, sp *workflows.StageProgress) error {
	to := map[string]*map[string][]report.Point{activities.KindDPO: &d.DPO, activities.KindSFT: &d.SFT}[sp.Name]
	if to == nil || sp.State == workflows.Pending || sp.Workflow == "" || len(*to) > 0 {
		return nil
	}
	at, err := runs.Rows(ctx, sp.Workflow)
	if err != nil || at.Training == "" {
		return nil // it does not answer now, or has not begun; the next page may have it
	}
	points, step, err := activities.LiveCurves(ctx, st, at.Training, sp.Workflow)
	if err != nil {
		return err
	}
	*to = points
	if j := slices.IndexFunc(d.Stages, func(o report.Stage) bool { return strings.EqualFold(o.Name, sp.Name) }); j >= 0 && step > d.Stages[j].Done {
		d.Stages[j].Done = step
	}
	return nil
}
