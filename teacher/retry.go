package teacher

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Error is a failed request. It never contains the API key.
type Error struct {
	Status     int           // HTTP status of the answer; 0 = there was none, or it could not be read
	Message    string        // what the endpoint or the network said
	RetryAfter time.Duration // how long the endpoint asks to wait; 0 = it does not say
	Attempts   int

	op, where string
	final     bool
	cause     error
}

// Error says what was asked of whom, what came back, and the next step.
func (e *Error) Error() string {
	s := "teacher: "
	if e.op != "" {
		s += e.op + " (" + e.where + "): "
	}
	if e.Status != 0 {
		s += fmt.Sprintf("status %d: ", e.Status)
	}
	s += e.Message
	if e.Attempts > 1 {
		s += fmt.Sprintf(" (%d attempts)", e.Attempts)
	}
	return s + e.hint()
}

func (e *Error) hint() string {
	switch {
	case e.Status == http.StatusUnauthorized:
		return "; check the API key and the name of its environment variable"
	case e.Status == http.StatusPaymentRequired:
		return "; the account has no balance: add some, then resume"
	case e.Status == http.StatusForbidden:
		return "; the key may not use this model"
	case e.Status == http.StatusNotFound:
		return "; check the base URL and the model id"
	case e.Status == http.StatusTooManyRequests:
		return "; lower the teacher's concurrency"
	case e.Status >= 300 && e.Status < 400:
		return "; redirects are not followed: use the final base URL"
	}
	return ""
}

// Unwrap gives what lies below, such as context.Canceled.
func (e *Error) Unwrap() error { return e.cause }

// NonRetryable is true when the same request will fail in the same way later.
func (e *Error) NonRetryable() bool { return e.final }

// try runs f until it succeeds, fails for good, or the attempts or ctx are at their end.
func (c *Client) try(ctx context.Context, op string, f func(context.Context, *Attempt) error) error {
	pause := c.o.Pause
	for attempt := 1; ; attempt++ {
		err := c.wait(ctx)
		if err == nil {
			var a Attempt
			began := time.Now()
			err = f(ctx, &a)
			c.observe(a, time.Since(began), err)
		}
		if err == nil {
			return nil
		}
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{Message: err.Error(), cause: err}
		}
		e.op, e.where, e.Attempts = op, c.o.BaseURL, attempt
		e.Message = c.clean(e.Message, 1000)
		e.cause = plain(e.cause) // Temporal keeps every message of the chain
		if ctx.Err() != nil {
			e.cause = ctx.Err()
			return e
		}
		if e.final || attempt >= c.o.MaxAttempts || e.RetryAfter > c.o.MaxPause {
			return e
		}
		// The upper half of the pause is drawn, so that many requests do not come back together.
		rest := max(e.RetryAfter, pause/2+rand.N(pause/2+1))
		if e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable {
			c.holdAll(rest)
		}
		if !sleep(ctx, rest) {
			e.cause = ctx.Err()
			return e
		}
		pause = min(2*pause, c.o.MaxPause)
	}
}

// observe tells of an attempt.
func (c *Client) observe(a Attempt, took time.Duration, err error) {
	if c.o.Observe == nil {
		return
	}
	a.Took, a.Outcome = took, "ok"
	var e *Error
	switch errors.As(err, &e); {
	case err == nil:
	case e == nil:
		a.Outcome = "unreadable"
	case e.Status == http.StatusTooManyRequests:
		a.Outcome = "throttled"
	case e.Status >= 500:
		a.Outcome = "server_error"
	case e.Status != 0:
		a.Outcome = "refused"
	case e.cause != nil:
		a.Outcome = "network"
	default:
		a.Outcome = "unreadable"
	}
	c.o.Observe(a)
}

// holdAll keeps every request of this client back for a while.
func (c *Client) holdAll(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := time.Now().Add(d); t.After(c.notBefore) {
		c.notBefore = t
	}
}

