package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.temporal.io/sdk/worker"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/cmd/internal/cluster"
	"github.com/opencharacter/opencharacter/cmd/internal/telemetry"
	"github.com/opencharacter/opencharacter/permit"
	"github.com/opencharacter/opencharacter/tensor"
	"github.com/opencharacter/opencharacter/testenv/stack"
	"github.com/opencharacter/opencharacter/workers"
)

func workerCmd() *cobra.Command {
	var queues []string
	var threads int
	var o serveOptions
	var watched observed
	c := &cobra.Command{
		Use:   "worker",
		Short: "Serve runs with this machine's cores",
		Long: `Serve one or more task queues until it is told to stop. "character up" starts one by itself; further ones help on
other machines of a fleet.

  data      workflows, and the activities that need nothing but the object store
  teacher   answers from an endpoint or from recorded rows; holds the API keys in its environment
  engine    the model: sampling, training, scoring; one at a time on each machine

With --metrics-address it shows what it does to Prometheus, and whether it can work at /readyz; docs/production.md explains.

With --deployment the worker is versioned: a run stays on the build that it began on, and new runs go to the build that you
made the current one. Until then a versioned worker gets no work. docs/workers.md has the steps of a deploy.`,
		Example: "  character worker\n  character worker --queue engine --temporal temporal.example:7233 --s3-bucket characters\n  character worker --temporal temporal.example:7233 --s3-bucket characters --deployment character --build-id 2026-11-23",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			var serve []string
			for _, q := range queues {
				for _, x := range strings.Split(q, ",") {
					if !slices.Contains(workers.All(), x) {
						return usage(fmt.Errorf("--queue %q: want data, teacher or engine", x))
					}
					if !slices.Contains(serve, x) { // one engine a process
						serve = append(serve, x)
					}
				}
			}
			if len(serve) == 0 {
				serve = workers.All()
			}
			if threads < 0 {
				return usage(fmt.Errorf("--threads %d: want a number of threads, or 0 for all cores", threads))
			}
			if err := o.version.Complete(); err != nil {
				return usage(err)
			}
			if err := cluster.CheckStall(o.stall); err != nil {
				return usage(err)
			}
			seen, err := watched.start(cmd)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, seen.Close()) }()
			tensor.SetThreads(threads)
			// Nearly all of the heap is buffers that live as long as the model; the collector's usual room would double them.
			debug.SetGCPercent(10)
			o.queues = serve
			for {
				err := serveQueues(cmd.Context(), cmd, o, seen)
				if !errors.Is(err, errMoved) {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "The stack on "+dataDir(cmd)+" has other addresses now")
			}
		},
	}
	c.Flags().StringSliceVar(&queues, "queue", nil, "data, teacher, engine (default: all)")
	c.Flags().IntVar(&threads, "threads", 0, "threads of the engine (0 = all cores); results never depend on it")
	addAllowFlags(c.Flags(), &o.allowPaths, &o.allowURLs)
	watched.register(c)
	o.version.Register(c.Flags(), os.Getenv)
	c.Flags().DurationVar(&o.stall, "stall", 0, cluster.StallUsage)
	c.Flags().StringVar(&o.report, "report-url", "", "address under which runs' live reports are served, for the links in their details")
	return c
}

// addAllowFlags are for the operator of a worker: what specs may reach on it.
func addAllowFlags(f *pflag.FlagSet, paths, urls *[]string) {
	f.StringArrayVar(paths, "allow-path", nil, cluster.AllowPathUsage)
	f.StringArrayVar(urls, "allow-url", nil, cluster.AllowURLUsage)
}

// serveOptions are what a worker serves and how.
type serveOptions struct {
	queues, allowPaths, allowURLs []string
	version                       cluster.Deployment
	report                        string        // address of the live reports; "" = none
	stall                         time.Duration // 0: the default of workers.Options.Stall
}

