package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/testenv/stack"
)

func upCmd() *cobra.Command {
	var o localOptions
	c := &cobra.Command{
		Use:   "up",
		Short: "Start Temporal with its UI, S3 and a worker, and keep them running",
		Long: `Start everything that runs need on this machine, on loopback only, and keep it running until Ctrl-C:
a Temporal server with its Web UI, an S3 server, and a worker that computes.

All state is under the data directory. Stop it, kill it, reboot: the next "character up" on the same directory goes
on with every unfinished run. Ports stay the same from start to start as long as nobody else takes them.`,
		Example: `  character up
  character up --data /big/disk/characters
  character up --ui-port 8080`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if onCluster(cmd) {
				return usage(errors.New("up starts servers of its own, and --temporal names others: leave one of the two out (`character worker --temporal ...` serves a cluster)"))
			}
			o.data, o.models, o.warn = dataDir(cmd), cmd.Flag("models").Value.String(), cmd.ErrOrStderr()
			return up(cmd, o)
		},
	}
	f := c.Flags()
	f.IntVar(&o.temporalPort, "temporal-port", 0, "port of Temporal's gRPC API (0: the last one, else 7233, else any)")
	f.IntVar(&o.httpPort, "http-port", 0, "port of Temporal's HTTP API (0: the last one, else 7243, else any)")
	f.IntVar(&o.uiPort, "ui-port", 0, "port of the Temporal UI (0: the last one, else 8233, else any)")
	f.IntVar(&o.s3Port, "s3-port", 0, "port of the S3 server (0: the last one, else 9000, else any)")
	f.BoolVar(&o.noWorker, "no-worker", false, "start no worker; start your own with `character worker`")
	return c
}

func up(cmd *cobra.Command, o localOptions) error {
	ctx := cmd.Context()
	out := cmd.OutOrStdout()
	l, err := startLocal(ctx, o)
	if err != nil {
		return err
	}
	if err := printUp(out, l.Info, o.data); err != nil {
		return errors.Join(err, l.stop())
	}
	var failed error
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "Stopping: the worker commits what it has. Ctrl-C again ends it at once; nothing committed is lost.")
	case <-l.Failed():
		failed = l.Err()
	}
	if err := errors.Join(failed, l.stop()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "Stopped. Everything is kept in %s; `character up%s` goes on.\n", l.Dir, dataFlag(o.data))
	return err
}

func printUp(out io.Writer, i stack.Info, dir string) error {
	flag := dataFlag(dir)
	_, err := fmt.Fprintf(out, `character is up

  Temporal UI   %s
  Temporal      %s   namespace %s, JSON API http://%s
  S3            %s   bucket %s, keys in %s/credentials.json
  Data          %s
  Logs          %s/logs

Train a character in another terminal:   character run captain%s
Ctrl-C stops it. Everything is kept, and goes on at the next character up%s.
`, i.UI, i.Temporal, i.Namespace, i.TemporalHTTP, i.S3, i.Bucket, i.Dir, i.Dir, i.Dir, flag, flag)
	return err
}
