package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/opencharacter/opencharacter/testenv/stack"
)

// addConnectFlags are for a Temporal cluster and an S3 of your own, instead of the local stack.
func addConnectFlags(f *pflag.FlagSet) {
	f.String("temporal", os.Getenv("CHARACTER_TEMPORAL"), "host:port of your Temporal cluster instead of the local stack (CHARACTER_TEMPORAL); over TLS with TEMPORAL_API_KEY set")
	f.String("namespace", envOr("CHARACTER_NAMESPACE", "default"), "Temporal namespace, with --temporal (CHARACTER_NAMESPACE)")
	f.String("s3-endpoint", os.Getenv("CHARACTER_S3_ENDPOINT"), "URL of your S3, with --temporal; empty: AWS; keys come from the AWS environment and profiles (CHARACTER_S3_ENDPOINT)")
	f.String("s3-bucket", os.Getenv("CHARACTER_S3_BUCKET"), "bucket, with --temporal (CHARACTER_S3_BUCKET)")
}

// errNotRunning says that no stack lives on --data.
var errNotRunning = errors.New("nothing is running")

// connect finds where to work: the stack that lives on --data, or what --temporal and the S3 flags say. The Info of
// the latter holds no keys: the AWS chain finds them. The client is the caller's to close.
func connect(cmd *cobra.Command) (client.Client, stack.Info, error) {
	ctx := cmd.Context()
	get := func(name string) string { return cmd.Flag(name).Value.String() }
	o := client.Options{Logger: warnings()}
	// After an outage the connection is tried again within seconds; gRPC's own pause grows to two minutes.
	o.ConnectionOptions.DialOptions = []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
		MinConnectTimeout: 5 * time.Second,
	})}
	if get("temporal") == "" {
		for _, name := range []string{"namespace", "s3-endpoint", "s3-bucket"} {
			if cmd.Flags().Changed(name) {
				return nil, stack.Info{}, usage(fmt.Errorf("--%s needs --temporal: without it the stack of --data is used", name))
			}
		}
		info, err := findStack(ctx, get("data"))
		if err != nil {
			return nil, stack.Info{}, err
		}
		o.HostPort, o.Namespace = info.Temporal, info.Namespace
		c, err := dial(ctx, o)
		return c, info, err
	}
	if get("s3-bucket") == "" {
		return nil, stack.Info{}, usage(errors.New("--temporal needs --s3-bucket: name the bucket of your runs (and --s3-endpoint, if it is not on AWS)"))
	}
	info := stack.Info{Temporal: get("temporal"), Namespace: get("namespace"), S3: get("s3-endpoint"), Bucket: get("s3-bucket"), Ready: true}
	o.HostPort, o.Namespace = info.Temporal, info.Namespace
	if key := os.Getenv("TEMPORAL_API_KEY"); key != "" {
		o.Credentials = client.NewAPIKeyStaticCredentials(key)
		o.ConnectionOptions.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	c, err := dial(ctx, o)
	return c, info, err
}

// findStack reads where the stack of a data directory is. It waits for one that is starting.
func findStack(ctx context.Context, dir string) (stack.Info, error) {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		info, alive, err := stack.Read(dir)
		switch {
		case err != nil:
			return info, err
		case !alive:
			return info, fmt.Errorf("%w on %s: start it with `character up%s`", errNotRunning, dir, dataFlag(dir))
		case info.Ready:
			return info, nil
		case time.Now().After(deadline):
			return info, fmt.Errorf("the stack on %s (pid %d) has been starting for two minutes: see %s/logs", dir, info.PID, info.Dir)
		}
		select {
		case <-ctx.Done():
			return info, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// dataFlag is what a command in a hint needs to find the same data directory.
func dataFlag(dir string) string {
	if dir == envOr("CHARACTER_DATA", ".character") {
		return ""
	}
	return " --data " + dir
}

// dial tries for a quarter of a minute: the SDK gives up at the first refusal, and a server may be restarting.
func dial(ctx context.Context, o client.Options) (client.Client, error) {
	deadline := time.Now().Add(15 * time.Second)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		c, err := client.DialContext(ctx, o)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil || time.Now().Add(wait).After(deadline) {
			return nil, fmt.Errorf("connect to Temporal on %s: %w; check the address, and that the server runs", o.HostPort, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// warnings is the SDK's logger: what a user should know, on the error output.
func warnings() log.Logger {
	return log.NewStructuredLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
}
