//go:build !noserver

package main_test

import (
	"testing"

	"github.com/opencharacter/opencharacter/testenv/browser"
)

// TestRunInBrowser does what a reader does in the Temporal UI, in a real browser: starts a run by the form, reads its
// page, pauses, adjusts, ends a stage early, resumes, finds it in list views, and resets it when it is over. It ends with
// the bytes of a run of another stack that was started with what its spec says then.
func TestRunInBrowser(t *testing.T) {
	t.Parallel()
	page := browser.Open(t, browser.Options{})
	m := newMachine(t)
	// More pairs than the test has time for: nothing here depends on who is quicker.
	long := []string{"preferences.pairs=5000", "preferences.max_candidates=50000", "preferences.repeats=500", "preferences.min_pairs=4", "preferences.chunk=2"}
	m.alone("--allow-path", m.model)
	ui := m.dashboardOf(t, page)
	ui.start("seen", m.tinyInput(long...))
	m.waitFor("seen", "pairs over the floor", func(s runState) bool { return s.Stages[0].Kept >= 4 })

	ui.open("seen")
	ui.status("Running")
	ui.report("seen: running", "Character captain", "preferences", "of 5000 pairs", "Next:", "dpo, then introspection", "live report")
	ui.update("pause", "")
	ui.report("seen: paused", "resume goes on")
	m.waitFor("seen", "standing still", stands)
	ui.refuses("pause", "", "already paused")
	ui.refuses("adjust", `{"seed":9}`, "start another run")
	ui.update("adjust", `{"sft.epochs":1,"evaluation":{"scored":2}}`)
	ui.report("Adjusted while it ran", "sft.epochs", "evaluation.scored")
	ui.update("finish-early", `{"stage":"preferences"}`)
	ui.list(`CharacterConstitution="captain" AND CharacterOutcome="running"`, 1)
	ui.list(`CharacterOutcome="completed"`, 0)
	ui.open("seen")
	ui.update("resume", "")
	m.waitFor("seen", "the end", func(s runState) bool { return s.State == "completed" })
	ui.status("Completed")
	ui.report("seen: completed", "character chat --id seen", "preferences.pairs")
	ui.list(`CharacterConstitution="captain" AND CharacterOutcome="completed" AND CharacterModel STARTS_WITH "/"`, 1)

	want := m.sums("seen")
	adjusted := map[string]string{}
	for _, a := range m.status("seen").Adjusted {
		adjusted[a.Key] = string(a.To)
	}
	if adjusted["sft.epochs"] != "1" || adjusted["preferences.pairs"] == "" {
		t.Errorf("adjusted: %v", adjusted)
	}
	ui.open("seen")
	ui.reset()
	m.waitFor("seen", "the end after the reset", func(s runState) bool { return s.State == "completed" })
	m.same(t, "seen", want)

	fresh := newMachine(t)
	fresh.model = m.model
	var args []string
	for _, kv := range long {
		args = append(args, "--set", kv)
	}
	for k, v := range adjusted {
		args = append(args, "--set", k+"="+v)
	}
	fresh.must(fresh.runArgs("fresh", args...)...)
	fresh.same(t, "fresh", want)
}
