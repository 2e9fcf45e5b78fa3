//go:build !noserver

package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/s3server"
)

func TestMain(m *testing.M) { s3server.Main(m) }

func config(t *testing.T) store.Config {
	t.Helper()
	server := s3server.Shared(t)
	return store.Config{
		Endpoint: server.Endpoint, Bucket: "test-bucket", Prefix: "t/" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")),
		AccessKey: server.AccessKey, SecretKey: server.SecretKey,
	}
}

func open(t *testing.T, c store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// file is where the server of the tests keeps an object.
func file(t *testing.T, c store.Config, key string) string {
	t.Helper()
	return filepath.Join(s3server.Shared(t).Dir, c.Bucket, c.Prefix, key)
}

func TestPutGetIsContentNamed(t *testing.T) {
	t.Parallel()
	c := config(t)
	s := open(t, c)
	data := bytes.Repeat([]byte("hello "), 1000)
	r, err := s.Put(t.Context(), "parts", ".bin", data)
	if err != nil {
		t.Fatal(err)
	}
	if want := "parts/" + r.SHA256[:32] + ".bin"; r.Key != want || r.Size != int64(len(data)) {
		t.Errorf("ref %+v, want key %s", r, want)
	}
	again, err := s.Put(t.Context(), "parts/", ".bin", data)
	if err != nil || again != r {
		t.Errorf("second put: %+v, %v", again, err)
	}
	got, err := s.Get(t.Context(), r)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("get: %d bytes, %v", len(got), err)
	}
	if plain, err := os.ReadFile(file(t, c, r.Key)); err != nil || !bytes.Equal(plain, data) {
		t.Errorf("plain file: %v", err)
	}
	empty, err := s.Put(t.Context(), "parts", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), empty); err != nil || len(got) != 0 {
		t.Errorf("empty object: %q, %v", got, err)
	}
}

func TestPutKeyOnce(t *testing.T) {
	t.Parallel()
	s := open(t, config(t))
	created, err := s.PutKey(t.Context(), "a/manifest.json", []byte("{}"))
	if err != nil || !created {
		t.Fatalf("first: %v, %v", created, err)
	}
	created, err = s.PutKey(t.Context(), "a/manifest.json", []byte("{}"))
	if err != nil || created {
		t.Errorf("same bytes again: %v, %v", created, err)
	}
	_, err = s.PutKey(t.Context(), "a/manifest.json", []byte("[]"))
	if !errors.Is(err, store.ErrConflict) || !strings.Contains(err.Error(), "a/manifest.json") {
		t.Errorf("other bytes: %v", err)
	}
	if _, err := s.GetKey(t.Context(), "a/none"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("missing key: %v", err)
	}
}

func TestOneOfManyWritersCreates(t *testing.T) {
	t.Parallel()
	s := open(t, config(t))
	var created, conflicts atomic.Int64
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			ok, err := s.PutKey(t.Context(), "once", fmt.Appendf(nil, "writer %d", i))
			switch {
			case ok:
				created.Add(1)
			case errors.Is(err, store.ErrConflict):
				conflicts.Add(1)
			default:
				t.Errorf("writer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if created.Load() != 1 || conflicts.Load() != 11 {
		t.Errorf("%d created, %d conflicts", created.Load(), conflicts.Load())
	}
}

func TestCorruptObjectIsDetected(t *testing.T) {
	t.Parallel()
	c := config(t)
	s := open(t, c)
	for name, damage := range map[string]func(b []byte) []byte{
		"flipped bit": func(b []byte) []byte { b[3] ^= 1; return b },
		"truncated":   func(b []byte) []byte { return b[:len(b)-1] },
		"longer":      func(b []byte) []byte { return append(b, 0) },
		"emptied":     func([]byte) []byte { return nil },
	} {
		r, err := s.Put(t.Context(), "p", ".bin", []byte("the bytes of "+name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file(t, c, r.Key))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file(t, c, r.Key), damage(b), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), r); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), r.Key) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	s := open(t, config(t))
	for _, key := range []string{"x/b", "x/a", "x/c/d", "y/a"} {
		if _, err := s.PutKey(t.Context(), key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	objects, err := s.List(t.Context(), "x/")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, o := range objects {
		keys = append(keys, fmt.Sprint(o.Key, ":", o.Size))
	}
	if got := strings.Join(keys, " "); got != "x/a:3 x/b:3 x/c/d:5" {
		t.Errorf("list: %s", got)
	}
	if none, err := s.List(t.Context(), "zzz/"); err != nil || len(none) != 0 {
		t.Errorf("empty list: %v, %v", none, err)
	}
}

func TestHostileKeys(t *testing.T) {
	t.Parallel()
	s := open(t, config(t))
	for _, key := range []string{"", "/a", "a/", "a//b", "../a", "a/../../b", "a\x00b", "a\nb", `a\b`, "a/./b", "\xff", strings.Repeat("k", 300), strings.Repeat("k/", 500) + "k"} {
		if _, err := s.PutKey(t.Context(), key, nil); err == nil {
			t.Errorf("key %q was accepted", key)
		}
		if _, err := s.GetKey(t.Context(), key); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("get of key %q: %v", key, err)
		}
	}
}

