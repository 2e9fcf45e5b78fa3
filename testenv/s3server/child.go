package s3server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
	"github.com/versity/versitygw/s3api"
)

// LockName is the lock file beside the buckets that keeps a second server off the same folder.
const LockName = ".s3server.lock"

// ServeChild is what the hidden subcommand runs: it reads its options from standard input, serves until standard
// input closes, and says READY or ERROR on standard output. args are the arguments after the subcommand: none are known.
func ServeChild(args []string) error {
	protocol := os.Stdout
	os.Stdout = os.Stderr // what the server library prints belongs into the log
	fail := func(prefix string, err error) error {
		fmt.Fprintln(protocol, prefix+strings.ReplaceAll(err.Error(), "\n", " "))
		return err
	}
	if len(args) > 0 {
		return fail(errorPrefix, fmt.Errorf("unknown argument %q; this command is started by the program itself", args[0]))
	}
	// A Ctrl-C reaches the whole process group. The parent still needs its store to finish, so this process ends with
	// the parent's pipe only.
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)

	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fail(errorPrefix, fmt.Errorf("read the options from standard input: %w; this command is started by the program itself", err))
	}
	var req request
	if err := json.Unmarshal(line, &req); err != nil {
		return fail(errorPrefix, fmt.Errorf("read the options from standard input: %w", err))
	}
	if _, _, err := checkLoopback(req.Addr); err != nil {
		return fail(errorPrefix, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in) // ends when the parent closes its end or dies
		cancel()
		time.Sleep(2 * time.Second) // open requests may finish; then it is over in any case
		os.Exit(0)
	}()

	backend, unlock, err := openFolder(ctx, req.Dir)
	if err != nil {
		return fail(errorPrefix, err)
	}
	defer unlock()
	err = embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
		RootUserAccess: req.AccessKey, RootUserSecret: req.SecretKey,
		Ports:          []string{req.Addr},
		MaxConnections: 1024, MaxRequests: 512, MultipartMaxParts: 10000,
		Quiet: true, KeepAlive: true,
		S3Options: []s3api.Option{s3api.WithOnListen(func() { fmt.Fprintln(protocol, readyPrefix+req.Addr) })},
	})
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil:
		return fail(errorPrefix, errors.New("the S3 server stopped by itself"))
	case errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "address already in use"):
		return fail(busyPrefix, err)
	}
	return fail(errorPrefix, fmt.Errorf("serve %s: %w", req.Addr, err))
}

// openFolder checks and locks dir and opens the storage in it. It changes the working directory of the process.
func openFolder(ctx context.Context, dir string) (*durable, func(), error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the data folder: %w", err)
	}
	lock := flock.New(filepath.Join(dir, LockName))
	lockCtx, cancel := context.WithTimeout(ctx, 3*time.Second) // a killed predecessor needs a moment to be gone
	defer cancel()
	if ok, err := lock.TryLockContext(lockCtx, 50*time.Millisecond); !ok {
		if errors.Is(err, context.DeadlineExceeded) || err == nil {
			return nil, nil, fmt.Errorf("folder %s is already served by another S3 server; stop it, or use another data folder", dir)
		}
		return nil, nil, fmt.Errorf("lock folder %s: %w", dir, err)
	}
	unlock := func() { _ = lock.Unlock() }
	x := meta.XattrMeta{}
	if err := checkXattr(x, dir); err != nil {
		unlock()
		return nil, nil, err
	}
	if err := repairBuckets(x, dir); err != nil {
		unlock()
		return nil, nil, err
	}
	// With the zero value of CopyObjectThreshold every CopyObject would be refused.
	p, err := posix.New(dir, x, posix.PosixOpts{CopyObjectThreshold: 5 << 30})
	if err != nil {
		unlock()
		return nil, nil, fmt.Errorf("open folder %s: %w", dir, err)
	}
	return &durable{Posix: p, root: dir}, unlock, nil
}

// checkXattr writes and reads a user extended attribute: object metadata is kept in them.
func checkXattr(x meta.XattrMeta, dir string) error {
	const hint = "; the embedded S3 server keeps object metadata in user extended attributes: put the data folder on ext4, xfs, btrfs or APFS"
	if err := x.Test(dir); err != nil {
		return fmt.Errorf("folder %s: %w%s", dir, err, hint)
	}
	probe, err := os.CreateTemp(dir, ".s3server-probe-*")
	if err != nil {
		return fmt.Errorf("folder %s is not writable: %w", dir, err)
	}
	name := filepath.Base(probe.Name())
	defer func() { _ = os.Remove(probe.Name()) }()
	defer func() { _ = probe.Close() }()
	if err := x.StoreAttribute(nil, dir, name, "probe", []byte("1")); err != nil {
		return fmt.Errorf("folder %s: set an extended attribute: %w%s", dir, err, hint)
	}
	return nil
}

// repairBuckets removes bucket folders whose creation was cut off before their access list was stored: the server
// library answers every request for such a name with an error, also a new CreateBucket.
func repairBuckets(x meta.XattrMeta, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list folder %s: %w", dir, err)
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if _, err := x.RetrieveAttribute(nil, path, "", "acl"); !errors.Is(err, meta.ErrNoSuchKey) {
			continue
		}
		// os.Remove takes an empty folder only: nothing that holds an object can be lost here.
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("remove the half-made bucket %s: %w", path, err)
		}
	}
	return nil
}
