package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/codec"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/stack"
)

// env is what a command works with: Temporal and the object store, of the data directory or of a cluster.
type env struct {
	client  client.Client
	store   *store.Store
	info    stack.Info
	keys    *codec.Keys // of the payload codec; nil = none
	own     bool        // the servers run in this process, and end with it
	closers []func()
	local   *local // the servers of this process, nil when they are others'
}

func (e *env) close() {
	for _, f := range slices.Backward(e.closers) {
		f()
	}
}

// runURL is a run's page in the Temporal UI.
func (e *env) runURL(id string) string {
	if e.info.UI == "" {
		return "workflow " + id + " in your Temporal UI"
	}
	return fmt.Sprintf("%s/namespaces/%s/workflows/%s", strings.TrimSuffix(e.info.UI, "/"), e.info.Namespace, id)
}

func dataDir(cmd *cobra.Command) string { return cmd.Flag("data").Value.String() }

func onCluster(cmd *cobra.Command) bool { return cmd.Flag("temporal").Value.String() != "" }

// hubOptions says where models are on this machine.
func hubOptions(cmd *cobra.Command) hub.Options {
	dir := cmd.Flag("models").Value.String()
	if dir == "" {
		if cache, err := os.UserCacheDir(); err == nil {
			dir = filepath.Join(cache, "opencharacter", "models")
		} else {
			dir = filepath.Join(dataDir(cmd), "models")
		}
	}
	return hub.Options{CacheDir: dir}
}

// openRunning connects to what runs already.
func openRunning(cmd *cobra.Command) (*env, error) { return openRunningWith(cmd) }

// openRunningWith is openRunning; each of with may change how Temporal and the store are reached.
func openRunningWith(cmd *cobra.Command, with ...func(*client.Options, *store.Config)) (*env, error) {
	e, objects, err := connect(cmd, with...)
	if err != nil {
		return nil, err
	}
	e.closers = []func(){e.client.Close}
	if e.store, err = store.Open(cmd.Context(), objects); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// open connects to what runs, or starts the servers, without a worker, for as long as the command takes: enough to
// read what runs left.
func open(cmd *cobra.Command) (*env, error) {
	e, err := openRunning(cmd)
	if !errors.Is(err, errNotRunning) {
		return e, err
	}
	if _, serr := os.Stat(filepath.Join(dataDir(cmd), "stack.json")); serr != nil {
		return nil, fmt.Errorf("there are no runs in %s yet: start one with `character run captain`, or name another --data", dataDir(cmd))
	}
	return openOwn(cmd, false, 0)
}

// openOrUp connects to what runs, or starts servers and worker in this process; see openOwn.
func openOrUp(cmd *cobra.Command, stall time.Duration) (*env, error) {
	e, err := openRunning(cmd)
	if !errors.Is(err, errNotRunning) {
		return e, err
	}
	return openOwn(cmd, true, stall)
}

// openOwn starts the servers in this process, and a worker with this limit of its watchdog (0 = its default); close stops them.
func openOwn(cmd *cobra.Command, worker bool, stall time.Duration) (*env, error) {
	l, err := startLocal(cmd.Context(), localOptions{data: dataDir(cmd), models: cmd.Flag("models").Value.String(), codecKeyFile: settings(cmd).CodecKeyFile, noWorker: !worker, stall: stall, warn: cmd.ErrOrStderr()})
	if err != nil {
		return nil, err
	}
	stop := func() {
		if err := l.stop(); err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "character: stop:", err)
		}
	}
	e, err := openRunning(cmd)
	if err != nil {
		stop()
		return nil, err
	}
	e.local, e.own, e.closers = l, true, append([]func(){stop}, e.closers...)
	return e, nil
}

func isTerminal(f *os.File) bool { return isatty.IsTerminal(f.Fd()) }

func sortedKeys(m map[string]int64) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
