package faultproxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/testenv/faultproxy"
)

// server keeps objects in memory and counts whole uploads and those that were torn.
type server struct {
	*httptest.Server
	mu          sync.Mutex
	objects     map[string]string
	whole, torn int
}

func newServer(t *testing.T) *server {
	s := &server{objects: map[string]string{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.torn++
	case r.Method == http.MethodPut:
		s.whole++
		s.objects[r.URL.Path] = string(b)
	default:
		v, ok := s.objects[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", fmt.Sprintf("%q", v))
		_, _ = io.WriteString(w, v+"@"+r.Host)
	}
}

func (s *server) counts() (whole, torn int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.whole, s.torn
}

func proxy(t *testing.T, s *server, o faultproxy.Options) *faultproxy.S3 {
	t.Helper()
	p, err := faultproxy.NewS3(func() string { return strings.TrimPrefix(s.URL, "http://") }, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// call makes one request on a connection of its own: the client of net/http repeats a GET whose connection ended.
func call(t *testing.T, method, url, body string) (status int, got string, err error) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

func TestS3KeepsCallsWhole(t *testing.T) {
	s := newServer(t)
	p := proxy(t, s, faultproxy.Options{Seed: 1})
	if status, _, err := call(t, "PUT", p.URL+"/b/a%20b", "x"); status != 200 || err != nil {
		t.Fatal(status, err)
	}
	status, got, err := call(t, "GET", p.URL+"/b/a%20b", "")
	// Signatures hold only when the server sees the host that the client named.
	if want := "x@" + strings.TrimPrefix(p.URL, "http://"); status != 200 || got != want || err != nil {
		t.Errorf("%d %q %v, want %q", status, got, err, want)
	}
	if c := p.Counts(); len(c) != 1 || c["calls"] != 2 {
		t.Errorf("counts %v", c)
	}
}

func TestS3Faults(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for _, c := range []struct {
		kind, method string
		status       int  // 0: no whole answer
		done         bool // the server has done it
	}{
		{faultproxy.Lost, "PUT", 0, true},
		{faultproxy.Lied, "PUT", 500, true},
		{faultproxy.Torn, "PUT", 0, false},
		{faultproxy.Cut, "GET", 0, true},
		{faultproxy.Stalled, "GET", 200, true},
		{faultproxy.Slow, "GET", 200, true},
	} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			s.objects["/b/k"] = "old" + long
			p := proxy(t, s, faultproxy.Options{Seed: 1, Rate: 1, Kinds: []string{c.kind}, Stall: time.Millisecond})
			status, got, err := call(t, c.method, p.URL+"/b/k", long)
			if (err == nil) != (c.status != 0) || err == nil && status != c.status {
				t.Errorf("status %d, %v, want %d", status, err, c.status)
			}
			if c.status == 200 && !strings.HasPrefix(got, "old"+long) {
				t.Errorf("the answer has %d bytes", len(got))
			}
			if n := p.Counts()[c.kind]; n != 1 {
				t.Errorf("counts %v", p.Counts())
			}
			if whole, _ := s.counts(); c.method == "PUT" && (whole == 1) != c.done {
				t.Errorf("%d uploads were done", whole)
			}
			if c.kind != faultproxy.Torn {
				return
			}
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
				if _, torn := s.counts(); torn == 1 {
					return
				}
				if time.Now().After(deadline) {
					t.Fatal("the server saw no torn upload")
				}
			}
		})
	}
}

func TestS3Refuses(t *testing.T) {
	s := newServer(t)
	p := proxy(t, s, faultproxy.Options{Seed: 3, Rate: 1, Kinds: []string{faultproxy.Refused}})
	seen := map[string]bool{}
	for range 200 {
		status, body, err := call(t, "PUT", p.URL+"/b/k", "x")
		if err != nil {
			t.Fatal(err)
		}
		seen[fmt.Sprint(status, body != "")] = true
	}
	if len(seen) != 6 {
		t.Errorf("want 500, 503 and 429 with and without a body: %v", seen)
	}
	if whole, _ := s.counts(); whole != 0 {
		t.Errorf("%d refused uploads reached the server", whole)
	}
}

// TestS3IsStale: an object that changes may be read as it was, any other never.
func TestS3IsStale(t *testing.T) {
	s := newServer(t)
	p := proxy(t, s, faultproxy.Options{Seed: 1, Rate: 1, Kinds: []string{faultproxy.Stale}})
	for _, key := range []string{"/b/s/HEAD.json", "/b/other.json"} {
		for _, v := range []string{"one", "two"} {
			if _, _, err := call(t, "PUT", p.URL+key, v); err != nil {
				t.Fatal(err)
			}
			if _, got, err := call(t, "GET", p.URL+key, ""); err != nil || !strings.HasPrefix(got, v) {
				t.Fatalf("%s: %q %v, want %s", key, got, err, v)
			}
		}
		_, got, err := call(t, "GET", p.URL+key, "")
		want := map[bool]string{true: "one", false: "two"}[strings.HasSuffix(key, "HEAD.json")]
		if err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q %v, want %s", key, got, err, want)
		}
	}
}

// TestSamePlan: what happens to a call follows from seed and number.
func TestSamePlan(t *testing.T) {
	fates := func(seed uint64) string {
		s := newServer(t)
		p := proxy(t, s, faultproxy.Options{Seed: seed, Rate: .5, Stall: time.Millisecond, Kinds: []string{faultproxy.Lost, faultproxy.Refused, faultproxy.Lied}})
		var b strings.Builder
		for range 50 {
			status, _, err := call(t, "PUT", p.URL+"/b/k", "x")
			fmt.Fprint(&b, status, err != nil, " ")
		}
		return b.String()
	}
	if a, b := fates(1), fates(1); a != b {
		t.Errorf("the same seed, other fates:\n%s\n%s", a, b)
	}
	if fates(1) == fates(2) {
		t.Error("two seeds, the same fates")
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // an echo
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	p, err := faultproxy.NewTCP(func() string { return l.Addr().String() }, faultproxy.Options{Seed: 1, Every: 2 * time.Millisecond, Longest: 2 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	data := bytes.Repeat([]byte("0123456789"), 100)
	whole, broken := 0, 0
	for deadline := time.Now().Add(time.Minute); ; {
		switch err := echo(p.Addr, data); {
		case errors.Is(err, errWrong):
			t.Fatal(err)
		case err != nil:
			broken++
		default:
			whole++
		}
		c := p.Counts()
		if whole > 0 && broken > 0 && c[faultproxy.Dropped] > 0 && c[faultproxy.Away] > 0 && c[faultproxy.Silent] > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d whole, %d broken, %v", whole, broken, c)
		}
	}
}

var errWrong = errors.New("other bytes than those sent")

func echo(addr string, data []byte) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	for range 20 {
		if _, err := c.Write(data); err != nil {
			return err
		}
		got := make([]byte, len(data))
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		if !bytes.Equal(got, data) {
			return errWrong
		}
	}
	return nil
}
