package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/cmd/internal/telemetry"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/serve"
	"github.com/opencharacter/opencharacter/tensor"
)

type serveFlags struct {
	model                    modelFlags
	addr, keyEnv, cert, key  string
	rows, queue, context, mb int
	grace                    time.Duration
	json                     bool
	watched                  observed
}

func serveCmd() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve --id ID",
		Short: "Answer the OpenAI API with a run's models",
		Long: `Serve a finished run's models base, dpo and character to OpenAI's clients and everything else that speaks their API:
/v1/models, /v1/chat/completions, /v1/completions, with streaming, log-probs, seeds and stop texts. No constitution is
in the prompt. Clients share one batch; what one gets does not depend on who else asks. docs/serve.md has the details.

The server listens on this machine only. Any other address needs a key: put one in an environment variable and name
the variable with --api-key-env. Ctrl-C lets running answers end; a second one ends them.`,
		Example: `  character serve --id captain --addr 127.0.0.1:8080
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \
    -d '{"model": "character", "messages": [{"role": "user", "content": "Where do you sail?"}]}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			o, err := f.check()
			if err != nil {
				return err
			}
			seen, err := f.watched.start(cmd)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, seen.Close()) }()
			o.Answered = seen.Set.Served
			l, err := f.listen()
			if err != nil {
				return err
			}
			if err := f.open(cmd, &o); err != nil {
				return errors.Join(err, l.Close())
			}
			s, err := serve.New(o)
			if err != nil {
				return errors.Join(usage(err), l.Close())
			}
			defer s.Close()
			return f.run(cmd, s, o, l, seen)
		},
	}
	c.Flags().StringVar(&f.model.id, "id", "", "the run")
	f.model.addWeights(c)
	c.Flags().StringVar(&f.addr, "addr", "127.0.0.1:0", "address and port; port 0 takes a free one, which is printed")
	c.Flags().StringVar(&f.keyEnv, "api-key-env", "", "name of the environment variable with the key that clients must send")
	c.Flags().StringVar(&f.cert, "tls-cert", "", "certificate file (PEM) for https; with --tls-key")
	c.Flags().StringVar(&f.key, "tls-key", "", "the certificate's key file (PEM)")
	c.Flags().IntVar(&f.rows, "rows", 16, "most answers in work at once")
	c.Flags().IntVar(&f.queue, "queue", 64, "most answers that wait for their turn; more are refused with status 429")
	c.Flags().IntVar(&f.context, "context", 0, "most tokens of prompt and answer together (0: the model's own)")
	c.Flags().IntVar(&f.mb, "cache-mb", 1024, "most memory for the keys and values of all answers")
	f.watched.register(c)
	c.Flags().DurationVar(&f.grace, "grace", 30*time.Second, "how long running answers may go on after Ctrl-C")
	c.Flags().BoolVar(&f.json, "json", false, "print one JSON line when ready: url, base_url, models, context, rows, queue")
	return c
}

// leastKey is the length below which a key is guessed too soon.
const leastKey = 16

// check turns the flags into options, before anything is opened.
func (f *serveFlags) check() (serve.Options, error) {
	o := serve.Options{Rows: f.rows, Queue: f.queue, Context: f.context, CacheBytes: int64(f.mb) << 20}
	if f.queue == 0 {
		o.Queue = -1
	}
	switch {
	case f.model.id == "":
		return o, usage(errors.New("--id is missing: name the run (`character status` lists them)"))
	case f.rows < 1 || f.rows > 1024:
		return o, usage(fmt.Errorf("--rows %d: choose 1 to 1024", f.rows))
	case f.queue < 0 || f.queue > 1<<16:
		return o, usage(fmt.Errorf("--queue %d: choose 0 to %d", f.queue, 1<<16))
	case f.context < 0 || f.context == 1:
		return o, usage(fmt.Errorf("--context %d: choose 2 or more, or 0 for the model's own", f.context))
	case f.mb < 1 || f.mb > 1<<30:
		return o, usage(fmt.Errorf("--cache-mb %d: choose 1 or more megabytes", f.mb))
	case f.grace < 0:
		return o, usage(fmt.Errorf("--grace %s must not be negative", f.grace))
	case (f.cert == "") != (f.key == ""):
		return o, usage(errors.New("--tls-cert and --tls-key belong together; give both or none"))
	}
	host, _, err := net.SplitHostPort(f.addr)
	if err != nil {
		return o, usage(fmt.Errorf("--addr %q: want HOST:PORT, such as 127.0.0.1:8080", f.addr))
	}
	if f.keyEnv != "" {
		o.APIKey = os.Getenv(f.keyEnv)
		switch {
		case o.APIKey == "":
			return o, usage(fmt.Errorf("--api-key-env %.100q: no such environment variable is set; give the variable's name, never the key", f.keyEnv))
		case len(o.APIKey) < leastKey:
			return o, usage(fmt.Errorf("the key in %s has %d characters; take at least %d (`openssl rand -hex 24` makes one)", f.keyEnv, len(o.APIKey), leastKey))
		case strings.ContainsFunc(o.APIKey, func(r rune) bool { return r <= ' ' || r > '~' }):
			return o, usage(fmt.Errorf("the key in %s holds a space or a character that no header can carry; check how it was set", f.keyEnv))
		}
	}
	ip := net.ParseIP(host)
	loopback := host == "localhost" || ip != nil && ip.IsLoopback()
	if !loopback && o.APIKey == "" {
		return o, usage(fmt.Errorf("--addr %s: not a loopback address, and refused without a key: name the environment variable that holds one with --api-key-env, or use 127.0.0.1 with an ssh tunnel from elsewhere", f.addr))
	}
	if loopback {
		o.Hosts = append(serve.Loopback(), host)
	}
	return o, nil
}

// listen takes the address before a model is loaded, so that a port in use is known at once.
func (f *serveFlags) listen() (net.Listener, error) {
	l, err := net.Listen("tcp", f.addr)
	if err != nil {
		return nil, fmt.Errorf("--addr: %w; choose another, or port 0 for a free one", err)
	}
	return l, nil
}

// open loads the run's model and the adapters of its three stacks. What it takes to read them is given back.
func (f *serveFlags) open(cmd *cobra.Command, o *serve.Options) error {
	e, err := open(cmd)
	if err != nil {
		return err
	}
	defer e.close()
	f.model.which = activities.WhichBase
	m, _, r, err := f.model.load(cmd, e)
	if err != nil {
		return err
	}
	o.Weights, o.Tokens, o.Chat = m.Model, m.Tokens, m.Chat
	have := map[string]*transformer.Adapter{} // character stands on dpo: one adapter is in memory once
	var refs []activities.AdapterRef
	for _, which := range []string{activities.WhichBase, activities.WhichDPO, activities.WhichCharacter} {
		if refs, err = r.Stack(which); err != nil {
			return err
		}
		var stack []*transformer.Adapter
		for _, ref := range refs {
			key := dataset.InputHash(ref)
			if have[key] == nil {
				if have[key], err = activities.ReadAdapter(cmd.Context(), e.store, m.Model, ref); err != nil {
					return err
				}
			}
			stack = append(stack, have[key])
		}
		o.Models = append(o.Models, serve.Model{Name: which, Stack: stack})
	}
	// Everything that shapes the bits of an answer, beside the request.
	o.Fingerprint = "fp_" + dataset.InputHash([]any{m.Info.SHA256, m.Info.ChatHash, m.Info.Weights, tensor.VariantOf(m.Compute()), refs})[:16]
	return nil
}

// run serves until a signal, then lets running answers end.
func (f *serveFlags) run(cmd *cobra.Command, s *serve.Server, o serve.Options, l net.Listener, seen *telemetry.Running) error {
	server := &http.Server{Handler: seen.Set.API(s, s.Answers), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: log.New(io.Discard, "", 0)} // it tells of clients that went away
	failed := make(chan error, 1)
	scheme := "http"
	if f.cert != "" {
		scheme = "https"
	}
	go func() {
		var err error
		if f.cert != "" {
			err = server.ServeTLS(l, f.cert, f.key)
		} else {
			err = server.Serve(l)
		}
		failed <- err
	}()
	if err := f.announce(cmd, o, scheme+"://"+l.Addr().String()); err != nil {
		return errors.Join(err, server.Close())
	}
	seen.Health.Ready(func(context.Context) error { return s.Err() })
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-cmd.Context().Done():
	}
	seen.Health.Stopping()
	s.Drain()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), f.grace)
	defer cancel()
	err := server.Shutdown(ctx)
	if err != nil { // the time is over: what goes on ends with an error to its client
		s.Close()
		last, done := context.WithTimeout(context.Background(), time.Second)
		defer done()
		if server.Shutdown(last) != nil {
			return server.Close()
		}
	}
	return nil
}

func (f *serveFlags) announce(cmd *cobra.Command, o serve.Options, url string) error {
	out := cmd.OutOrStdout()
	var names []string
	for _, m := range o.Models {
		names = append(names, m.Name)
	}
	limit := f.context
	if limit == 0 {
		limit = o.Weights.Context
	}
	if f.json {
		return json.NewEncoder(out).Encode(map[string]any{"url": url, "base_url": url + "/v1", "models": names, "context": limit, "rows": f.rows, "queue": f.queue, "key_env": f.keyEnv})
	}
	if o.Hosts == nil && f.cert == "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "character: %s has no TLS: the key and all texts travel in the clear; give --tls-cert and --tls-key, or put a proxy with TLS before it\n", url)
	}
	_, err := fmt.Fprintf(out, "Serving %s of run %s at %s/v1 (context %d tokens, %d answers at once, %d may wait). Ctrl-C ends.\n",
		strings.Join(names, ", "), f.model.id, url, limit, f.rows, f.queue)
	return err
}
