package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/cmd/internal/cluster"
	"github.com/opencharacter/opencharacter/cmd/internal/telemetry"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/stack"
	"github.com/opencharacter/opencharacter/workers"
)

// addConnectFlags are for a Temporal cluster and an S3 of your own, instead of the local stack.
func addConnectFlags(f *pflag.FlagSet) { cluster.Register(f, os.Getenv, nil) }

// settings are the values of those flags.
func settings(cmd *cobra.Command) cluster.Settings {
	return cluster.Read(func(name string) string { return cmd.Flag(name).Value.String() })
}

// errNotRunning says that no stack lives on --data.
var errNotRunning = errors.New("nothing is running")

// connect finds where to work: the stack that lives on --data, or what --temporal and the S3 flags say. The client is
// the caller's to close. Each of with may change how it is reached.
func connect(cmd *cobra.Command, with ...func(*client.Options, *store.Config)) (*env, store.Config, error) {
	ctx, set, warn := cmd.Context(), settings(cmd), cmd.ErrOrStderr()
	e := &env{}
	var o client.Options
	var objects store.Config
	var err error
	if set.Temporal == "" {
		for _, name := range cluster.ClusterOnly() {
			if cmd.Flags().Changed(name) {
				return nil, objects, usage(fmt.Errorf("--%s needs --temporal: without it the stack of --data is used", name))
			}
		}
		if e.info, err = findStack(ctx, dataDir(cmd)); err != nil {
			return nil, objects, err
		}
		o.HostPort, o.Namespace, o.HeadersProvider = e.info.Temporal, e.info.Namespace, e.info.Headers()
		objects = store.Config{Endpoint: e.info.S3, Bucket: e.info.Bucket, AccessKey: e.info.AccessKey, SecretKey: e.info.SecretKey, PathStyle: true}
	} else {
		if set.S3Bucket == "" {
			return nil, objects, usage(errors.New("--temporal needs --s3-bucket: name the bucket of your runs (and --s3-endpoint, if it is not on AWS)"))
		}
		if o, err = set.ClientOptions(os.Getenv, warn); err != nil {
			return nil, objects, err
		}
		if objects, err = set.StoreConfig(ctx, warn); err != nil {
			return nil, objects, err
		}
		e.info = stack.Info{Temporal: set.Temporal, Namespace: set.Namespace, S3: set.S3Endpoint, Bucket: set.S3Bucket, Ready: true}
	}
	if e.keys, err = set.Codec(&o, warn); err != nil {
		return nil, objects, err
	}
	o.Logger = telemetry.Temporal()
	o.ConnectionOptions.DialOptions = workers.Connection()
	for _, f := range with {
		f(&o, &objects)
	}
	e.client, err = dial(ctx, o)
	return e, objects, err
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
