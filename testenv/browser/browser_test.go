//go:build !noserver

package browser_test

import (
	"bytes"
	"fmt"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencharacter/opencharacter/testenv/browser"
)

const form = `<!doctype html><meta name="viewport" content="width=device-width"><title>form</title>
<p style="display:none">Send here</p><label>Name <input id="name" value="old"></label>
<select id="kind"><option value="">any</option><option value="a">apples (2)</option></select>
<div contenteditable role="textbox" id="note"></div>
<div style="height:3000px"></div><button disabled id="wait">Wait</button><button id="send">Send</button><p id="said"></p>
<script>
setTimeout(() => { wait.disabled = false }, 300);
send.onclick = wait.onclick = e => { said.textContent = e.target.id + " " + document.getElementById("name").value + " " + note.innerText + " " + e.isTrusted; if (e.target === send) send.remove() };
kind.onchange = () => { said.textContent = "kind " + kind.value };
</script>`

// TestHands does to a page what tests do: what is hidden is not seen, what is disabled is waited for, clicks are real ones.
func TestHands(t *testing.T) {
	asked := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		fmt.Fprint(w, form)
	}))
	defer s.Close()
	p := browser.Open(t, browser.Options{Width: 390, Height: 844, Scale: 2, Phone: true, Dark: true})
	p.Go(s.URL + "/form")
	if at := <-asked; at != "/form" {
		t.Errorf("asked for %s", at)
	}
	p.Gone("p", "Send here")
	p.Type("#name", "new")
	p.Type("#note", `{"a": 1}`)
	p.Click("button", "=Wait")
	p.See("#said", `wait new {"a": 1} true`)
	p.Choose("#kind", "apples")
	p.See("#said", "kind a")
	p.Click("button", "=Send")
	p.Gone("button", "=Send")
	if got := p.Text("#said"); got != `send new {"a": 1} true` {
		t.Errorf("the page says %q", got)
	}
	if !browser.Value[bool](p, `matchMedia("(prefers-color-scheme: dark)").matches && innerWidth === 390 && devicePixelRatio === 2 && "ontouchstart" in window`) {
		t.Error("it is no dark phone")
	}
	shot := filepath.Join(t.TempDir(), "shot.png")
	p.Shot(shot)
	b, err := os.ReadFile(shot)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := png.DecodeConfig(bytes.NewReader(b)); err != nil || c.Width != 780 || c.Height != 1688 {
		t.Errorf("the picture: %+v %v", c, err)
	}
	if got := p.Errors(); len(got) != 0 {
		t.Errorf("scripts complain: %q", got)
	}
	if browser.Value[string](p, `new Promise(done => { setTimeout(() => { throw new Error("on purpose") }); setTimeout(() => done("thrown"), 50) })`) != "thrown" || len(p.Errors()) != 1 {
		t.Errorf("a script that fails is not heard: %q", p.Errors())
	}
}