func TestOpenRefusesBadConfig(t *testing.T) {
	t.Parallel()
	good := config(t)
	for name, tc := range map[string]struct {
		change func(c *store.Config)
		want   string
	}{
		"no bucket":        {func(c *store.Config) { c.Bucket = "" }, "no bucket"},
		"endpoint no URL":  {func(c *store.Config) { c.Endpoint = "127.0.0.1:9000" }, "not a URL"},
		"endpoint scheme":  {func(c *store.Config) { c.Endpoint = "ftp://h" }, "not a URL"},
		"endpoint path":    {func(c *store.Config) { c.Endpoint += "/bucket" }, "path"},
		"endpoint login":   {func(c *store.Config) { c.Endpoint = "http://me:hunter2@127.0.0.1:9" }, "user or password"},
		"half of the keys": {func(c *store.Config) { c.SecretKey = "" }, "only one of"},
		"bad prefix":       {func(c *store.Config) { c.Prefix = "a//b" }, "prefix"},
		"bad bucket name":  {func(c *store.Config) { c.Bucket = "No_Such.Name!" }, "bucket"},
		"unknown key":      {func(c *store.Config) { c.AccessKey = "nobody" }, "check access key"},
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			tc.change(&c)
			_, err := store.Open(t.Context(), c)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "test-secret") {
				t.Errorf("error %q, want %q and no secret", err, tc.want)
			}
		})
	}
}

func TestWrongSecretNamesTheNextStep(t *testing.T) {
	t.Parallel()
	c := config(t)
	c.SecretKey = "wrong"
	s, err := store.Open(t.Context(), c)
	if err == nil {
		err = s.Probe(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "check access key") || !strings.Contains(err.Error(), c.Endpoint) || !strings.Contains(err.Error(), c.Bucket) {
		t.Errorf("%v", err)
	}
}

func TestUnreachableAndStalledServersGiveErrors(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for name, addr := range map[string]net.Addr{"stalled": l.Addr(), "gone": gone.Addr()} {
		c := config(t)
		c.Endpoint = "http://" + addr.String()
		c.IdleTimeout, c.CallTimeout, c.MaxAttempts = 50*time.Millisecond, 400*time.Millisecond, 3
		start := time.Now()
		_, err := store.Open(t.Context(), c)
		if err == nil || !strings.Contains(err.Error(), c.Endpoint) || !strings.Contains(err.Error(), "check that") {
			t.Errorf("%s: %v", name, err)
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("%s: took %s", name, d)
		}
	}
}

// A body that stops in the middle must not hang, and a slow one that goes on must not be cut.
func TestStalledBody(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			return
		}
		w.Header().Set("Content-Length", "10")
		if strings.HasSuffix(r.URL.Path, "slow") {
			for range 10 {
				fmt.Fprint(w, "x")
				w.(http.Flusher).Flush()
				time.Sleep(30 * time.Millisecond)
			}
			return
		}
		calls.Add(1)
		fmt.Fprint(w, "half")
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	s := open(t, store.Config{Endpoint: server.URL, Bucket: "bucket", AccessKey: "a", SecretKey: "b", IdleTimeout: 200 * time.Millisecond, MaxAttempts: 2})
	if _, err := s.GetKey(t.Context(), "stalls"); err == nil || !strings.Contains(err.Error(), "no progress") {
		t.Errorf("stalled body: %v", err)
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("%d attempts, want 2", n)
	}
	if b, err := s.GetKey(t.Context(), "slow"); err != nil || string(b) != "xxxxxxxxxx" {
		t.Errorf("slow body: %q, %v", b, err)
	}
}

func TestPassingFailuresAreRetried(t *testing.T) {
	t.Parallel()
	for _, status := range []int{429, 500, 502, 503, 504, 408, 409} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			c := config(t)
			f := &flaky{base: http.DefaultTransport, status: status}
			c.Transport = f
			s := open(t, c)
			f.left.Store(2)
			if created, err := s.PutKey(t.Context(), "k", []byte("v")); err != nil || !created {
				t.Fatalf("created %v, %v", created, err)
			}
			if f.left.Load() != 0 {
				t.Error("nothing failed in this test")
			}
			if b, err := s.GetKey(t.Context(), "k"); err != nil || string(b) != "v" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

// flaky answers the next left PUT requests with an error status.
type flaky struct {
	base   http.RoundTripper
	status int
	left   atomic.Int64
}

func (f *flaky) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut && f.left.Load() > 0 {
		f.left.Add(-1)
		rec := httptest.NewRecorder()
		rec.WriteHeader(f.status)
		return rec.Result(), nil
	}
	return f.base.RoundTrip(r)
}

func TestCanceledContextEndsAtOnce(t *testing.T) {
	t.Parallel()
	s := open(t, config(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Put(ctx, "p", "", []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	c := config(t)
	s := open(t, c)
	if err := s.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := s.List(t.Context(), "_probe/")
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for header, want := range map[string]string{"If-None-Match": "ignores If-None-Match", "If-Match": "ignores If-Match"} {
		c.Transport = ignoring{http.DefaultTransport, header}
		err := open(t, c).Probe(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), c.Endpoint) || !strings.Contains(err.Error(), "another S3 server") {
			t.Errorf("server without %s: %v", header, err)
		}
	}
}

// ignoring makes the server look like one that accepts a condition and ignores it: what is refused is answered with success.
type ignoring struct {
	base   http.RoundTripper
	header string
}

func (i ignoring) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := i.base.RoundTrip(r)
	if err == nil && r.Method == http.MethodPut && r.Header.Get(i.header) != "" && resp.StatusCode == http.StatusPreconditionFailed {
		resp.Body.Close()
		rec := httptest.NewRecorder()
		rec.Header().Set("ETag", `"0"`)
		rec.WriteHeader(http.StatusOK)
		return rec.Result(), nil
	}
	return resp, err
}
