package teacher_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/teacher"
	fake "github.com/opencharacter/opencharacter/testenv/teacher"
)

const key = "sk-very-secret-key-0123456789"

func client(t *testing.T, s *fake.Server, change func(o *teacher.Options)) *teacher.Client {
	t.Helper()
	o := teacher.Options{BaseURL: s.URL, Model: "test-model", APIKey: s.Key, Pause: time.Millisecond, MaxPause: 2 * time.Second, Timeout: 5 * time.Second}
	if change != nil {
		change(&o)
	}
	c, err := teacher.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ask(t *testing.T, c *teacher.Client) (teacher.Response, error) {
	t.Helper()
	return c.Complete(t.Context(), teacher.Request{Messages: []teacher.Message{{Role: "user", Content: "ahoy there"}}, Temperature: 0.7, MaxTokens: 64})
}

func TestComplete(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, fake.Options{Key: key})
	seed := int64(7)
	c := client(t, s, nil)
	got, err := c.Complete(t.Context(), teacher.Request{
		Messages:    []teacher.Message{{Role: "system", Content: "You are a captain."}, {Role: "user", Content: "ahoy there"}},
		Temperature: 0, TopP: 0.95, MaxTokens: 32, Seed: &seed, Stop: []string{"\nUser:"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := (teacher.Response{Text: "AHOY THERE", Finish: "stop", Model: "test-model", PromptTokens: 6, CompletionTokens: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	r := s.Requests()[0]
	if r.Temperature == nil || *r.Temperature != 0 || *r.TopP != 0.95 || r.MaxTokens != 32 || *r.Seed != 7 || r.Stop[0] != "\nUser:" || r.Thinking != nil || len(r.Messages) != 2 {
		t.Errorf("request %+v", r)
	}
}

func TestWhatPasses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		script   []fake.Behaviour
		finish   string
		requests int
	}{
		"keep-alive padding":      {[]fake.Behaviour{fake.KeepAlive(6, 5*time.Millisecond)}, "stop", 1},
		"429 without Retry-After": {[]fake.Behaviour{fake.TooMany(""), fake.TooMany("")}, "stop", 3},
		"429 with seconds":        {[]fake.Behaviour{fake.TooMany("0.05")}, "stop", 2},
		"429 with a bad header":   {[]fake.Behaviour{fake.TooMany("soon")}, "stop", 2},
		"500":                     {[]fake.Behaviour{fake.Status(500), fake.Status(502), fake.Status(503)}, "stop", 4},
		"broken connection":       {[]fake.Behaviour{fake.Truncated}, "stop", 2},
		"half of the JSON":        {[]fake.Behaviour{fake.HalfJSON}, "stop", 2},
		"garbage":                 {[]fake.Behaviour{fake.Garbage}, "stop", 2},
		"a page":                  {[]fake.Behaviour{fake.WrongContentType}, "stop", 2},
		"no choices":              {[]fake.Behaviour{fake.EmptyChoices}, "stop", 2},
		"error inside 200":        {[]fake.Behaviour{fake.ErrorInside(502)}, "stop", 2},
		"cut by length":           {[]fake.Behaviour{fake.FinishLength}, "length", 1},
		"reasoning apart":         {[]fake.Behaviour{fake.Reasoning}, "stop", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fake.Start(t, fake.Options{Script: tc.script})
			got, err := ask(t, client(t, s, nil))
			if err != nil {
				t.Fatal(err)
			}
			if got.Text != "AHOY THERE" || got.Finish != tc.finish {
				t.Errorf("%+v", got)
			}
			if n := len(s.Requests()); n != tc.requests {
				t.Errorf("%d requests, want %d", n, tc.requests)
			}
		})
	}
}

func TestWhatNeverPasses(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401, 402, 403, 404, 422, 501} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			s := fake.Start(t, fake.Options{Key: key, Script: []fake.Behaviour{fake.Status(status)}})
			_, err := ask(t, client(t, s, nil))
			var e *teacher.Error
			if !errors.As(err, &e) || !e.NonRetryable() || e.Status != status || e.Attempts != 1 {
				t.Fatalf("%#v", err)
			}
			if n := len(s.Requests()); n != 1 {
				t.Errorf("%d requests: it was tried again", n)
			}
		})
	}
	s := fake.Start(t, fake.Options{Script: []fake.Behaviour{fake.ErrorInside(402)}})
	_, err := ask(t, client(t, s, nil))
	var e *teacher.Error
	if !errors.As(err, &e) || !e.NonRetryable() {
		t.Errorf("402 inside 200: %v", err)
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]fake.Behaviour{"429": fake.TooMany(""), "500": fake.Status(500), "garbage": fake.Garbage, "page": fake.WrongContentType, "empty": fake.EmptyChoices, "truncated": fake.Truncated} {
		s := fake.Start(t, fake.Options{Script: []fake.Behaviour{b, b, b, b, b}})
		_, err := ask(t, client(t, s, func(o *teacher.Options) { o.MaxAttempts = 3 }))
		var e *teacher.Error
		if !errors.As(err, &e) || e.NonRetryable() || e.Attempts != 3 || !strings.Contains(err.Error(), s.URL) {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(s.Requests()); n != 3 {
			t.Errorf("%s: %d requests, want 3", name, n)
		}
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, fake.Options{Script: []fake.Behaviour{fake.TooMany("0.3")}})
	start := time.Now()
	if _, err := ask(t, client(t, s, nil)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 300*time.Millisecond {
		t.Errorf("came back after %s, asked to wait 0.3 s", d)
	}
	// Longer than this client may wait: the caller learns how long, and nobody sleeps.
	for _, header := range []string{"600", time.Now().Add(10 * time.Minute).UTC().Format(http.TimeFormat)} {
		s = fake.Start(t, fake.Options{Script: []fake.Behaviour{fake.TooMany(header)}})
		_, err := ask(t, client(t, s, nil))
		var e *teacher.Error
		if !errors.As(err, &e) || e.NonRetryable() || e.RetryAfter < 500*time.Second || e.RetryAfter > 600*time.Second || len(s.Requests()) != 1 {
			t.Errorf("Retry-After %s: %v, %+v", header, err, e)
		}
	}
}

func TestHangingServer(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, fake.Options{Script: []fake.Behaviour{fake.Hang, fake.Hang, fake.KeepAlive(1000, 20*time.Millisecond)}})
	c := client(t, s, func(o *teacher.Options) { o.Timeout, o.MaxAttempts = 100*time.Millisecond, 3 })
	if _, err := ask(t, c); err == nil || !strings.Contains(err.Error(), "no complete answer within 100ms") {
		t.Errorf("%v", err)
	}
	s = fake.Start(t, fake.Options{Script: []fake.Behaviour{fake.Hang}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := client(t, s, nil).Complete(ctx, teacher.Request{Messages: []teacher.Message{{Role: "user", Content: "x"}}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("canceled by the caller: %v", err)
	}
}

func TestBodyIsBounded(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, fake.Options{Script: []fake.Behaviour{fake.Endless}})
	_, err := ask(t, client(t, s, func(o *teacher.Options) { o.MaxBody = 1 << 18 }))
	var e *teacher.Error
	if !errors.As(err, &e) || !e.NonRetryable() || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("%v", err)
	}
}

func TestRedirectDoesNotCarryTheKey(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(other.Close)
	s := fake.Start(t, fake.Options{Script: []fake.Behaviour{fake.Redirect(other.URL)}})
	if _, err := ask(t, client(t, s, nil)); err == nil || !strings.Contains(err.Error(), "redirects are not followed") {
		t.Errorf("%v", err)
	}
	if asked.Load() != 0 {
		t.Error("the redirect was followed")
	}
}

// Not in an error of any kind, whatever the endpoint repeats, and not in the log.
func TestKeyNeverShows(t *testing.T) {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	defer log.SetOutput(log.Default().Writer())
	leaks := func(err error) bool {
		if err == nil {
			t.Error("no error")
			return false
		}
		all := fmt.Sprintf("%v %s %q", err, err, err)
		for e := err; e != nil; e = errors.Unwrap(e) {
			all += e.Error()
		}
		return strings.Contains(all, "secret-key") || strings.Contains(all, base64.StdEncoding.EncodeToString([]byte(key))[:12]) || strings.Contains(all, base64.StdEncoding.EncodeToString([]byte("Bearer " + key))[:20]) || strings.Contains(all, "sk-very")
	}
	echo := func(status int) fake.Behaviour {
		return func(_ *fake.Server, w http.ResponseWriter, r *http.Request, _ fake.Request) {
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, strings.Repeat("x", 270), " your header: ", r.Header.Get("Authorization"))
		}
	}
	// Not even HTTP: the transport's error quotes what came.
	raw := func(_ *fake.Server, w http.ResponseWriter, r *http.Request, _ fake.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = fmt.Fprintf(conn, "%s\r\n\r\n", r.Header.Get("Authorization"))
		_ = conn.Close()
	}
	encoded := func(_ *fake.Server, w http.ResponseWriter, r *http.Request, _ fake.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = fmt.Fprint(w, "base64 of it: ", base64.StdEncoding.EncodeToString([]byte(r.Header.Get("Authorization"))))
	}
	for _, b := range []fake.Behaviour{raw, encoded, fake.Status(400), fake.Status(401), fake.Status(500), fake.TooMany(""), fake.Truncated, fake.Garbage, fake.EmptyChoices, echo(200), echo(418), echo(503)} {
		s := fake.Start(t, fake.Options{Key: key, Script: []fake.Behaviour{b, b}})
		if _, err := ask(t, client(t, s, func(o *teacher.Options) { o.MaxAttempts = 2 })); leaks(err) {
			t.Error(err)
		}
	}
	s := fake.Start(t, fake.Options{Key: "another-key"})
	c := client(t, s, func(o *teacher.Options) { o.APIKey = key })
	if err := c.Check(t.Context()); leaks(err) || !strings.Contains(err.Error(), "check the API key") {
		t.Error(err)
	}
	if _, err := teacher.New(teacher.Options{BaseURL: "http://" + key + "@127.0.0.1/v1", Model: "m"}); leaks(err) {
		t.Error(err)
	}
	if _, err := teacher.New(teacher.Options{BaseURL: "https://x:" + key + "@[bad/v1", Model: "m"}); leaks(err) {
		t.Error(err)
	}
	if _, err := teacher.New(teacher.Options{BaseURL: "https://example.com/v1", Model: "m", APIKey: key + "\n"}); leaks(err) {
		t.Error(err)
	}
	if logged.Len() != 0 {
		t.Errorf("logged: %s", logged.String())
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	models := make([]string, 30)
	for i := range models {
		models[i] = fmt.Sprintf("model-%02d", i)
	}
	s := fake.Start(t, fake.Options{Models: models})
	if err := client(t, s, func(o *teacher.Options) { o.Model = "model-29" }).Check(t.Context()); err != nil {
		t.Error(err)
	}
	err := client(t, s, func(o *teacher.Options) { o.Model = "gone" }).Check(t.Context())
	var e *teacher.Error
	if !errors.As(err, &e) || !e.NonRetryable() || !strings.Contains(err.Error(), `no model "gone"`) || !strings.Contains(err.Error(), "model-00, model-01") || !strings.Contains(err.Error(), "10 more") {
		t.Errorf("%v", err)
	}
	err = client(t, s, func(o *teacher.Options) { o.BaseURL = strings.TrimSuffix(s.URL, "/v1") }).Check(t.Context())
	if !errors.As(err, &e) || !e.NonRetryable() || !strings.Contains(err.Error(), "check the base URL") {
		t.Errorf("wrong path: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "http://" + l.Addr().String() + "/v1"
	l.Close()
	err = client(t, s, func(o *teacher.Options) { o.BaseURL, o.MaxAttempts = gone, 2 }).Check(t.Context())
	if !errors.As(err, &e) || e.NonRetryable() || !strings.Contains(err.Error(), "can be reached") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"":                             "no base URL",
		"api.example.com/v1":           "not a base URL",
		"ftp://api.example.com":        "not a base URL",
		"http://api.example.com/v1":    "no TLS",
		"http://10.0.0.5:8000/v1":      "no TLS",
		"http://localhost.evil.com/v1": "no TLS",
		"https://me@api.example.com":   "user or password",
		"https://api.example.com?x=1":  "query",
		"https://%zz":                  "can not be read",
	} {
		if _, err := teacher.New(teacher.Options{BaseURL: url, Model: "m"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
	for _, o := range []teacher.Options{
		{BaseURL: "https://api.example.com/v1/"}, {BaseURL: "http://127.0.0.1:8080/v1"}, {BaseURL: "http://localhost:11434/v1"}, {BaseURL: "http://[::1]:1/v1"},
		{BaseURL: "http://10.0.0.5:8000/v1", AllowHTTP: true},
	} {
		o.Model = "m"
		if _, err := teacher.New(o); err != nil {
			t.Errorf("%s: %v", o.BaseURL, err)
		}
	}
	if _, err := teacher.New(teacher.Options{BaseURL: "https://api.example.com"}); err == nil || !strings.Contains(err.Error(), "no model") {
		t.Errorf("no model: %v", err)
	}
	if _, err := teacher.New(teacher.Options{BaseURL: "https://api.example.com", Model: "m", MaxAttempts: -1}); err == nil {
		t.Error("-1 attempts were accepted")
	}
	c, err := teacher.New(teacher.Options{BaseURL: "https://api.example.com", Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Complete(t.Context(), teacher.Request{}); err == nil {
		t.Error("a request without messages was accepted")
	}
}

// capture keeps the last request instead of sending it.
type capture struct {
	url  string
	body string
}

func (c *capture) RoundTrip(r *http.Request) (*http.Response, error) {
	var b bytes.Buffer
	_, _ = b.ReadFrom(r.Body)
	c.url, c.body = r.URL.String(), b.String()
	rec := httptest.NewRecorder()
	rec.WriteString(`{"choices":[{"message":{"content":"x"},"finish_reason":"eos_token"}]}`)
	return rec.Result(), nil
}

func TestThinkingIsTurnedOff(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		o    teacher.Options
		url  string
		want bool
	}{
		{teacher.Options{BaseURL: "https://api.deepseek.com"}, "https://api.deepseek.com/chat/completions", true},
		{teacher.Options{BaseURL: "https://api.deepseek.com/v1/chat/completions"}, "https://api.deepseek.com/v1/chat/completions", true},
		{teacher.Options{BaseURL: "https://notdeepseek.com/v1/"}, "https://notdeepseek.com/v1/chat/completions", false},
		{teacher.Options{BaseURL: "https://api.example.com/v1", DisableThinking: true}, "https://api.example.com/v1/chat/completions", true},
	} {
		var sent capture
		tc.o.Model, tc.o.Transport = "m", &sent
		c, err := teacher.New(tc.o)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ask(t, c)
		if err != nil || got.Finish != "stop" {
			t.Fatalf("%+v, %v", got, err)
		}
		if sent.url != tc.url || strings.Contains(sent.body, `"thinking":{"type":"disabled"}`) != tc.want {
			t.Errorf("%s: %s", sent.url, sent.body)
		}
	}
}

// TestKeyIsTakenOutOfAnswers: an endpoint that repeats the key in its answer does not bring it into a data set; the words
// that servers of one's own take for a key stay words.
func TestKeyIsTakenOutOfAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ key, want string }{{key, "you sent Bearer [key], thanks"}, {"ollama", "you sent Bearer ollama, thanks"}} {
		s := fake.Start(t, fake.Options{Key: c.key, Answer: func([]fake.Message) string { return "you sent Bearer " + c.key + ", thanks" }})
		r, err := ask(t, client(t, s, nil))
		if err != nil || r.Text != c.want {
			t.Errorf("%q %v, want %q", r.Text, err, c.want)
		}
	}
}