func serveQueues(ctx context.Context, cmd *cobra.Command, o serveOptions, seen *telemetry.Running) error {
	models, file := hubOptions(cmd), ""
	if !onCluster(cmd) {
		file = filepath.Join(dataDir(cmd), permit.FileName)
	}
	allow, err := cluster.Allow(o.allowPaths, o.allowURLs, os.Getenv, models.CacheDir, file)
	if err != nil {
		return usage(err)
	}
	e, err := openRunningWith(cmd, seen.Count)
	if err != nil {
		return err
	}
	defer e.close()
	if err := e.store.Probe(ctx); err != nil {
		return err
	}
	if err := cluster.CheckKeys(ctx, e.store, e.keys, true); err != nil {
		return err
	}
	did, err := workLog(os.Getenv("CHARACTER_WORK_LOG"))
	if err != nil {
		return err
	}
	who, sticky := identity()+" process="+rand.Text()[:8], time.Duration(0) // in containers the number of a process is no name
	if !onCluster(cmd) {                                                    // of a cluster nobody here can tell who is dead
		who, sticky = localIdentity()+" "+build(), time.Second
		n, err := release(ctx, e.client, e.info.Namespace)
		if err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "character: give back what ended workers held:", err, "(it is done again when their silence is noticed)")
		}
		if n > 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "Gave back %d activities of ended workers\n", n)
		}
	}
	worker.SetBinaryChecksum(build()) // else the whole program is read and hashed: a third of a second of each start
	broken := make(chan error, len(o.queues))
	ws, err := workers.New(e.client, workers.Options{Fatal: func(err error) { broken <- err }, Queues: o.queues, Store: e.store, Hub: models, Pull: true,
		Stall: o.stall, Allow: allow, Converter: e.keys.DataConverter(), Namespace: e.info.Namespace, Key: os.Getenv, Did: did, Report: o.report,
		Identity: who, StickyWait: sticky, Deployment: workers.Deployment(o.version), Metrics: seen.Set})
	if err != nil {
		return err
	}
	for i, w := range ws {
		if err := w.Start(); err != nil {
			for _, x := range ws[:i] {
				x.Stop()
			}
			return fmt.Errorf("start worker: %w", err)
		}
	}
	moves := make(chan struct{})
	if !onCluster(cmd) {
		wctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			if moved(wctx, dataDir(cmd), e.info, time.Second) {
				close(moves)
			}
		}()
	}
	fmt.Fprintf(cmd.OutOrStdout(), "Serving %s with %s kernels%s\n", strings.Join(o.queues, ", "), tensor.Variant(), o.version.Note(ctx, e.client))
	if seen.URL != "" {
		fmt.Fprintf(cmd.OutOrStdout(), "Metrics on %s/metrics\n", seen.URL)
	}
	seen.Serving(e.client, e.store)
	select {
	case <-ctx.Done():
	case <-moves:
		err = errMoved
	case err = <-broken:
		err = fmt.Errorf("a worker cannot go on: %w; check the namespace and the credentials", err)
	}
	seen.Health.Stopping()
	var wg sync.WaitGroup
	for _, w := range ws { // together: each may take a while to commit what it has
		wg.Go(w.Stop)
	}
	wg.Wait()
	return err
}

// errMoved says that the servers of a data directory have other addresses than the worker was started with.
var errMoved = errors.New("the stack has other addresses")

// moved waits until a stack lives on dir with other addresses than those of was, or ctx ends. One that was killed finds its
// ports taken when somebody else was quicker.
func moved(ctx context.Context, dir string, was stack.Info, every time.Duration) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(every):
		}
		// What cannot be read now can be read later, or nothing has moved.
		if is, alive, err := stack.Read(dir); err == nil && alive && is.Ready && (is.Temporal != was.Temporal || is.S3 != was.S3) {
			return true
		}
	}
}

// workLog appends one line of JSON for each row and step that the engine has done to a file; "" writes none. What a fault
// made the engine do twice is in it twice.
func workLog(path string) (func(activities.Work), error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("CHARACTER_WORK_LOG: %w", err)
	}
	return func(w activities.Work) {
		line, err := json.Marshal(w)
		if err == nil {
			_, err = f.Write(append(line, '\n')) // in one piece: workers share the file
		}
		if err != nil { // a count that misses lines would be worse than none
			fmt.Fprintln(os.Stderr, "character: CHARACTER_WORK_LOG:", err)
		}
	}, nil
}
