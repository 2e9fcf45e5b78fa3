// Package scrape reads metrics as Prometheus does, for tests that compare them with what was done.
package scrape

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Metrics are those of one scrape, by name.
type Metrics map[string]*dto.MetricFamily

// Get scrapes a URL.
func Get(ctx context.Context, url string) (Metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("scrape %s: %s", url, resp.Status)
	}
	return Parse(resp.Body)
}

// Parse reads the text form.
func Parse(r io.Reader) (Metrics, error) {
	var p expfmt.TextParser
	m, err := p.TextToMetricFamilies(r)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	return m, nil
}

// Sum adds the values of a counter or gauge, or the counts of a histogram, over all series that have these labels, each
// written name=value. ok is false where there is no such series.
func (m Metrics) Sum(name string, labels ...string) (sum float64, ok bool) {
	f := m[name]
	if f == nil {
		return 0, false
	}
	for _, x := range f.Metric {
		if !has(x, labels) {
			continue
		}
		ok = true
		switch {
		case x.Counter != nil:
			sum += x.Counter.GetValue()
		case x.Gauge != nil:
			sum += x.Gauge.GetValue()
		case x.Histogram != nil:
			sum += float64(x.Histogram.GetSampleCount())
		case x.Untyped != nil:
			sum += x.Untyped.GetValue()
		}
	}
	return sum, ok
}

func has(x *dto.Metric, labels []string) bool {
	return !slices.ContainsFunc(labels, func(want string) bool {
		return !slices.ContainsFunc(x.Label, func(l *dto.LabelPair) bool { return l.GetName()+"="+l.GetValue() == want })
	})
}

// Labels lists every label value of the metrics whose name begins with prefix, as name=value, sorted.
func (m Metrics) Labels(prefix string) []string {
	seen := map[string]bool{}
	for name, f := range m {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		for _, x := range f.Metric {
			for _, l := range x.Label {
				seen[l.GetName()+"="+l.GetValue()] = true
			}
		}
	}
	out := make([]string, 0, len(seen))
	for l := range seen {
		out = append(out, l)
	}
	slices.Sort(out)
	return out
}
