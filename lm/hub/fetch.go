package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	attempts = 5                // without a new byte in between
	stall    = 60 * time.Second // without a byte: the connection is dead
	maxWait  = 60 * time.Second // the longest Retry-After that we obey
)

// firstWait is the pause after a first failure; it doubles each time. Tests shorten it.
var firstWait = time.Second

// fromHub downloads the file with HTTPS. What has arrived stays in a .part file, also when this
// process ends: the next attempt goes on from there.
func fromHub(ctx context.Context, e Entry, o Options) (string, error) {
	address, err := url.JoinPath(o.Endpoint, e.Repo, "resolve", e.Revision, e.File)
	if err != nil {
		return "", fmt.Errorf("endpoint %q: %w", o.Endpoint, err)
	}
	if !strings.HasPrefix(address, "http://") && !strings.HasPrefix(address, "https://") {
		return "", fmt.Errorf("endpoint %q is not an http or https address", o.Endpoint)
	}
	part := filepath.Join(filepath.Dir(e.path(o)), e.File+".part")
	fresh := false
	for {
		had := partSize(part)
		if err := fetchAll(ctx, address, part, e, o); err != nil {
			return "", fmt.Errorf("%s: %w", address, err)
		}
		sum, _, err := fileSum(part, Options{})
		if err != nil {
			return "", err
		}
		if sum == e.SHA256 {
			return part, nil
		}
		if err := os.Remove(part); err != nil {
			return "", err
		}
		if fresh || had == 0 { // bytes of an older attempt are not to blame
			return "", fmt.Errorf("%s: the file has sha256 %s, expected %s: the hub serves another file", address, sum, e.SHA256)
		}
		fresh = true
	}
}

func partSize(part string) int64 {
	st, err := os.Stat(part)
	if err != nil {
		return 0
	}
	return st.Size()
}

// fatalError is an answer that asking again will not change.
type fatalError struct{ error }

// fetchAll requests the missing bytes until all are there.
func fetchAll(ctx context.Context, address, part string, e Entry, o Options) error {
	wait := firstWait
	for failures := 0; ; {
		before := partSize(part)
		if before > e.Size { // can not be ours
			if err := os.Truncate(part, 0); err != nil {
				return err
			}
			before = 0
		}
		if before == e.Size {
			return nil
		}
		pause, err := fetch(ctx, address, part, before, e, o)
		if err == nil {
			continue
		}
		var fatal fatalError
		if ctx.Err() != nil || errors.As(err, &fatal) || errors.Is(err, syscall.ENOSPC) {
			return err
		}
		if partSize(part) > before {
			failures, wait = 0, firstWait
		}
		if failures++; failures == attempts {
			return fmt.Errorf("%w (after %d attempts)", err, attempts)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(wait, min(pause, maxWait))):
		}
		wait *= 2
	}
}

// fetch makes one request for the bytes from start on and appends them to part. pause is the server's Retry-After.
func fetch(ctx context.Context, address, part string, start int64, e Entry, o Options) (pause time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(stall, func() { cancel(fmt.Errorf("no byte arrived for %v", stall)) })
	defer watchdog.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, fatalError{err}
	}
	req.Header.Set("User-Agent", "opencharacter")
	if start > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", start))
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, cause(ctx, err)
	}
	defer res.Body.Close() // only read
	switch {
	case res.StatusCode == http.StatusPartialContent && start > 0:
		if !strings.HasPrefix(res.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", start)) {
			return 0, fatalError{fmt.Errorf("asked for bytes from %d on, the answer has %q", start, res.Header.Get("Content-Range"))}
		}
	case res.StatusCode == http.StatusOK:
		start = 0 // the server does not know ranges: begin again
	case res.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return 0, errors.Join(fmt.Errorf("the answer is %s", res.Status), os.Truncate(part, 0))
	case res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 500:
		seconds, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		return time.Duration(max(seconds, 0)) * time.Second, fmt.Errorf("the answer is %s", res.Status)
	default:
		return 0, fatalError{fmt.Errorf("the answer is %s", res.Status)}
	}
	if n := res.ContentLength; n >= 0 && start+n != e.Size {
		return 0, fatalError{fmt.Errorf("the hub's file has %d bytes, expected %d", start+n, e.Size)}
	}
	f, err := os.OpenFile(part, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, fatalError{err}
	}
	err = f.Truncate(start)
	if err == nil {
		_, err = f.Seek(start, io.SeekStart)
	}
	if err == nil {
		count := &counter{step: "downloading", done: start, total: e.Size, o: o}
		body := &alive{r: io.LimitReader(res.Body, e.Size-start), watchdog: watchdog}
		var n int64
		n, err = io.Copy(io.MultiWriter(f, count), body)
		err = cause(ctx, err)
		if err == nil && start+n < e.Size {
			err = fmt.Errorf("the answer ended after %d of %d bytes", start+n, e.Size)
		}
	}
	return 0, errors.Join(err, f.Close())
}

// alive feeds the watchdog with every byte that arrives.
type alive struct {
	r        io.Reader
	watchdog *time.Timer
}

func (a *alive) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if n > 0 {
		a.watchdog.Reset(stall)
	}
	return n, err
}

// cause prefers the reason why the context was cancelled to "context canceled".
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); err != nil && c != nil {
		return c
	}
	return err
}
