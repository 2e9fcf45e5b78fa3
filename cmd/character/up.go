package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/cmd/internal/cluster"
	"github.com/opencharacter/opencharacter/testenv/stack"
)

func upCmd() *cobra.Command {
	var o localOptions
	bind := ""
	c := &cobra.Command{
		Use:   "up",
		Short: "Start Temporal with its UI, S3 and a worker, and keep them running",
		Long: `Start everything that runs need on this machine, on loopback only, and keep it running until Ctrl-C:
a Temporal server with its Web UI, an S3 server, a worker that computes, and a page for each run that shows its report
while it goes on.

All state is under the data directory. Stop it, kill it, reboot: the next "character up" on the same directory goes
on with every unfinished run. Ports stay the same from start to start as long as nobody else takes them.

Runs that are started in the UI may name models by a known name or under --models, and the presets' teachers;
--allow-path and --allow-url allow more, and "character run" on this machine allows what it names.`,
		Example: `  character up
  character up --data /big/disk/characters
  character up --ui-port 8080`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if onCluster(cmd) {
				return usage(errors.New("up starts servers of its own, and --temporal names others: leave one of the two out (`character worker --temporal ...` serves a cluster)"))
			}
			if err := checkBind(bind); err != nil {
				return usage(err)
			}
			// The worker is another process: what it could not take is said now.
			if _, err := cluster.Allow(o.allowPaths, o.allowURLs, os.Getenv, "", ""); err != nil {
				return usage(err)
			}
			if err := cluster.CheckStall(o.stall); err != nil {
				return usage(err)
			}
			if o.noWorker && o.watched.metrics.Address != "" {
				return usage(errors.New("--metrics-address shows what the worker does, and --no-worker starts none: give it to your `character worker`"))
			}
			if err := o.watched.startLogs(cmd); err != nil {
				return err
			}
			var err error
			if o.watched.metrics, err = o.watched.metrics.Reserve(); err != nil {
				return err
			}
			o.data, o.models, o.warn = dataDir(cmd), cmd.Flag("models").Value.String(), cmd.ErrOrStderr()
			o.codecKeyFile = settings(cmd).CodecKeyFile
			return up(cmd, o)
		},
	}
	f := c.Flags()
	f.IntVar(&o.temporalPort, "temporal-port", 0, "port of Temporal's gRPC API (0: the last one, else 7233, else any)")
	f.IntVar(&o.httpPort, "http-port", 0, "port of Temporal's HTTP API (0: the last one, else 7243, else any)")
	f.IntVar(&o.uiPort, "ui-port", 0, "port of the Temporal UI (0: the last one, else 8233, else any)")
	f.IntVar(&o.s3Port, "s3-port", 0, "port of the S3 server (0: the last one, else 9000, else any)")
	f.IntVar(&o.reportPort, "report-port", 0, "port of the live reports (0: the last one, else 8235, else any)")
	f.StringVar(&bind, "bind", "127.0.0.1", "address to listen on; only loopback is taken, because the servers of a laptop have no users and no TLS")
	addAllowFlags(f, &o.allowPaths, &o.allowURLs)
	f.DurationVar(&o.stall, "stall", 0, cluster.StallUsage)
	o.watched.register(c)
	f.BoolVar(&o.noWorker, "no-worker", false, "start no worker; start your own with `character worker`")
	return c
}

// checkBind refuses what other machines could reach. Temporal and its UI have no passwords of their own here: whoever
// reached them could start runs and read every text. S3 has keys, but no TLS.
func checkBind(address string) error {
	ip := net.ParseIP(strings.Trim(address, "[]"))
	if address == "localhost" || address == "127.0.0.1" {
		return nil
	}
	if ip != nil && ip.IsLoopback() {
		return fmt.Errorf("--bind %s: the servers listen on 127.0.0.1; leave --bind out", address)
	}
	return fmt.Errorf("--bind %s: not a loopback address, and refused: the embedded Temporal and its UI have no passwords, so everybody who reaches this machine could start runs and read them. "+
		"From another machine use a tunnel (ssh -L 8233:127.0.0.1:8233 THIS-MACHINE) or a reverse proxy here that asks for a password; for a team run a Temporal cluster and an S3 of your own (--temporal, --s3-endpoint)", address)
}

func up(cmd *cobra.Command, o localOptions) error {
	ctx := cmd.Context()
	out := cmd.OutOrStdout()
	l, err := startLocal(ctx, o)
	if err != nil {
		return err
	}
	if o.watched.logs.JSON() {
		slog.Info("character is up", "ui", l.UI, "temporal", l.Temporal, "namespace", l.Namespace, "reports", l.live.url, "s3", l.S3, "bucket", l.Bucket, "data", l.Dir, "metrics", o.watched.metrics.Address)
	} else if err := printUp(out, l.Info, l.live.url, o.watched.metrics.Address, o.data); err != nil {
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

func printUp(out io.Writer, i stack.Info, reports, metrics, dir string) error {
	flag := dataFlag(dir)
	if metrics != "" {
		metrics = "\n  Metrics       http://" + metrics + "/metrics, of the worker"
	}
	_, err := fmt.Fprintf(out, `character is up

  Temporal UI   %s
  Temporal      %s   namespace %s, JSON API http://%s
  Live reports  %s%s
  S3            %s   bucket %s, keys in %s/credentials.json
  Data          %s
  Logs          %s/logs

Train a character in another terminal:   character run captain%s
Ctrl-C stops it. Everything is kept, and goes on at the next character up%s.
`, i.UI, i.Temporal, i.Namespace, i.TemporalHTTP, reports, metrics, i.S3, i.Bucket, i.Dir, i.Dir, i.Dir, flag, flag)
	return err
}
