package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
)

// maxDetails keeps a page under the server's limit of 20,000 bytes.
const maxDetails = 19000

// show writes the run's page: what it is, the stage table, warnings, what was adjusted, what to do next, where things lie.
func (r *run) show(ctx workflow.Context) {
	p := r.progress()
	s := fmt.Sprintf("# %s: %s\n\n", r.ID, p.State)
	if r.Constitution != "" {
		s += fmt.Sprintf("Character **%s**, preset %s, model %s, teacher %s.\n\n", r.Constitution, r.Preset, r.Model, r.Teacher)
	}
	s += table(r.Stages) + warningList(r.warnings()) + r.next(p.State) + r.links() + adjustments(r.Adjusted)
	workflow.SetCurrentDetails(ctx, cut(s, maxDetails))
}

// next says what happens now, and what a reader can do.
func (r *run) next(state string) string {
	switch state {
	case Completed:
		return fmt.Sprintf("\n**Next:** `character chat --id %s` or `character export %s --out DIR`\n", r.ID, r.ID)
	case Paused:
		return "\n**Next:** update `resume` goes on; `adjust` changes what is not begun.\n"
	case Failed:
		return "\n**Failed:** " + r.Error + "\n\n**Next:** mend the cause and start the run again with the same id: finished stages are reused.\n"
	case Cancelled:
		return "\n**Next:** start the run again with the same id: finished stages are reused.\n"
	}
	var ahead []string
	for _, st := range r.Stages {
		if st.State == Pending {
			ahead = append(ahead, st.Name)
		}
	}
	if len(ahead) == 0 {
		return "\n**Next:** the run ends with its record. Update `pause` stops between two pieces of work.\n"
	}
	return "\n**Next:** " + strings.Join(ahead, ", then ") + ". Updates: `pause`, `adjust` with `{\"field\": value}`, `finish-early`.\n"
}

// links says where report and data are.
func (r *run) links() string {
	var b strings.Builder
	if r.Report != "" {
		fmt.Fprintf(&b, "- [live report](%s)\n", r.Report)
	}
	if r.Spec != "" {
		fmt.Fprintf(&b, "- resolved spec: `%s`\n", r.Spec)
	}
	for _, st := range r.done {
		switch {
		case st.Folder != "":
			fmt.Fprintf(&b, "- %s data: `%s`\n", st.Kind, st.Folder)
		case st.Metrics != nil:
			fmt.Fprintf(&b, "- %s metrics: `%s`\n", st.Kind, st.Metrics.Key)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "\n**Where things are** (keys are in the run's bucket)\n\n" + b.String()
}

func adjustments(list []activities.Adjustment) string {
	if len(list) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n**Adjusted while it ran**\n\n| at | field | from | to | counts | by update |\n|---|---|---|---|---|---|\n")
	for _, a := range list {
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s | %s |\n", a.At.Format(time.RFC3339), a.Key, cell(a.From), cell(a.To), a.Counts, cell([]byte(a.By)))
	}
	return b.String()
}

// cell is text that a row of a table can hold.
func cell(b []byte) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "<", "&lt;").Replace(cut(string(b), 200))
}

func cut(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + " ..."
	}
	return s
}

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
