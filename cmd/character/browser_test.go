//go:build !noserver

package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/testenv/browser"
	"github.com/opencharacter/opencharacter/testenv/stack"
)

// dashboard is the Temporal UI of a stack in a browser. What it clicks is named as the bundled version names it
// (data-testid and roles): go.mod pins that version.
type dashboard struct {
	*browser.Page
	t   *testing.T
	m   *machine
	url string // of the namespace's workflows

	updates int // that were sent
}

// dashboardOf shows the UI of the machine's stack, which is up, on a page.
func (m *machine) dashboardOf(t *testing.T, page *browser.Page) *dashboard {
	t.Helper()
	info, alive, err := stack.Read(m.data)
	if err != nil || !alive {
		t.Fatal(err, alive)
	}
	return &dashboard{Page: page, t: t, m: m, url: info.UI + "/namespaces/" + info.Namespace + "/workflows"}
}

// start fills in the form and sends it.
func (d *dashboard) start(id, input string) {
	d.t.Helper()
	d.Go(d.url)
	d.Click("main a", "=Start Workflow")
	d.Type("#workflowId", id)
	d.Type("#taskQueue", "character")
	d.Type("#workflowType", "CharacterTraining")
	d.See("main", "Task Queue is Active")
	d.Type("main [role=textbox]", d.pretty(input))
	d.Click("h1", "Start Workflow") // the editor lays its text out once it is left, and the button moves
	d.Click("button[data-testid=start-workflow-button]", "Start Workflow")
	for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if out, err := d.m.command("status", id, "--json").Output(); err == nil && strings.Contains(string(out), `"stages"`) {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("the form started nothing; the page shows\n%s\n%s", d.Text("main"), d.m.workerLog())
		}
	}
}

// pretty lays JSON out as the UI's editor does when it is left: nothing moves then while a button is pressed.
func (d *dashboard) pretty(input string) string {
	d.t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(input), "", "  "); err != nil {
		d.t.Fatal(err)
	}
	return b.String()
}

// open shows a run's page.
func (d *dashboard) open(id string) {
	d.t.Helper()
	d.Go(d.url + "/" + url.PathEscape(id))
	d.See("[data-testid=workflow-id-heading]", id)
}

// report waits until the run's page, as Markdown became a page, has all the texts. The page asks when it is told to: key R.
func (d *dashboard) report(want ...string) string {
	d.t.Helper()
	d.Click("[data-testid=user-metadata-tab]", "")
	for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		d.Press("r")
		text, lacks := d.markdown(), ""
		for _, w := range want {
			if !strings.Contains(text, w) {
				lacks = w
			}
		}
		if lacks == "" {
			return text
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("the run's page lacks %q:\n%s\n%s", lacks, text, d.m.workerLog())
		}
	}
}

// update sends an update with the page's dialog and waits until it is taken.
func (d *dashboard) update(name, input string) {
	d.t.Helper()
	d.send(name, input)
	d.answered(`!dialog`)
}

// refuses sends an update that must be refused with a text, which the dialog shows, and leaves the dialog.
func (d *dashboard) refuses(name, input, want string) {
	d.t.Helper()
	d.send(name, input)
	d.answered(fmt.Sprintf(`dialog?.innerText.includes(%q)`, want))
	d.Click(updateDialog+" button", "=Cancel")
	d.Gone(updateDialog, "")
}

const updateDialog = "[data-testid=update-confirmation-modal]"

// answered waits until a condition on the dialog holds. A server that is busy says so in the dialog, and a reader presses
// the button again: the update's ID is the same, so it counts once.
func (d *dashboard) answered(condition string) {
	d.t.Helper()
	for deadline := time.Now().Add(4 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		switch browser.Value[string](d.Page, `(() => {
  const dialog = [...document.querySelectorAll("`+updateDialog+`")].find(e => e.checkVisibility({visibilityProperty: true, opacityProperty: true}) && e.getClientRects().length);
  return `+condition+` ? "yes" : dialog?.innerText.includes("Workflow is busy") ? "busy" : "";
})()`) {
		case "yes":
			return
		case "busy":
			d.Click(updateDialog+" [data-testid=confirm-modal-button]", "")
			time.Sleep(time.Second)
		}
	}
	d.t.Fatalf("%s never came; the page shows\n%s\n%s", condition, d.Text("body"), d.m.workerLog())
}

