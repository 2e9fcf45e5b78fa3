package stack

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/opencharacter/opencharacter/testenv/temporalserver"
)

// Bucket is the name of the bucket that a stack's clients use.
const Bucket = "character"

// Info tells another process where a stack is. Without the keys it is stack.json.
type Info struct {
	Dir          string    `json:"-"`
	Temporal     string    `json:"temporal"`      // host:port, for client.Options.HostPort
	TemporalHTTP string    `json:"temporal_http"` // host:port of the JSON API
	UI           string    `json:"ui"`            // URL
	S3           string    `json:"s3"`            // URL
	Namespace    string    `json:"namespace"`
	Bucket       string    `json:"bucket"`
	PID          int       `json:"pid"` // 0 when it was stopped in order
	Started      time.Time `json:"started"`
	Ready        bool      `json:"ready"` // false while it starts: the addresses are then those of the start before
	AccessKey    string    `json:"-"`
	SecretKey    string    `json:"-"`
}

// Headers make a Temporal client's calls say which data directory's server they mean (client.Options.HeadersProvider): the
// one that has the address next may be another's.
func (i Info) Headers() temporalserver.Headers {
	sum := sha256.Sum256([]byte(i.AccessKey)) // random, and as old as the directory; its hash, because the name goes to whoever is there
	return temporalserver.Headers(hex.EncodeToString(sum[:8]))
}

// ErrInUse is what errors.Is finds in the error of a second Up on a directory.
var ErrInUse = errors.New("a stack is running on this data directory already")

// InUseError is the error of a second Up, with the addresses of the first.
type InUseError struct{ Info Info }

func (e *InUseError) Error() string {
	if !e.Info.Ready {
		return fmt.Sprintf("stack: %s is in use by pid %d, which is starting: wait for it, stop it, or use another directory with --data OTHER", e.Info.Dir, e.Info.PID)
	}
	return fmt.Sprintf("stack: %s is in use by pid %d: it runs already, with the Temporal UI on %s, Temporal on %s and S3 on %s; use it, stop it, or use another directory with --data OTHER",
		e.Info.Dir, e.Info.PID, e.Info.UI, e.Info.Temporal, e.Info.S3)
}

// Is makes errors.Is(err, ErrInUse) true.
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

// Read tells what runs on a data directory. alive is false when nothing does: info then holds what the last start
// left (nothing, if there was none). The lock decides, not the process id: a number may belong to somebody else by now.
func Read(dir string) (info Info, alive bool, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return Info{}, false, fmt.Errorf("stack: data directory: %w", err)
	}
	if info, err = readState(dir); err != nil {
		return Info{}, false, err
	}
	lock := filepath.Join(dir, "lock")
	if _, err := os.Stat(lock); errors.Is(err, fs.ErrNotExist) {
		return info, false, nil
	} else if err != nil {
		return Info{}, false, fmt.Errorf("stack: %w", err)
	}
	l := flock.New(lock)
	free, err := l.TryRLock()
	if err != nil {
		return Info{}, false, fmt.Errorf("stack: look at %s: %w", lock, err)
	}
	if free {
		return info, false, l.Unlock()
	}
	keys, err := readCredentials(dir)
	if err != nil && !(errors.Is(err, fs.ErrNotExist) && !info.Ready) {
		return Info{}, false, err
	}
	info.AccessKey, info.SecretKey = keys.AccessKey, keys.SecretKey
	return info, true, nil
}

// takeLock holds the directory until unlock or the end of the process, however it ends.
func takeLock(ctx context.Context, dir string) (unlock func() error, err error) {
	path := filepath.Join(dir, "lock")
	l := flock.New(path)
	// Read holds the lock for a moment, so one refusal says nothing.
	wait, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	ok, err := l.TryLockContext(wait, 20*time.Millisecond)
	switch {
	case ok:
		return l.Unlock, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("stack: lock %s: %w", path, context.Cause(ctx))
	case err != nil && !errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("stack: lock %s: %w", path, err)
	}
	info, err := readState(dir)
	if err != nil {
		return nil, err
	}
	return nil, &InUseError{info}
}

// readState gives stack.json; the zero Info, with the directory, when there is none.
func readState(dir string) (Info, error) {
	info := Info{Dir: dir}
	path := filepath.Join(dir, "stack.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return info, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &info)
	}
	if err != nil {
		return info, fmt.Errorf("stack: %s: %w; delete the file: it only remembers addresses", path, err)
	}
	return info, nil
}

func writeState(info Info) error { return writePrivate(filepath.Join(info.Dir, "stack.json"), info) }

type credentials struct {
	AccessKey string `json:"access_key"`
	SecretKey string `json:"secret_key"`
}

func readCredentials(dir string) (credentials, error) {
	var c credentials
	path := filepath.Join(dir, "credentials.json")
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("stack: S3 keys: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil || c.AccessKey == "" || c.SecretKey == "" {
		return c, fmt.Errorf("stack: %s does not hold access_key and secret_key; delete it: the next start makes new keys, and the data stays", path)
	}
	return c, nil
}

// ensureCredentials makes the keys at the first start. They guard the S3 port from other users of the machine.
func ensureCredentials(dir string) (credentials, error) {
	c, err := readCredentials(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	c = credentials{AccessKey: "character-" + strings.ToLower(rand.Text()[:8]), SecretKey: rand.Text() + rand.Text()}
	return c, writePrivate(filepath.Join(dir, "credentials.json"), c)
}

// writePrivate writes JSON for the owner's eyes, whole or not at all.
func writePrivate(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("stack: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new*") // mode 0600
	if err != nil {
		return fmt.Errorf("stack: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("stack: write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// portOf finds the port in host:port or a URL; 0 when there is none.
func portOf(address string) int {
	_, port, err := net.SplitHostPort(strings.TrimPrefix(address, "http://"))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 {
		return 0
	}
	return n
}

// privateDirs makes the data directory and our folders in it for their owner only: Temporal's file and the objects hold
// all texts of all runs, the logs may quote some. Our folders are closed also where an older release left them open; a
// data directory that was there before keeps its mode, because it may have other uses.
func privateDirs(dir string, names ...string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("stack: make data directory: %w", err)
	}
	for _, name := range names {
		d := filepath.Join(dir, name)
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("stack: make data directory: %w", err)
		}
		if st, err := os.Stat(d); err == nil && st.Mode().Perm()&0o077 == 0 {
			continue
		}
		if err := os.Chmod(d, 0o700); err != nil {
			return fmt.Errorf("stack: %s can be read by others than its owner: %w; choose another data directory with --data", d, err)
		}
	}
	return nil
}
