package workflows

import (
	"fmt"
	"strings"
)

// table is a Markdown table of stages, as the Temporal UI's page shows it.
func table(stages []StageProgress) string {
	var b strings.Builder
	b.WriteString("| stage | state | done | kept | dropped | values |\n|---|---|---|---|---|---|\n")
	for _, s := range stages {
		done := ""
		if s.Total > 0 {
			done = fmt.Sprintf("%d of %d %s", s.Done, s.Total, s.Unit)
		}
		state := s.State
		if s.Step != "" {
			state += ": " + s.Step
		}
		var drops []string
		for _, d := range sorted(s.Dropped) {
			drops = append(drops, fmt.Sprintf("%s %d", d.name, d.n))
		}
		var vals []string
		for _, k := range []string{"loss", "accuracy", "margin", "perplexity", "gain_dpo", "gain_character", "index_dpo", "index_character"} {
			if v, ok := s.Values[k]; ok {
				vals = append(vals, fmt.Sprintf("%s %.3f", strings.ReplaceAll(k, "_", " "), v))
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %s | %s |\n", s.Name, state, done, s.Kept, strings.Join(drops, ", "), strings.Join(vals, ", "))
	}
	return b.String()
}

func warningList(w []string) string {
	if len(w) == 0 {
		return ""
	}
	return "\n**Warnings**\n\n- " + strings.Join(w, "\n- ") + "\n"
}

// warnings computes what chapter 14 of the tutorial tells a person to look for.
func warnings(s StageProgress) []string {
	var out []string
	say := func(f string, a ...any) { out = append(out, s.Name+": "+fmt.Sprintf(f, a...)) }
	var dropped, top int64
	reason := ""
	for _, d := range sorted(s.Dropped) {
		dropped += d.n
		if d.n > top {
			top, reason = d.n, d.name
		}
	}
	if s.State == Completed && s.counts() && s.Kept < s.Total {
		say("%d of %d %s: the prompts were used up before the target was met; raise oversample, max_candidates, max_tokens or the filter's limits", s.Kept, s.Total, s.Unit)
	}
	if n := s.Kept + dropped; n >= 20 && s.Unit != "steps" {
		if float64(s.Kept) < .2*float64(n) {
			say("only %d of %d rows pass (under 20 %%): change the filter's limits, the prompts or max_tokens", s.Kept, n)
		}
		if float64(dropped) > .3*float64(n) && float64(top) > .8*float64(dropped) {
			say("%d of %d drops have one reason, %s: look for a systematic cause", top, dropped, reason)
		}
	}
	// Means over the last steps, not the last batch: a few rows say little.
	loss, has := s.Values["recent_loss"]
	if s.Unit != "steps" || !has || s.Done < 20 {
		return out
	}
	if acc, dpo := s.Values["recent_accuracy"]; dpo {
		if loss = s.Values["recent_preference_loss"]; loss > .6931 {
			say("the mean preference loss of the last steps, %.3f, is not under ln 2 after %d steps: the learning rate may be too low, or too high", loss, s.Done)
		}
		if acc <= .55 {
			say("the mean accuracy of the last steps is %.2f after %d steps: nothing is learned yet", acc, s.Done)
		}
	} else if loss < .05 {
		say("the loss %.3f is very low: possible overfitting", loss)
	}
	return out
}
