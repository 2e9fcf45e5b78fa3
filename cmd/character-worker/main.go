// Command character-worker serves runs on a Temporal cluster and an S3 of your own. It is what a fleet deploys: the
// same worker as `character worker`, without the embedded servers, and so a quarter of the size.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/cmd/internal/cluster"
	"github.com/opencharacter/opencharacter/cmd/internal/telemetry"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/tensor"
	"github.com/opencharacter/opencharacter/workers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	telemetry.Quiet()
	if err := serve(ctx); err != nil {
		lastWords(err)
		os.Exit(1)
	}
}

// Where the program says what it does; with -log-format json each line is logged.
var (
	out, warn io.Writer = os.Stdout, os.Stderr
	lastWords           = func(err error) { fmt.Fprintln(os.Stderr, "character-worker:", err) }
)

func serve(ctx context.Context) (err error) {
	env := func(name, fallback string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return fallback
	}
	// The names of Temporal's own tools are taken too: here no local stack could be meant.
	cluster.Register(flag.CommandLine, os.Getenv, map[string][]string{"temporal": {"TEMPORAL_ADDRESS"}, "namespace": {"TEMPORAL_NAMESPACE"}})
	var allowPaths, allowURLs []string
	flag.Func("allow-path", cluster.AllowPathUsage, func(v string) error { allowPaths = append(allowPaths, v); return nil })
	flag.Func("allow-url", cluster.AllowURLUsage, func(v string) error { allowURLs = append(allowURLs, v); return nil })
	var version cluster.Deployment
	version.Register(flag.CommandLine, os.Getenv)
	queue := flag.String("queue", strings.Join(workers.All(), ","), "data, teacher, engine")
	models := flag.String("models", env("CHARACTER_MODELS", ""), "folder of models (CHARACTER_MODELS; empty: the user's cache)")
	threads := flag.Int("threads", 0, "threads of the engine (0 = all cores); results never depend on it")
	stall := flag.Duration("stall", 0, cluster.StallUsage)
	var counts telemetry.Metrics
	var logs telemetry.Logs
	counts.Register(flag.CommandLine)
	logs.Register(flag.CommandLine)
	flag.Parse()
	if err := counts.Check(); err != nil {
		return err
	}
	logger, err := logs.Start(os.Stderr)
	if err != nil {
		return err
	}
	if logs.JSON() {
		out, warn = telemetry.Lines(logger, slog.LevelInfo), telemetry.Lines(logger, slog.LevelWarn)
		lastWords = func(err error) { logger.Error(err.Error()) }
	}
	if err := cluster.CheckStall(*stall); err != nil {
		return err
	}
	set := cluster.Read(func(name string) string { return flag.Lookup(name).Value.String() })
	set.Temporal = cmp.Or(set.Temporal, "127.0.0.1:7233")
	if set.S3Bucket == "" {
		return fmt.Errorf("-s3-bucket is missing: name the bucket of your runs")
	}
	if *models == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("-models is missing and there is no cache folder: %w", err)
		}
		*models = filepath.Join(cache, "opencharacter", "models")
	}
	if err := version.Complete(); err != nil {
		return err
	}
	tensor.SetThreads(*threads)
	debug.SetGCPercent(10) // the heap is long-lived buffers; the collector's usual room would double them
	allow, err := cluster.Allow(allowPaths, allowURLs, os.Getenv, *models, "")
	if err != nil {
		return err
	}
	o, err := set.ClientOptions(os.Getenv, warn)
	if err != nil {
		return err
	}
	keys, err := set.Codec(&o, warn)
	if err != nil {
		return err
	}
	objects, err := set.StoreConfig(ctx, warn)
	if err != nil {
		return err
	}
	o.Logger = telemetry.Temporal()
	seen, err := counts.Start("character-worker")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, seen.Close()) }()
	seen.Count(&o, &objects)
	s, err := store.Open(ctx, objects)
	if err != nil {
		return err
	}
	if err := s.Probe(ctx); err != nil {
		return err
	}
	if err := cluster.CheckKeys(ctx, s, keys, true); err != nil {
		return err
	}
	o.ConnectionOptions.DialOptions = workers.Connection()
	c, err := dial(ctx, o)
	if err != nil {
		return err
	}
	defer c.Close()
	ws, err := workers.New(c, workers.Options{Queues: strings.Split(*queue, ","), Store: s, Hub: hub.Options{CacheDir: *models}, Pull: true,
		Allow: allow, Converter: keys.DataConverter(), Namespace: set.Namespace, Key: os.Getenv, Deployment: workers.Deployment(version), Stall: *stall, Metrics: seen.Set})
	if err != nil {
		return err
	}
	var stopping sync.WaitGroup
	defer stopping.Wait()
	for _, w := range ws {
		if err := w.Start(); err != nil {
			return fmt.Errorf("start worker: %w", err)
		}
		defer stopping.Go(w.Stop) // together: each may take a while to commit what it has
	}
	fmt.Fprintf(out, "Serving %s with %s kernels%s\n", *queue, tensor.Variant(), version.Note(ctx, c))
	if seen.URL != "" {
		fmt.Fprintf(out, "Metrics on %s/metrics\n", seen.URL)
	}
	seen.Serving(c, s)
	<-ctx.Done()
	seen.Health.Stopping()
	return nil
}

// dial waits for a cluster that is starting; a worker that gave up at the first refusal would have to be started again.
func dial(ctx context.Context, o client.Options) (client.Client, error) {
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		c, err := client.DialContext(ctx, o)
		if err == nil || ctx.Err() != nil {
			return c, err
		}
		fmt.Fprintf(warn, "character-worker: Temporal on %s does not answer (%v); next try in %v\n", o.HostPort, err, wait)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}
