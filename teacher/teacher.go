// Package teacher is a small client of OpenAI-compatible chat endpoints: the teacher that answers in character when no local
// model does.
//
// It knows one request (a chat completion without streaming) and the model list, which answers pass with time and which never will, and how to keep the
// API key out of everything it says. It does not know constitutions or rows. Start reading at Client.Complete; retry.go has the rules of trying again.
package teacher

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options of a client. BaseURL and Model are required.
type Options struct {
	BaseURL string // up to and without /chat/completions: https://api.example.com/v1
	Model   string
	APIKey  string // "" = no Authorization header, for servers of your own

	Timeout     time.Duration // of one attempt; 0 = 10 min, because a busy endpoint holds requests that long
	MaxAttempts int           // 0 = 6
	MaxBody     int64         // bytes of an answer; 0 = 8 MiB
	Pause       time.Duration // before the second attempt, doubled after each; 0 = 1 s
	MaxPause    time.Duration // longest pause, also of those the endpoint asks for; 0 = 2 min

	DisableThinking bool // ask for answers without reasoning; always so at DeepSeek, which else ignores the temperature
	AllowHTTP       bool // permit http:// to other machines: the key and all texts then travel in the clear

	Transport http.RoundTripper // nil = http.DefaultTransport

	// Observe is told of every attempt at a request when it has ended, also those that are tried again; nil tells nobody. It must be quick, and safe
	// for concurrent use.
	Observe func(Attempt)
}

// Attempt is one request to the endpoint and what came of it.
type Attempt struct {
	Took                           time.Duration
	Outcome                        string // ok, refused, throttled, server_error, network, unreadable
	PromptTokens, CompletionTokens int    // as the endpoint counts them; 0 where it does not
}

// Message is one turn of the conversation.
type Message struct {
	Role    string `json:"role"` // system, user or assistant
	Content string `json:"content"`
}

// Request is one chat completion to ask for.
type Request struct {
	Messages    []Message
	Temperature float64
	TopP        float64 // 0 = the endpoint's default
	MaxTokens   int     // 0 = the endpoint's default
	Seed        *int64  // best effort of the endpoint
	Stop        []string
}

// Response is an answer.
type Response struct {
	Text   string // the answer itself, without what the model reasoned before it
	Finish string // "stop" when it ended by itself; else "length", "content_filter" or what the endpoint calls it
	Model  string // as the endpoint names it

	PromptTokens, CompletionTokens int
}

// Client asks one model of one endpoint. It is safe for concurrent use; when the endpoint says that it is asked too often, all requests of the client wait.
type Client struct {
	o    Options
	http *http.Client
	hide *strings.Replacer // of the key

	mu        sync.Mutex
	notBefore time.Time
}

