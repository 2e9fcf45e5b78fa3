//go:build !noserver

package compose_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/goccy/go-yaml"

	"github.com/opencharacter/opencharacter/metrics"
	"github.com/opencharacter/opencharacter/testenv/scrape"
)

const deploy = "../../deploy"

// query is an expression of Prometheus, and where it stands.
type query struct{ where, expr string }

// queries are those of the dashboard and of the alert rules.
func queries(t *testing.T) []query {
	t.Helper()
	var out []query
	b, err := os.ReadFile(deploy + "/grafana/dashboards/character.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		UID, Title string
		Panels     []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ H, W, X, Y int }
			Targets []struct{ Expr, RefID, LegendFormat string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal(b, &board); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range board.Panels {
		if seen[p.ID] || p.Title == "" || p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q: %+v", p.ID, p.Title, p.GridPos)
		}
		seen[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, x := range p.Targets {
			out = append(out, query{"panel " + p.Title, x.Expr})
			for _, l := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(x.LegendFormat, -1) {
				if l[1] != "instance" && !strings.Contains(x.Expr, l[1]) && !slices.ContainsFunc(metrics.Definitions(), func(d metrics.Definition) bool {
					return strings.Contains(x.Expr, d.Name) && slices.Contains(d.Labels, l[1])
				}) {
					t.Errorf("panel %q: its legend has %s, which is no label of %s", p.Title, l[1], x.Expr)
				}
			}
		}
	}
	for _, v := range board.Templating.List {
		if v.Definition != "" {
			out = append(out, query{"variable " + v.Name, v.Definition})
		}
	}
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if b, err = os.ReadFile(deploy + "/prometheus/alerts.yml"); err == nil {
		err = yaml.UnmarshalWithOptions(b, &rules, yaml.Strict())
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || r.For == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["todo"] == "" {
				t.Errorf("rule %+v is not whole", r)
			}
			out = append(out, query{"alert " + r.Alert, r.Expr})
		}
	}
	if len(out) < 50 {
		t.Errorf("%d queries: the form of the files has changed, and this test does not read it any more", len(out))
	}
	return out
}

var (
	named = regexp.MustCompile(`\b(?:character|temporal|go|process)_[a-z0-9_]+\b`)
	part  = regexp.MustCompile(`_(bucket|count|sum)$`)
	label = regexp.MustCompile(`([a-z_]+)(?:=~|!~|!=|=)"`)
	by    = regexp.MustCompile(`\bby \(([^)]*)\)`)
)

// TestQueries: every metric of dashboard and rules is one that the program shows, with the labels that they use.
func TestQueries(t *testing.T) {
	t.Parallel()
	known := map[string][]string{}
	for _, d := range metrics.Definitions() {
		if d.Kind != "histogram" {
			known[d.Name] = d.Labels
			continue
		}
		for _, s := range []string{"_bucket", "_count", "_sum"} {
			known[d.Name+s] = append([]string{"le"}, d.Labels...)
		}
	}
	// What the Go runtime and the process give is there at once; the SDK's are made by its use.
	s := metrics.New(metrics.Build{})
	w := httptest.NewRecorder()
	s.Handler(&metrics.Health{}, true).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost/metrics", nil))
	m, err := scrape.Parse(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	for name := range m {
		if known[name] == nil {
			known[name] = []string{}
		}
	}
	// TestMetrics of cmd/character finds these two in what a worker shows.
	known["temporal_worker_task_slots_used"] = []string{"worker_type", "task_queue", "namespace"}
	known["temporal_request_failure_total"] = []string{"operation", "namespace"}
	used := map[string]bool{}
	for _, q := range queries(t) {
		names := named.FindAllString(q.expr, -1)
		if len(names) == 0 && !strings.Contains(q.expr, "up{") {
			t.Errorf("%s: %s names no metric of ours", q.where, q.expr)
		}
		allowed := []string{"instance", "job"}
		for _, n := range names {
			labels, ok := known[n]
			if !ok {
				t.Errorf("%s: nobody shows %s", q.where, n)
			}
			allowed = append(allowed, labels...)
			used[part.ReplaceAllString(n, "")] = true
		}
		var labels []string
		for _, x := range label.FindAllStringSubmatch(q.expr, -1) {
			labels = append(labels, x[1])
		}
		for _, x := range by.FindAllStringSubmatch(q.expr, -1) {
			for l := range strings.SplitSeq(x[1], ",") {
				labels = append(labels, strings.TrimSpace(l))
			}
		}
		for _, l := range labels {
			if !slices.Contains(allowed, l) {
				t.Errorf("%s: %s has no label %s", q.where, q.expr, l)
			}
		}
		if err := balanced(q.expr); err != nil {
			t.Errorf("%s: %s: %v", q.where, q.expr, err)
		}
	}
	for _, d := range metrics.Definitions() {
		if !used[d.Name] {
			t.Errorf("%s is on no panel and in no rule", d.Name)
		}
	}
}

// balanced finds brackets that do not fit; no more of Prometheus's language is known here.
func balanced(expr string) error {
	closes := map[rune]rune{')': '(', ']': '[', '}': '{'}
	var open []rune
	for _, c := range expr {
		switch c {
		case '(', '[', '{':
			open = append(open, c)
		case ')', ']', '}':
			if len(open) == 0 || open[len(open)-1] != closes[c] {
				return fmt.Errorf("a %c too many", c)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		return fmt.Errorf("%c is not closed", open[len(open)-1])
	}
	return nil
}

// TestReference: docs/production.md describes every metric as the program does, and no other.
func TestReference(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/production.md")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, d := range metrics.Definitions() {
		want = append(want, fmt.Sprintf("| `%s` | %s | %s | %s |", d.Name, d.Kind, strings.Join(d.Labels, ", "), d.Help))
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "| `character_") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("line %d of the table of metrics:\n%q\nwant\n%q", i+1, append(got, "nothing")[min(i, len(got))], append(want, "nothing")[min(i, len(want))])
		}
	}
}

