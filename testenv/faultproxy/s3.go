package faultproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// bodyLimit bounds what is kept of one request or answer.
const bodyLimit = 1 << 30

// S3 is a proxy in front of an S3 server.
type S3 struct {
	counter
	// URL is the endpoint for clients. Signatures hold: the server sees the host that the client named.
	URL string

	o        Options
	upstream func() string
	server   *http.Server
	to       *http.Transport
	calls    atomic.Int64

	mu   sync.Mutex
	seen map[string][]*answer // of objects that change: what was answered before, oldest first
}

// answer is a whole answer of the server.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// NewS3 starts a proxy on a free port of the loopback interface. upstream gives host:port of the server at each call:
// a server that was started again may be elsewhere.
func NewS3(upstream func() string, o Options) (*S3, error) {
	if o.Stall == 0 {
		o.Stall = time.Second
	}
	if len(o.Kinds) == 0 {
		o.Kinds = S3Kinds()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("faultproxy: %w", err)
	}
	p := &S3{URL: "http://" + l.Addr().String(), o: o, upstream: upstream, seen: map[string][]*answer{},
		to: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16}}
	p.server = &http.Server{Handler: p}
	go func() { _ = p.server.Serve(l) }() // ends with Close
	return p, nil
}

// Close ends the proxy and its connections.
func (p *S3) Close() {
	_ = p.server.Close()
	p.to.CloseIdleConnections()
}

// cut ends the client's connection without a word.
func cut() { panic(http.ErrAbortHandler) }

// ServeHTTP carries one call.
func (p *S3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := p.calls.Add(1)
	p.add("calls")
	body, err := io.ReadAll(io.LimitReader(r.Body, bodyLimit))
	if err != nil {
		cut() // the client went away
	}
	kind := ""
	if draw(p.o.Seed, "fault", n) < p.o.Rate {
		kind = p.o.Kinds[int(float64(len(p.o.Kinds))*draw(p.o.Seed, "kind", n))]
	}
	switch kind {
	case Refused:
		p.add(kind)
		refuse(w, r, int(6*draw(p.o.Seed, "refusal", n)))
		return
	case Torn:
		if len(body) > 1 {
			p.add(kind)
			p.tear(r, body[:len(body)/2], len(body))
			cut()
		}
	case Stale:
		if a := p.earlier(r, draw(p.o.Seed, "which", n)); a != nil {
			p.add(kind)
			a.write(w, r)
			return
		}
	}
	a, err := p.forward(r, body)
	if err != nil {
		p.add("unreachable") // the server itself is away
		cut()
	}
	p.remember(r, a)
	switch kind {
	case Lost:
		p.add(kind)
		cut()
	case Lied:
		p.add(kind)
		refuse(w, r, 0)
		return
	case Slow:
		p.add(kind)
		time.Sleep(time.Duration(draw(p.o.Seed, "slow", n) * float64(p.o.Stall)))
	case Stalled, Cut:
		if r.Method == http.MethodHead || len(a.body) < 2 {
			break
		}
		p.add(kind)
		a.head(w)
		_, _ = w.Write(a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
		if kind == Cut {
			cut()
		}
		time.Sleep(p.o.Stall)
		_, _ = w.Write(a.body[len(a.body)/2:])
		return
	}
	a.write(w, r)
}

// refuse answers as an overloaded server: one of three errors, with a body or without.
func refuse(w http.ResponseWriter, r *http.Request, which int) {
	status := []int{http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusTooManyRequests}[which%3]
	code := []string{"InternalError", "SlowDown", "TooManyRequests"}[which%3]
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	if which >= 3 && r.Method != http.MethodHead {
		_, _ = fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>made by a test</Message></Error>`, code)
	}
}

// forward sends the call to the server and takes in the whole answer.
func (p *S3) forward(r *http.Request, body []byte) (*answer, error) {
	out, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+p.upstream()+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	out.URL.RawPath, out.URL.Path, out.URL.RawQuery = r.URL.RawPath, r.URL.Path, r.URL.RawQuery
	out.Header, out.Host, out.ContentLength = r.Header.Clone(), r.Host, int64(len(body))
	out.Header.Del("Connection")
	out.Header.Del("Expect")
	in, err := p.to.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	a := &answer{status: in.StatusCode, header: in.Header.Clone()}
	a.header.Del("Connection")
	a.body, err = io.ReadAll(io.LimitReader(in.Body, bodyLimit))
	return a, errors.Join(err, in.Body.Close())
}

func (a *answer) head(w http.ResponseWriter) {
	for k, v := range a.header {
		w.Header()[k] = v
	}
	if w.Header().Get("Content-Length") == "" {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
}

func (a *answer) write(w http.ResponseWriter, r *http.Request) {
	a.head(w)
	if r.Method != http.MethodHead {
		_, _ = w.Write(a.body) // a client that went away is its own fault
	}
}

// tear sends the head of a request and the first part of its body, and ends the connection.
func (p *S3) tear(r *http.Request, part []byte, whole int) {
	c, err := net.DialTimeout("tcp", p.upstream(), 5*time.Second)
	if err != nil {
		return // the server is away: as good as torn
	}
	defer func() { _ = c.Close() }()
	var b bytes.Buffer
	_, _ = fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", r.Method, r.URL.RequestURI(), r.Host, whole) // a buffer takes all
	h := r.Header.Clone()
	h.Del("Content-Length")
	h.Del("Expect")
	_ = h.Write(&b)
	b.WriteString("\r\n")
	b.Write(part)
	_, _ = c.Write(b.Bytes())
	time.Sleep(10 * time.Millisecond) // the server shall have begun
}

// changes says that an object is written more than once.
func changes(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/HEAD.json") }

func isRead(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// remember keeps what was answered for an object that changes.
func (p *S3) remember(r *http.Request, a *answer) {
	if !changes(r) || !isRead(r) || a.status != http.StatusOK && a.status != http.StatusNotFound {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	k := r.Method + r.URL.Path
	if s := p.seen[k]; len(s) == 0 || s[len(s)-1].header.Get("ETag") != a.header.Get("ETag") {
		p.seen[k] = append(s, a)
	}
}

// earlier is one of the answers before the last known one; nil when there is none.
func (p *S3) earlier(r *http.Request, which float64) *answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.seen[r.Method+r.URL.Path]
	if !changes(r) || !isRead(r) || len(s) < 2 {
		return nil
	}
	return s[int(which*float64(len(s)-1))]
}