// dialog opens a dialog from the menu of actions. The page may draw itself anew between two clicks, which closes menu
// and dialog: a reader opens them again.
func (d *dashboard) dialog(item, dialog string) {
	d.t.Helper()
	shown := func(css string) bool {
		for range 40 {
			if browser.Value[bool](d.Page, fmt.Sprintf(`[...document.querySelectorAll(%q)].some(e => e.checkVisibility({visibilityProperty: true, opacityProperty: true}) && e.getClientRects().length)`, css)) {
				return true
			}
			time.Sleep(50 * time.Millisecond)
		}
		return false
	}
	for deadline := time.Now().Add(4 * time.Minute); time.Now().Before(deadline); {
		d.Click("button", "=More Actions")
		if !shown(item) {
			continue
		}
		d.Click(item, "")
		if shown(dialog) {
			return
		}
	}
	d.t.Fatalf("%s does not open; the page shows\n%s", dialog, d.Text("body"))
}

func (d *dashboard) send(name, input string) {
	d.t.Helper()
	d.dialog("[data-testid=update-button]", updateDialog)
	d.Click("[data-testid=update-select-button]", "")
	d.Click("#update-select-select [role=option]", "="+name)
	d.updates++
	d.Type("#update-id", fmt.Sprintf("%s-%d", name, d.updates))
	if input != "" {
		d.Type(updateDialog+" [role=textbox]", d.pretty(input))
	}
	d.Click(updateDialog+" [data-testid=confirm-modal-button]", "")
}

// status waits for the state that Temporal gives the run.
func (d *dashboard) status(want string) {
	d.t.Helper()
	d.See("[data-testid=execution-status]", "="+strings.ToUpper(want))
}

// reset goes back to the newest point that the dialog offers: to an older one an early end would be sent again too early.
func (d *dashboard) reset() {
	d.t.Helper()
	d.Click("button", "=Reset")
	d.Click("[data-testid=workflow-reset-event-id-select-button]", "")
	d.See("#reset-event-id-select [role=option]", "WorkflowTaskCompleted")
	newest := browser.Value[string](d.Page, `[...document.querySelectorAll("#reset-event-id-select [role=option]")].map(e => e.innerText.trim()).filter(s => s.includes("WorkflowTaskCompleted")).sort((a, b) => parseInt(b) - parseInt(a))[0]`)
	d.Click("#reset-event-id-select [role=option]", "="+newest)
	d.Type("#reset-reason", "to see it again")
	d.Click("[data-testid=reset-confirmation-modal] [data-testid=confirm-modal-button]", "")
	d.Gone("[data-testid=reset-confirmation-modal]", "")
}

// markdown is what the run's page shows of the details it was given, in one line.
func (d *dashboard) markdown() string {
	return strings.Join(strings.Fields(browser.Value[string](d.Page, `document.querySelector("#user-metadata-current-details")?.contentDocument?.body?.innerText || ""`)), " ")
}

// list opens the list view of a query, as a saved link does, and waits for so many runs.
func (d *dashboard) list(query string, want int) {
	d.t.Helper()
	rows := `document.querySelectorAll("[data-testid=workflows-summary-configurable-table-row]").length`
	for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(time.Second) {
		d.Go(d.url + "?query=" + url.QueryEscape(query))
		d.See("[data-testid=workflow-count]", fmt.Sprint(want)) // search attributes arrive a moment later
		d.Until("the rows of "+query, `!document.querySelector("[data-testid=loading]")`)
		if got := browser.Value[int](d.Page, rows); got == want {
			return
		} else if time.Now().After(deadline) {
			d.t.Fatalf("the list view of %s has %d runs, want %d", query, got, want)
		}
	}
}
