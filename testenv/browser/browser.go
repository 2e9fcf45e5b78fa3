//go:build !noserver

package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// wait is how long a page may take to show what is waited for, at most.
const wait = 4 * time.Minute

// Options are what a browser looks like. The zero value is a desk's screen, light.
type Options struct {
	Width, Height int64   // CSS pixels; 0 = 1280 and 800
	Scale         float64 // device pixels for a CSS pixel; 0 = 1
	Phone         bool    // touch, the layout of a phone and its viewport rules
	Dark          bool    // the reader prefers dark pages
}

// Page is one page of one browser.
type Page struct {
	t   testing.TB
	ctx context.Context

	mu   sync.Mutex
	errs []string
}

// find is the browser to use.
func find(t testing.TB) string {
	t.Helper()
	names := []string{"chromium", "chromium-browser", "google-chrome"}
	if exe := os.Getenv("CHROMIUM"); exe != "" {
		names = []string{exe}
	}
	for _, name := range names {
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	if slices.Contains(strings.Fields(os.Getenv("CHARACTER_REQUIRE")), "chromium") {
		t.Fatalf("CHARACTER_REQUIRE asks for chromium, and there is none of %v here: run bench/setup_browser.sh, or name one with CHROMIUM", names)
	}
	t.Skipf("no browser here, none of %v: bench/setup_browser.sh installs one, CHROMIUM names one", names)
	return ""
}

// Open starts a browser with an empty page and a profile of its own.
func Open(t testing.TB, o Options) *Page {
	t.Helper()
	exe := find(t)
	if o.Width == 0 {
		o.Width, o.Height = 1280, 800
	}
	if o.Scale == 0 {
		o.Scale = 1
	}
	flags := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(exe), chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("headless", "new"), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true), chromedp.Flag("lang", "en-US"),
		// Nothing outside this machine is asked for, whatever a page names.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.WindowSize(int(o.Width), int(o.Height)))
	alloc, cancelAlloc := chromedp.NewExecAllocator(context.Background(), flags...)
	p := &Page{t: t}
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithListener(p.heard))
	p.ctx = ctx
	t.Cleanup(func() {
		ending, stop := context.WithTimeout(ctx, 20*time.Second)
		defer stop()
		_ = chromedp.Cancel(ending) // what does not end by itself is killed by the next two
		cancel()
		cancelAlloc()
	})
	view := []chromedp.EmulateViewportOption{chromedp.EmulateScale(o.Scale)}
	if o.Phone {
		view = append(view, chromedp.EmulateMobile, chromedp.EmulateTouch)
	}
	scheme := "light"
	if o.Dark {
		scheme = "dark"
	}
	// The browser lives as long as the context of the first call: one without a limit.
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(o.Width, o.Height, view...), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	})); err != nil {
		t.Fatalf("browser: %s does not start: %v", exe, err)
	}
	return p
}

// heard keeps what scripts complain about.
func (p *Page) heard(ev any) {
	said := ""
	switch e := ev.(type) {
	case *runtime.EventExceptionThrown:
		said = e.ExceptionDetails.Text
		if x := e.ExceptionDetails.Exception; x != nil {
			said += " " + x.Description
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type != runtime.ConsoleAPICalledTypeError {
			return
		}
		for _, a := range e.Args {
			said += fmt.Sprint(a.Description, string(a.Value), " ")
		}
	default:
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errs = append(p.errs, said)
}

// Errors are what the page's scripts threw or wrote to the console as an error.
func (p *Page) Errors() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.errs)
}

// do does things in the browser within the limit.
func (p *Page) do(steps ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(p.ctx, wait)
	defer cancel()
	return chromedp.Do(ctx, steps...)
}

// value computes an expression of the page within the limit; a promise is waited for.
func value[T any](p *Page, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(p.ctx, wait)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// fail ends the test with what the page shows.
func (p *Page) fail(format string, args ...any) {
	p.t.Helper()
	shown, _ := value[string](p, `location.href + " shows:\n" + document.body.innerText`) // as far as it still answers
	p.t.Fatalf("%s\n%.8000s\nscripts say: %q", fmt.Sprintf(format, args...), shown, p.Errors())
}