// New checks the options; it connects to nothing.
func New(o Options) (*Client, error) {
	o.Timeout = cmp.Or(o.Timeout, 10*time.Minute)
	o.MaxAttempts = cmp.Or(o.MaxAttempts, 6)
	o.MaxBody = cmp.Or(o.MaxBody, 8<<20)
	o.Pause = cmp.Or(o.Pause, time.Second)
	o.MaxPause = cmp.Or(o.MaxPause, 2*time.Minute)
	base, err := checkURL(o.BaseURL, o.AllowHTTP)
	if err != nil {
		return nil, err
	}
	o.BaseURL = base.String()
	if o.Model == "" {
		return nil, errors.New("teacher: no model named; set the model id as the endpoint lists it")
	}
	if strings.ContainsAny(o.APIKey, "\r\n\t ") {
		return nil, errors.New("teacher: the API key contains white space; check how it was set")
	}
	if o.Timeout < 0 || o.MaxAttempts < 0 || o.MaxBody < 0 || o.Pause < 0 || o.MaxPause < 0 {
		return nil, errors.New("teacher: timeout, attempts, body size and pauses must not be negative")
	}
	host := base.Hostname()
	o.DisableThinking = o.DisableThinking || host == "deepseek.com" || strings.HasSuffix(host, ".deepseek.com")
	return &Client{o: o, hide: newHider(o.APIKey), http: &http.Client{
		Transport: o.Transport,
		// A redirect could carry the key to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func checkURL(base string, allowHTTP bool) (*url.URL, error) {
	const want = "write https://HOST/v1"
	u, err := url.Parse(strings.TrimSpace(base))
	switch {
	case base == "":
		return nil, fmt.Errorf("teacher: no base URL; %s", want)
	case err != nil:
		return nil, fmt.Errorf("teacher: the base URL can not be read; %s", want) // not quoted: it may hold a password
	case u.User != nil:
		return nil, errors.New("teacher: the base URL contains a user or password; give the key by its environment variable")
	case u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return nil, fmt.Errorf("teacher: %q is not a base URL; %s", base, want)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("teacher: the base URL has a query or fragment; %s", want)
	}
	ip := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || (ip != nil && ip.IsLoopback())
	if u.Scheme == "http" && !loopback && !allowHTTP {
		return nil, fmt.Errorf("teacher: %s has no TLS, so the key and all texts would travel in the clear; use https, or allow http for this endpoint", u.Redacted())
	}
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/chat/completions")
	return u, nil
}

// Check asks the endpoint for its models: a wrong URL, key or model id shows before any work is spent.
func (c *Client) Check(ctx context.Context) error {
	var ids []string
	err := c.try(ctx, "list the models", func(ctx context.Context, _ *Attempt) error {
		body, err := c.do(ctx, http.MethodGet, "/models", nil)
		if err != nil {
			return err
		}
		ids, err = parseModels(body)
		return err
	})
	if err != nil {
		return err
	}
	if slices.Contains(ids, c.o.Model) {
		return nil
	}
	slices.Sort(ids)
	const shown = 20
	list := strings.Join(ids[:min(shown, len(ids))], ", ")
	if len(ids) > shown {
		list += fmt.Sprintf(" and %d more", len(ids)-shown)
	}
	return &Error{op: "check the model", where: c.o.BaseURL, final: true,
		Message: fmt.Sprintf("there is no model %q; it has: %s", c.o.Model, cmp.Or(c.clean(list, 2000), "none"))}
}

// Complete asks for one answer. Failures that may pass are tried again, within MaxAttempts; the error is an *Error, and its NonRetryable says that asking again
// later is useless.
func (c *Client) Complete(ctx context.Context, r Request) (Response, error) {
	if len(r.Messages) == 0 {
		return Response{}, errors.New("teacher: no messages to answer")
	}
	payload, err := json.Marshal(c.payload(r))
	if err != nil {
		return Response{}, fmt.Errorf("teacher: encode the request: %w", err)
	}
	var out Response
	err = c.try(ctx, "answer", func(ctx context.Context, a *Attempt) error {
		body, err := c.do(ctx, http.MethodPost, "/chat/completions", payload)
		if err != nil {
			return err
		}
		out, err = parseCompletion(body)
		a.PromptTokens, a.CompletionTokens = out.PromptTokens, out.CompletionTokens
		return err
	})
	if err != nil {
		return Response{}, err
	}
	out.Text, out.Finish, out.Model = c.answer(out.Text), c.answer(out.Finish), c.answer(out.Model)
	return out, nil
}

type thinking struct {
	Type string `json:"type"`
}

type payload struct {
	Model       string    `json:"model"`
	Messages    []Message `json:"messages"`
	Temperature float64   `json:"temperature"`
	TopP        float64   `json:"top_p,omitempty"`
	MaxTokens   int       `json:"max_tokens,omitempty"`
	Seed        *int64    `json:"seed,omitempty"`
	Stop        []string  `json:"stop,omitempty"`
	Stream      bool      `json:"stream"`
	Thinking    *thinking `json:"thinking,omitempty"`
}

func (c *Client) payload(r Request) payload {
	p := payload{Model: c.o.Model, Messages: r.Messages, Temperature: r.Temperature, TopP: r.TopP, MaxTokens: r.MaxTokens, Seed: r.Seed, Stop: r.Stop}
	if c.o.DisableThinking {
		p.Thinking = &thinking{Type: "disabled"}
	}
	return p
}

// do sends one request and returns the body of a good answer.
func (c *Client) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.o.BaseURL+path, bytes.NewReader(body))
	if err != nil {
		return nil, &Error{Message: "build the request: " + err.Error(), final: true}
	}
	if c.o.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+c.o.APIKey)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.networkError(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := readLimited(resp.Body, c.o.MaxBody)
	if err != nil && resp.StatusCode == http.StatusOK {
		if errors.Is(err, errTooLarge) {
			return nil, &Error{Message: fmt.Sprintf("the answer is larger than %d bytes", c.o.MaxBody), final: true}
		}
		return nil, c.networkError(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp.StatusCode, resp.Header, data, time.Now())
	}
	data = stripKeepAlive(data)
	if !json.Valid(data) {
		kind := cmp.Or(resp.Header.Get("Content-Type"), "no content type")
		return nil, &Error{Message: fmt.Sprintf("the answer is not complete JSON (%s, %d bytes): %q; is this the base URL of an OpenAI-compatible endpoint?", kind, len(data), c.clean(string(data), 80))}
	}
	return data, nil
}