func (c *Client) wait(ctx context.Context) error {
	c.mu.Lock()
	d := time.Until(c.notBefore)
	c.mu.Unlock()
	if d > 0 && !sleep(ctx, d) {
		return &Error{Message: "waiting for the endpoint: " + ctx.Err().Error(), cause: ctx.Err()}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// plain keeps of an error below only what has fixed words: others may quote what the endpoint sent, and so the key.
func plain(err error) error {
	for _, known := range []error{context.Canceled, context.DeadlineExceeded, io.ErrUnexpectedEOF} {
		if errors.Is(err, known) {
			return known
		}
	}
	return nil
}

// newHider replaces a key in the forms in which an endpoint may repeat it.
func newHider(key string) *strings.Replacer {
	if key == "" {
		return strings.NewReplacer()
	}
	var pairs []string
	quoted, _ := json.Marshal(key) // a string marshals
	for _, form := range []string{key, strings.Trim(string(quoted), `"`), url.QueryEscape(key), url.PathEscape(key),
		base64.StdEncoding.EncodeToString([]byte(key)), base64.StdEncoding.EncodeToString([]byte("Bearer " + key)), base64.RawURLEncoding.EncodeToString([]byte(key))} {
		pairs = append(pairs, form, "[key]")
	}
	return strings.NewReplacer(pairs...)
}

// secretBytes is the length from which a key is one: servers of one's own take words such as "none" or "ollama", and those
// must not vanish from what a teacher says.
const secretBytes = 16

// answer keeps the key out of what becomes a row.
func (c *Client) answer(s string) string {
	if len(c.o.APIKey) < secretBytes {
		return s
	}
	return c.hide.Replace(s)
}

// clean keeps the key out of a message, also when the endpoint repeats it, and the message short and on one line.
func (c *Client) clean(s string, limit int) string {
	s = c.hide.Replace(s)
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}

func (c *Client) networkError(ctx context.Context, err error) *Error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Error{Message: fmt.Sprintf("no complete answer within %s", c.o.Timeout), cause: err}
	}
	return &Error{Message: err.Error() + "; check that the endpoint can be reached", cause: err}
}

// statusError reads an answer that is not 200. Of the 4xx only those pass with time that say so.
func statusError(status int, header http.Header, body []byte, now time.Time) *Error {
	e := &Error{Status: status, Message: errorMessage(body), RetryAfter: retryAfter(header.Get("Retry-After"), now)}
	if e.Message == "" {
		e.Message = http.StatusText(status)
	}
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
	default:
		e.final = status < 500 || status == http.StatusNotImplemented
	}
	return e
}

// errorMessage takes the text out of {"error": {"message": ...}} and its relatives.
func errorMessage(body []byte) string {
	var doc struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
		Detail  string          `json:"detail"`
	}
	body = stripKeepAlive(body)
	if json.Unmarshal(body, &doc) != nil {
		if bytes.HasPrefix(body, []byte("<")) {
			return "" // a page of HTML says nothing here
		}
		return string(body) // shortened later, after the key is taken out of it
	}
	var inner struct {
		Message string `json:"message"`
	}
	var plain string
	switch {
	case json.Unmarshal(doc.Error, &inner) == nil && inner.Message != "":
		return inner.Message
	case json.Unmarshal(doc.Error, &plain) == nil && plain != "":
		return plain
	case doc.Message != "":
		return doc.Message
	}
	return doc.Detail
}

// retryAfter reads the header: seconds, or a date.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	const most = 24 * time.Hour
	if s, err := strconv.ParseFloat(value, 64); err == nil {
		switch {
		case !(s > 0): // also NaN
			return 0
		case s > most.Seconds():
			return most
		}
		return time.Duration(s * float64(time.Second))
	}
	if t, err := http.ParseTime(value); err == nil {
		return min(max(t.Sub(now), 0), most)
	}
	return 0
}

var errTooLarge = errors.New("too large")

func readLimited(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if int64(len(data)) > limit {
		return data[:limit], errTooLarge
	}
	return data, err
}
