package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/tensor"
	"github.com/opencharacter/opencharacter/workers"
)

func workerCmd() *cobra.Command {
	var queues []string
	var threads int
	c := &cobra.Command{
		Use:   "worker",
		Short: "Serve runs with this machine's cores",
		Long: `Serve one or more task queues until it is told to stop. "character up" starts one by itself; further ones help on
other machines of a fleet.

  data      workflows, and the activities that need nothing but the object store
  teacher   answers from an endpoint or from recorded rows; holds the API keys in its environment
  engine    the model: sampling, training, scoring; one at a time on each machine`,
		Example: "  character worker\n  character worker --queue engine --temporal temporal.example:7233 --s3-bucket characters",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var serve []string
			for _, q := range queues {
				for _, x := range strings.Split(q, ",") {
					if !slices.Contains(workers.All(), x) {
						return usage(fmt.Errorf("--queue %q: want data, teacher or engine", x))
					}
					serve = append(serve, x)
				}
			}
			if len(serve) == 0 {
				serve = workers.All()
			}
			tensor.SetThreads(threads)
			return serveQueues(cmd.Context(), cmd, serve)
		},
	}
	c.Flags().StringSliceVar(&queues, "queue", nil, "data, teacher, engine (default: all)")
	c.Flags().IntVar(&threads, "threads", 0, "threads of the engine (0 = all cores); results never depend on it")
	return c
}

func serveQueues(ctx context.Context, cmd *cobra.Command, queues []string) error {
	e, err := openRunning(cmd)
	if err != nil {
		return err
	}
	defer e.close()
	if err := e.store.Probe(ctx); err != nil {
		return err
	}
	ws, err := workers.New(e.client, workers.Options{Queues: queues, Store: e.store, Hub: hubOptions(cmd), Pull: true, Namespace: e.info.Namespace, Key: os.Getenv})
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
	fmt.Fprintf(cmd.OutOrStdout(), "Serving %s with %s kernels\n", strings.Join(queues, ", "), tensor.Variant())
	<-ctx.Done()
	for _, w := range ws {
		w.Stop()
	}
	return nil
}
