//go:build !noserver

package main_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencharacter/opencharacter/testenv/browser"
)

// TestScreenshots takes the pictures of docs/images: of a tiny run whose teacher's answers are those that were written for
// this project, so that there is something to read. CHARACTER_SCREENSHOTS names the folder (`make screenshots`); without
// it the pictures are taken, measured and thrown away.
func TestScreenshots(t *testing.T) {
	t.Parallel()
	desk := browser.Open(t, browser.Options{})
	low := browser.Open(t, browser.Options{Width: 1280, Height: 600})
	phone := browser.Open(t, browser.Options{Width: 390, Height: 844, Phone: true})
	dir := os.Getenv("CHARACTER_SCREENSHOTS")
	if dir == "" {
		dir = t.TempDir()
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	up := m.alone()
	args := []string{"--set", "teacher=recorded", "--set", "dpo.segment_steps=1", "--set", "dpo.epochs=40", "--set", "preferences.chunk=6", "--detach"}
	m.must(m.runArgs("captain", args...)...)
	m.waitFor("captain", "steps", func(s runState) bool { return s.Stages[1].Done >= 15 })
	m.must("pause", "captain")
	m.waitFor("captain", "standing still", stands)

	shots := map[string]*browser.Page{}
	shot := func(p *browser.Page, name string) {
		p.Shot(filepath.Join(dir, name))
		shots[name] = p
	}
	ui := m.dashboardOf(t, low)
	ui.open("captain")
	ui.report("captain: paused", "dpo")
	// From the table of stages to the end: what is above names folders of this machine.
	browser.Value[bool](low, `(document.activeElement.blur(), document.querySelector("#user-metadata-current-details").scrollIntoView({block: "end"}), true)`)
	shot(low, "ui-run.png")
	ui = m.dashboardOf(t, desk)
	ui.list(`CharacterConstitution="captain"`, 1)
	shot(desk, "ui-list.png")
	for _, p := range []*browser.Page{desk, phone} {
		p.Go(up.liveURL() + "/runs/captain")
		p.See("#browse .card", "chosen (teacher)")
	}
	scroll := func(p *browser.Page, to string) {
		p.Until("a place to look at", `(e => e && (e.scrollIntoView({block: "start", behavior: "instant"}), true))(`+to+`)`)
	}
	scroll(desk, `[...document.querySelectorAll("h2")].find(e => e.innerText === "Curves")`)
	shot(desk, "live-curves.png")
	scroll(desk, `document.querySelector("#browse")`)
	shot(desk, "live-rows.png")
	scroll(phone, `document.querySelector("#browse")`)
	shot(phone, "live-phone.png")
	for name := range shots {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Size() < 5_000 || st.Size() > 200_000 {
			t.Errorf("%s: want a picture of at most 200,000 bytes: %v, %+v", name, err, st)
		}
	}
}
