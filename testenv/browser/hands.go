//go:build !noserver

package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// seen finds the first element that matches, can be seen, and holds a text (in it, or as label, value or placeholder).
// Everything a page hides, such as a second layout for other screens, does not count. A text that begins with = is the
// whole first line.
const seen = `(css, text) => [...document.querySelectorAll(css)].find(e => {
  if (!e.checkVisibility({visibilityProperty: true, opacityProperty: true}) || !e.getClientRects().length) return false;
  const said = [e.innerText, e.getAttribute("aria-label"), e.value, e.placeholder].filter(s => typeof s === "string");
  return !text || said.some(s => text[0] === "=" ? s.trim().split("\n")[0].trim() === text.slice(1) : s.includes(text));
})`

func js(v any) string {
	b, _ := json.Marshal(v) // strings
	return string(b)
}

// Go opens an address. It does not wait for more than its document.
func (p *Page) Go(url string) {
	p.t.Helper()
	if err := p.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		r, err := cdp.Call(ctx, t, page.Navigate, page.NavigateParams{URL: url})
		if err == nil && r.ErrorText != "" {
			err = errors.New(r.ErrorText)
		}
		return err
	})); err != nil {
		p.fail("open %s: %v", url, err)
	}
	p.Until("a document", `document.readyState !== "loading" && location.href !== "about:blank"`)
}

// Value computes an expression of the page.
func Value[T any](p *Page, expression string) T {
	p.t.Helper()
	v, err := value[T](p, expression)
	if err != nil {
		p.fail("%s: %v", expression, err)
	}
	return v
}

// Until waits until an expression holds. A page that is just being exchanged for another answers with an error: asked again.
func (p *Page) Until(what, expression string) {
	p.t.Helper()
	var err error
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var ok bool
		if ok, err = value[bool](p, `Boolean(`+expression+`)`); err == nil && ok {
			return
		}
		if p.ctx.Err() != nil {
			break
		}
	}
	p.fail("%s never came: %s (%v)", what, expression, err)
}

// See waits until an element that matches the CSS selector can be seen and holds the text; "" = any.
func (p *Page) See(css, text string) {
	p.t.Helper()
	p.Until(fmt.Sprintf("%s with %q", css, text), fmt.Sprintf(`(%s)(%s, %s)`, seen, js(css), js(text)))
}

// Gone waits until no such element can be seen.
func (p *Page) Gone(css, text string) {
	p.t.Helper()
	p.Until(fmt.Sprintf("the end of %s with %q", css, text), fmt.Sprintf(`!(%s)(%s, %s)`, seen, js(css), js(text)))
}

// Text is the text that an element shows.
func (p *Page) Text(css string) string {
	p.t.Helper()
	p.See(css, "")
	return Value[string](p, fmt.Sprintf(`((%s)(%s, "") || {}).innerText || ""`, seen, js(css)))
}

// Click waits for an element with a text and clicks its middle with the mouse, once nothing covers it and it is enabled.
func (p *Page) Click(css, text string) {
	p.t.Helper()
	var at []float64
	var err error
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		at, err = value[[]float64](p, fmt.Sprintf(`(() => {
  const e = (%s)(%s, %s);
  if (!e || e.disabled || e.getAttribute("aria-disabled") === "true") return null;
  e.scrollIntoView({block: "center", behavior: "instant"});
  const r = e.getBoundingClientRect(), x = r.x + r.width / 2, y = r.y + r.height / 2, top = document.elementFromPoint(x, y);
  const label = e.labels && [...e.labels].some(l => l.contains(top));
  return top && (e.contains(top) || top.contains(e) && top.tagName !== "BODY" || label) ? [x, y] : null;
})()`, seen, js(css), js(text)))
		if err == nil && len(at) == 2 {
			if err = p.do(chromedp.MouseClickXY(at[0], at[1])); err != nil {
				p.fail("click %s with %q: %v", css, text, err)
			}
			return
		}
	}
	p.fail("click: %s with %q cannot be clicked (%v)", css, text, err)
}

// Type clicks a field, removes what is in it and types, as a paste does.
func (p *Page) Type(css, text string) {
	p.t.Helper()
	p.Click(css, "")
	paste := chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, input.InsertText, input.InsertTextParams{Text: text})
		return err
	})
	if err := p.do(chromedp.KeyEvent("a", chromedp.KeyModifiers(chromedp.ModifierCtrl)), chromedp.KeyEvent(kb.Delete), paste); err != nil {
		p.fail("type into %s: %v", css, err)
	}
	// An editor may lay the text out anew and show a part of it; a field has it as it was typed.
	p.Until("the text in "+css, fmt.Sprintf(`(e => e && (e.value === undefined ? e.innerText.trim() !== "" : e.value === %s))((%s)(%s, ""))`, js(text), seen, js(css)))
}

// Shot writes what the viewport shows into a file, PNG.
func (p *Page) Shot(path string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, wait)
	defer cancel()
	b, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.fail("screenshot: %v", err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// Press types one key on whatever has the focus.
func (p *Page) Press(key string) {
	p.t.Helper()
	if err := p.do(chromedp.KeyEvent(key)); err != nil {
		p.fail("press %q: %v", key, err)
	}
}

// Choose picks the option of a select element whose text begins so.
func (p *Page) Choose(css, text string) {
	p.t.Helper()
	p.Until(fmt.Sprintf("option %q of %s", text, css), fmt.Sprintf(`(() => {
  const e = document.querySelector(%s), o = e && [...e.options].find(o => o.text.startsWith(%s));
  if (!o) return false;
  e.value = o.value;
  e.dispatchEvent(new Event("change", {bubbles: true}));
  return true;
})()`, js(css), js(text)))
}