// TestProvisioning: what Prometheus and Grafana are given by Compose is what their own files speak of.
func TestProvisioning(t *testing.T) {
	t.Parallel()
	p := project(t)
	at := func(service, target string) []byte {
		t.Helper()
		s := p.Services[service]
		i := slices.IndexFunc(s.Configs, func(c types.ServiceConfigObjConfig) bool { return c.Target == target })
		if i < 0 {
			t.Fatalf("%s has nothing at %s", service, target)
		}
		b, err := os.ReadFile(p.Configs[s.Configs[i].Source].File)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var prometheus struct {
		Global        map[string]string
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName string `yaml:"job_name"`
			DNS     []struct {
				Names           []string
				Type            string
				Port            int
				RefreshInterval string `yaml:"refresh_interval"`
			} `yaml:"dns_sd_configs"`
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.UnmarshalWithOptions(at("prometheus", "/etc/prometheus/prometheus.yml"), &prometheus, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	for _, f := range prometheus.RuleFiles {
		at("prometheus", f)
	}
	var scraped []string
	for _, c := range prometheus.ScrapeConfigs {
		for _, d := range c.DNS {
			for _, name := range d.Names {
				if s := p.Services[name]; !slices.Contains(s.Expose, fmt.Sprint(d.Port)) || c.JobName != "character" {
					t.Errorf("job %s: %s:%d is not shown (%v)", c.JobName, name, d.Port, s.Expose)
				}
				scraped = append(scraped, name)
			}
		}
		for _, s := range c.Static {
			for _, target := range s.Targets {
				if name, port, _ := strings.Cut(target, ":"); name == "temporal" && *p.Services[name].Environment["PROMETHEUS_ENDPOINT"] != "0.0.0.0:"+port {
					t.Errorf("Temporal does not show its metrics on %s", target)
				} else if name != "temporal" && name != "127.0.0.1" {
					t.Errorf("target %s is nobody", target)
				}
			}
		}
	}
	if !slices.Equal(scraped, []string{"control", "teacher", "engine"}) {
		t.Errorf("scraped: %v", scraped)
	}
	var source struct {
		Datasources []struct{ UID, URL string }
	}
	if err := yaml.Unmarshal(at("grafana", "/etc/grafana/provisioning/datasources/prometheus.yml"), &source); err != nil || len(source.Datasources) != 1 || source.Datasources[0].URL != "http://prometheus:9090" {
		t.Errorf("data source %+v, %v", source, err)
	}
	var provider struct {
		Providers []struct{ Options struct{ Path string } }
	}
	if err := yaml.Unmarshal(at("grafana", "/etc/grafana/provisioning/dashboards/character.yml"), &provider); err != nil || len(provider.Providers) != 1 {
		t.Fatalf("provider %+v, %v", provider, err)
	}
	if b := at("grafana", filepath.Join(provider.Providers[0].Options.Path, "character.json")); !strings.Contains(string(b), `"uid": "opencharacter"`) {
		t.Error("the dashboard is not where its provider looks")
	}
}
