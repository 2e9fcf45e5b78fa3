package store

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestSkewedClockIsNamed: a server that refuses a request for its time is not asked again, and the message says what to do.
func TestSkewedClockIsNamed(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead { // the bucket is there
			return
		}
		asked++
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the request time and the current time is too large.</Message></Error>`))
	}))
	defer server.Close()
	s, err := Open(t.Context(), Config{Endpoint: server.URL, Bucket: "bucket", AccessKey: "a", SecretKey: "b"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.GetKey(t.Context(), "a/b")
	if err == nil || !strings.Contains(err.Error(), "set the clock of this machine") || asked != 1 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

// TestSkewIsLearnt: when the server's clock and ours drift hours apart, in either direction and in the middle of the work,
// one request is refused, and the next ones are signed by the server's clock.
func TestSkewIsLearnt(t *testing.T) {
	var ahead, refused, served atomic.Int64 // ahead: nanoseconds of the server's clock before ours
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now().Add(time.Duration(ahead.Load()))
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if err != nil {
			t.Error(err)
		}
		if now.Sub(signed).Abs() > 15*time.Minute {
			refused.Add(1)
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `<Error><Code>RequestTimeTooSkewed</Code><Message>too far</Message></Error>`)
			return
		}
		served.Add(1)
		_, _ = io.WriteString(w, "here")
	}))
	defer server.Close()
	s, err := Open(t.Context(), Config{Endpoint: server.URL, Bucket: "bucket", AccessKey: "a", SecretKey: "b"})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []time.Duration{0, time.Hour, -time.Hour, 0, 26 * time.Hour} {
		refused.Store(0)
		served.Store(0)
		jump := time.Duration(ahead.Swap(int64(d))) != d
		for range 2 {
			if b, err := s.GetKey(t.Context(), "a/b"); err != nil || string(b) != "here" {
				t.Errorf("server %v ahead: %q, %v", d, b, err)
			}
		}
		if n := refused.Load(); n > 1 || jump != (n == 1) || served.Load() != 2 {
			t.Errorf("server %v ahead: %d requests refused, %d served", d, n, served.Load())
		}
	}
}
