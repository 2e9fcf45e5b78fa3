package store

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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
