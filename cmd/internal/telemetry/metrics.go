// Package telemetry holds the flags by which long-lived commands show what they do: metrics and logs. It is the same in every
// program of ours. Start reading at Metrics and Logs.
package telemetry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/metrics"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/tensor"
)

// flagSet is what both flag packages have.
type flagSet interface {
	StringVar(p *string, name, value, usage string)
	BoolVar(p *bool, name string, value bool, usage string)
}

// Metrics are the values of the flags.
type Metrics struct {
	Address string // "" = none
	Remote  bool
}

// Register adds the flags.
func (m *Metrics) Register(fs flagSet) {
	fs.StringVar(&m.Address, "metrics-address", "", "HOST:PORT on which to show metrics for Prometheus, /healthz and /readyz, such as 127.0.0.1:9464 (default: none)")
	fs.BoolVar(&m.Remote, "metrics-remote", false, "let --metrics-address be one that other machines reach: metrics have no password")
}

// Check refuses a wrong address before anything is opened.
func (m Metrics) Check() error {
	switch {
	case m.Address == "" && m.Remote:
		return fmt.Errorf("--metrics-remote needs --metrics-address")
	case m.Address == "":
		return nil
	}
	return metrics.Check(m.Address, m.Remote)
}

// Reserve finds the port of an address whose port is 0, and says now what another process could not take.
func (m Metrics) Reserve() (Metrics, error) {
	if m.Address == "" {
		return m, nil
	}
	l, err := net.Listen("tcp", m.Address)
	if err != nil {
		return m, fmt.Errorf("--metrics-address: %w; choose another, or port 0 for a free one", err)
	}
	m.Address = l.Addr().String()
	return m, l.Close()
}

// Running is a process's metrics. Without an address it counts nothing.
type Running struct {
	Set    *metrics.Set // nil = none
	Health metrics.Health
	URL    string // "" = none

	temporal client.MetricsHandler
	listener *metrics.Listener
}

// Start shows the metrics of a program until Close.
func (m Metrics) Start(program string) (*Running, error) {
	r := &Running{}
	if m.Address == "" {
		return r, nil
	}
	version := "(devel)"
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		version = b.Main.Version
	}
	r.Set = metrics.New(metrics.Build{Program: program, Version: version, Kernels: tensor.Variant()})
	var err error
	if r.temporal, err = r.Set.Temporal(); err != nil {
		return nil, err
	}
	if r.listener, err = metrics.Listen(m.Address, m.Remote, r.Set, &r.Health); err != nil {
		return nil, err
	}
	r.URL = r.listener.URL
	return r, nil
}

// Count makes a connection's two ends count what they do.
func (r *Running) Count(c *client.Options, s *store.Config) {
	if r.Set == nil {
		return
	}
	c.MetricsHandler = r.temporal
	s.Observe = func(q store.Request) { r.Set.Stored(q.Operation, q.Outcome, q.Took) }
}

// Serving says that the process works, as long as Temporal and the bucket answer.
func (r *Running) Serving(c client.Client, s *store.Store) {
	r.Health.Ready(func(ctx context.Context) error {
		if _, err := c.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
			return fmt.Errorf("no answer from Temporal: %w", err)
		}
		return s.Ping(ctx)
	})
}

// Close ends the server.
func (r *Running) Close() error { return r.listener.Close() }

// Ask asks another process whether it is ready; for the health checks of containers, which have no other program.
func Ask(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("--address %q: want HOST:PORT, such as 127.0.0.1:9464", address)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%w; is it the --metrics-address of a worker that runs?", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	b := make([]byte, 1000)
	n, _ := resp.Body.Read(b) // a reason, if there is one
	return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(b[:n])))
}
