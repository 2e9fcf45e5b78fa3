//go:build !noserver

package faultproxy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/faultproxy"
	"github.com/opencharacter/opencharacter/testenv/s3server"
)

func TestMain(m *testing.M) { s3server.Main(m) }

// TestFencedStreamBehindBrokenNetwork: many attempts on one stream, each behind a proxy that breaks every fourth call.
// Every commit that was reported is in the history, steps only grow, and the files of the last one are whole.
func TestFencedStreamBehindBrokenNetwork(t *testing.T) {
	server := s3server.ForTest(t)
	open := func(endpoint string) (*store.Store, error) {
		return store.Open(t.Context(), store.Config{Endpoint: endpoint, Bucket: "bucket", AccessKey: server.AccessKey, SecretKey: server.SecretKey, IdleTimeout: 5 * time.Second})
	}
	direct, err := open(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	const target, attempts = 30, 4
	var mu sync.Mutex
	reported := map[int64]string{} // step -> content that its writer was told is committed
	kinds := map[string]int{}
	var wg sync.WaitGroup
	for a := range attempts {
		p, err := faultproxy.NewS3(func() string { return strings.TrimPrefix(server.Endpoint, "http://") },
			faultproxy.Options{Seed: uint64(a), Rate: .25, Stall: 5 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		wg.Go(func() {
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				for k, n := range p.Counts() {
					kinds[k] += n
				}
			}()
			s, err := open(p.URL)
			for ; err != nil && t.Context().Err() == nil; s, err = open(p.URL) { // the first look at the bucket may fail too
			}
			for n := 0; t.Context().Err() == nil; n++ {
				done, err := attempt(t.Context(), s, fmt.Sprintf("%d-%d", a, n), target, func(step int64, content string) {
					mu.Lock()
					defer mu.Unlock()
					reported[step] = content
				})
				if done {
					return
				}
				if err != nil && errors.Is(err, store.ErrCorrupt) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	h, ok, err := direct.ReadHead(t.Context(), "stream")
	if err != nil || !ok || h.Step != target {
		t.Fatalf("head %+v %v %v", h, ok, err)
	}
	files, err := direct.ReadFiles(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	// Each commit carries the whole history: who made which step.
	lines := strings.Split(strings.TrimSpace(string(files["log"])), "\n")
	if len(lines) != target {
		t.Fatalf("%d steps in the history:\n%s", len(lines), files["log"])
	}
	for step, content := range reported {
		if lines[step-1] != content {
			t.Errorf("step %d was reported as %q and is %q", step, content, lines[step-1])
		}
	}
	for _, k := range faultproxy.S3Kinds() {
		if kinds[k] == 0 {
			t.Errorf("no call was %s: %v", k, kinds)
		}
	}
}

// attempt claims the stream and commits one step after the other until it is fenced off or a call fails for good.
func attempt(ctx context.Context, s *store.Store, owner string, target int64, report func(int64, string)) (done bool, err error) {
	claim, err := s.Claim(ctx, "stream", owner)
	if err != nil {
		return false, err
	}
	h := claim.Head()
	log := ""
	if h.Step > 0 {
		files, err := s.ReadFiles(ctx, h)
		if err != nil {
			return false, err
		}
		log = string(files["log"])
	}
	for step := h.Step + 1; step <= target; step++ {
		line := fmt.Sprintf("%d by %s", step, owner)
		log += line + "\n"
		if err := claim.Commit(ctx, step, map[string][]byte{"log": []byte(log)}, nil); err != nil {
			return false, err
		}
		report(step, line)
		if step%7 == 0 {
			return false, nil // hand over
		}
	}
	return true, nil
}
