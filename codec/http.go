package codec

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"go.temporal.io/sdk/converter"
)

const maxBody = 16 << 20 // bytes of a request; Temporal itself takes 4 MiB

// Handler is the endpoint at which a browser with the Temporal UI has payloads decrypted (POST .../decode, .../encode).
// It has no password: serve it on loopback. Browsers may use it from pages of the given origins only, such as
// "http://127.0.0.1:8233", and only under a loopback name, so that no other web page reaches it.
func Handler(k *Keys, origins []string) (http.Handler, error) {
	if k == nil {
		return nil, errors.New("codec: the endpoint needs a key file")
	}
	for _, o := range origins {
		u, err := url.Parse(o)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != o {
			return nil, fmt.Errorf("codec: origin %q: want http://HOST:PORT of the Temporal UI, without a path", o)
		}
	}
	inner := converter.NewPayloadCodecHTTPHandler(k)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Vary", "Origin")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		if !loopbackHost(r.Host) { // a foreign name that points here: DNS rebinding
			http.Error(w, "this endpoint answers on a loopback name only", http.StatusForbidden)
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" {
			if !slices.Contains(origins, origin) {
				http.Error(w, "this origin is not allowed: start `character codec` with --origin", http.StatusForbidden)
				return
			}
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Allow-Methods", "POST, OPTIONS")
			h.Set("Access-Control-Allow-Headers", "Content-Type, X-Namespace")
		}
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		// A page elsewhere can send a form without asking first, but not this type.
		if t, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(t) != "application/json" {
			http.Error(w, "want Content-Type application/json", http.StatusUnsupportedMediaType)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		inner.ServeHTTP(w, r)
	}), nil
}

func loopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
