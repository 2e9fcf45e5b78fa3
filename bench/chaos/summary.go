package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/opencharacter/opencharacter/testenv/chaos"
)

// summary counts rounds.
type summary struct {
	rounds   int
	outcomes map[string]int
	kinds    map[string]*cost
	layouts  map[string]int
	network  map[string]int
	all      cost
}

// cost is what faults of one kind cost.
type cost struct {
	hits, missed  int
	back          []float64
	redone        []float64
	redoneSeconds []float64
}

func newSummary() *summary {
	return &summary{outcomes: map[string]int{}, kinds: map[string]*cost{}, layouts: map[string]int{}, network: map[string]int{}}
}

func (s *summary) bad() int { return s.rounds - s.outcomes[chaos.Same] }

// add counts a round, prints its line and logs it.
func (s *summary) add(res chaos.Result, log *os.File) error {
	s.rounds++
	s.outcomes[res.Outcome]++
	s.layouts[res.Layout]++
	for k, n := range res.Network {
		s.network[k] += n
	}
	var parts []string
	for _, h := range res.Hits {
		k := s.kinds[h.Kind]
		if k == nil {
			k = &cost{}
			s.kinds[h.Kind] = k
		}
		for _, c := range []*cost{k, &s.all} {
			c.add(h)
		}
		text := fmt.Sprintf("%s at %.1f s in %s", h.Kind, h.At, h.Stage)
		switch {
		case h.Missed != "":
			text = fmt.Sprintf("%s missed (%s)", h.Kind, h.Missed)
		case h.Back > 0:
			text += fmt.Sprintf(" (back %.1f s, redone %d)", h.Back, h.Redone)
		}
		parts = append(parts, text)
	}
	fmt.Printf("%s seed %d %s: %s, %.1f s: %s\n", clock(), res.Seed, res.Layout, res.Outcome, res.Seconds, strings.Join(parts, "; "))
	if res.Outcome != chaos.Same {
		fmt.Printf("    %s\n    kept in %s\n", strings.ReplaceAll(res.Detail, "\n", "\n    "), res.Dir)
	}
	return line(log, res)
}

func (c *cost) add(h chaos.Hit) {
	if h.Missed != "" {
		c.missed++
		return
	}
	c.hits++
	if h.Back > 0 {
		c.back = append(c.back, h.Back)
	}
	c.redone, c.redoneSeconds = append(c.redone, float64(h.Redone)), append(c.redoneSeconds, h.RedoneSeconds)
}

// String is the summary of all rounds.
func (s *summary) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d rounds:", s.rounds)
	for _, k := range slices.Sorted(maps.Keys(s.outcomes)) {
		fmt.Fprintf(&b, " %d %s", s.outcomes[k], k)
	}
	fmt.Fprintf(&b, "; layouts:")
	for _, k := range slices.Sorted(maps.Keys(s.layouts)) {
		fmt.Fprintf(&b, " %d %s", s.layouts[k], k)
	}
	fmt.Fprintf(&b, "\n\n%-14s %5s %6s   %-22s %-18s %s\n", "fault", "hits", "missed", "first work after, s", "redone, units", "redone, s")
	fmt.Fprintf(&b, "%-14s %5s %6s   %-22s %-18s %s\n", "", "", "", "median / max", "median / max", "median / max")
	for _, k := range slices.Sorted(maps.Keys(s.kinds)) {
		s.kinds[k].write(&b, k)
	}
	s.all.write(&b, "all")
	if len(s.network) > 0 {
		fmt.Fprintf(&b, "\nfaults of the network:")
		for _, k := range slices.Sorted(maps.Keys(s.network)) {
			fmt.Fprintf(&b, " %d %s", s.network[k], k)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (c *cost) write(b *strings.Builder, name string) {
	fmt.Fprintf(b, "%-14s %5d %6d   %6.1f / %-13.1f %6.0f / %-9.0f %6.1f / %.1f\n", name, c.hits, c.missed,
		median(c.back), most(c.back), median(c.redone), most(c.redone), median(c.redoneSeconds), most(c.redoneSeconds))
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func most(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	return slices.Max(v)
}
