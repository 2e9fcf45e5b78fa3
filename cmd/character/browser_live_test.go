//go:build !noserver

package main_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/testenv/browser"
)

// length is how much the first figure draws.
const length = `(document.querySelector("figure svg")?.outerHTML.length || 0)`

// liveURL is where a stack says that it serves live reports.
func (s *session) liveURL() string {
	s.m.t.Helper()
	address := regexp.MustCompile(`Live reports\s+(http://127\.0\.0\.1:\d+)`).FindStringSubmatch(s.output())
	if address == nil {
		s.m.t.Fatalf("no address in\n%s", s.output())
	}
	return address[1]
}

// TestLiveReportInBrowser reads a run's report while it goes on, on a desk's screen and on a phone: curves grow on a page
// that nobody reloads, and rows of every kind can be read, filtered and searched.
func TestLiveReportInBrowser(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	desk := browser.Open(t, browser.Options{})
	up := m.alone()
	// The training would be much longer than the test: it is ended when the page was seen to grow.
	m.must(m.runArgs("read", "--set", "preferences.chunk=2", "--set", "dpo.segment_steps=1", "--set", "dpo.epochs=200", "--set", "introspection.filter.min_chars=40", "--detach")...)
	m.waitFor("read", "a step", func(s runState) bool { return s.Stages[1].Done >= 1 })
	desk.Go(up.liveURL())
	desk.Click("a", "=read")
	desk.See("h1", "captain")
	desk.Until("a curve", length+` > 0`)
	browser.Value[int](desk, `window.mine = 1`) // gone, were the page loaded anew
	m.must("pause", "read")
	m.waitFor("read", "standing still", stands)
	desk.See("header", "paused")
	before := browser.Value[int](desk, length)
	done := m.status("read").Stages[1].Done
	desk.See("table", fmt.Sprintf("%d of ", done))
	m.must("resume", "read")
	m.waitFor("read", "more steps", func(s runState) bool { return s.Stages[1].Done >= done+5 })
	desk.Until("a longer curve", fmt.Sprintf("%s > %d", length, before))
	if browser.Value[int](desk, `window.mine || 0`) != 1 {
		t.Error("the page was loaded anew")
	}

	// Pairs are side by side, and can be read while the run goes on.
	desk.See("#browse .card", "chosen (teacher)")
	type box struct{ X, Y, Width float64 }
	at := browser.Value[[]box](desk, `[...document.querySelector("#browse .card .side").children].map(e => { const r = e.getBoundingClientRect(); return {X: r.x, Y: r.y, Width: r.width} })`)
	if len(at) != 2 || at[1].X < at[0].X+at[0].Width || at[1].Y-at[0].Y > 10 || at[0].Y-at[1].Y > 10 {
		t.Errorf("a pair is not side by side: %+v", at)
	}
	searchRows(t, desk)

	m.must("finish-early", "read", "dpo")
	m.waitFor("read", "the end", func(s runState) bool { return s.State == "completed" })
	desk.See("header", "completed")
	desk.See("section", "SFT on introspection")
	desk.Click("#browse button", "=Reflections")
	desk.Until("reflections", `!document.querySelector("#rows .side") && document.querySelectorAll("#rows .card").length > 5`)
	desk.Choose("#drop", "all dropped")
	desk.Until("dropped rows only", `(c => c.length > 0 && c.every(e => e.querySelector(".drop")?.innerText.startsWith("dropped: ")))([...document.querySelectorAll("#rows .card")])`)
	reason := strings.TrimPrefix(desk.Text("#rows .card .drop"), "dropped: ")
	desk.Choose("#drop", reason+" (")
	desk.Until("rows of one reason", fmt.Sprintf(`(c => c.length > 0 && c.every(e => e.querySelector(".drop").innerText === "dropped: " + %q))([...document.querySelectorAll("#rows .card")])`, reason))
	desk.Click("#browse button", "=Conversations")
	desk.Until("conversations", `document.querySelectorAll("#rows .card .turn").length > 5`)

	phone := browser.Open(t, browser.Options{Width: 390, Height: 844, Scale: 2, Phone: true})
	phone.Go(up.liveURL() + "/runs/read")
	for _, kind := range []string{"Pairs", "Reflections", "Conversations"} {
		phone.Click("#browse button", "="+kind)
		phone.Until("rows", `document.querySelector("#rows .card") && said.innerText.includes("page 1")`)
		readable(t, phone, kind)
	}
	phone.Go(up.liveURL())
	readable(t, phone, "the list of runs")
	for _, p := range []*browser.Page{desk, phone} {
		if got := p.Errors(); len(got) != 0 {
			t.Errorf("scripts complain: %q", got)
		}
	}
}

// searchRows types a word of the first row's prompt: fewer rows are left, all with the word.
func searchRows(t *testing.T, p *browser.Page) {
	t.Helper()
	words := strings.Fields(p.Text("#rows .card .ask"))
	word := words[0]
	for _, w := range words {
		if len(w) > len(word) {
			word = w
		}
	}
	p.Type("#q", strings.ToUpper(word)) // letters of any size
	p.Until("rows with "+word, fmt.Sprintf(`(c => c.length > 0 && c.every(e => e.innerText.toLowerCase().includes(%q)))([...document.querySelectorAll("#rows .card")])`, strings.ToLower(word)))
	n := regexp.MustCompile(`^(\d+) of (\d+) rows`).FindStringSubmatch(p.Text("#said"))
	if n == nil {
		t.Fatalf("no counts in %q", p.Text("#said"))
	}
	hits, _ := strconv.Atoi(n[1])
	if all, _ := strconv.Atoi(n[2]); hits == 0 || hits >= all {
		t.Errorf("a search for %q finds %d of %d rows", word, hits, all)
	}
	p.Type("#q", "no row has this")
	p.Until("nothing", `document.querySelectorAll("#rows .card").length === 0 && said.innerText.startsWith("0 of ")`)
	p.Type("#q", "")
	p.See("#browse .card", "chosen (teacher)")
}

// readable: nothing is wider than the screen, no text is smaller than 12 pixels (in figures 10), and what is touched is
// big enough for a finger.
func readable(t *testing.T, p *browser.Page, what string) {
	t.Helper()
	if w := browser.Value[[]int](p, `[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]`); w[0] > w[2] || w[1] > w[2] || w[2] != 390 {
		t.Errorf("%s: the page is %d and %d pixels wide, the screen %d", what, w[0], w[1], w[2])
	}
	small := browser.Value[[]string](p, `(() => {
  const bad = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; n = walk.nextNode();) {
    const e = n.parentElement, svg = e.closest("svg");
    if (!n.data.trim() || !e.checkVisibility() || !e.getClientRects().length) continue;
    const size = parseFloat(getComputedStyle(e).fontSize) * (svg ? e.getScreenCTM().a : 1);
    if (size < (svg ? 10 : 12)) bad.push(size.toFixed(1) + " " + n.data.trim().slice(0, 40));
  }
  for (const e of document.querySelectorAll("button, select, input"))
    if (e.getBoundingClientRect().height < 38) bad.push("too low for a finger: " + (e.innerText || e.id));
  return bad;
})()`)
	if len(small) > 0 {
		t.Errorf("%s: cannot be read on a phone: %q", what, small)
	}
}
