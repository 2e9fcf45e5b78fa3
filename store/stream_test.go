//go:build !noserver

package store_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencharacter/opencharacter/store"
)

func files(step int64) map[string][]byte {
	return map[string][]byte{
		"adapter_model.safetensors": bytes.Repeat([]byte{byte(step)}, 5000),
		"trainer.json":              fmt.Appendf(nil, `{"step":%d}`, step),
	}
}

func TestCommitAndTakeOver(t *testing.T) {
	t.Parallel()
	s := open(t, config(t))
	ctx := t.Context()
	if _, ok, err := s.ReadHead(ctx, "run/dpo"); ok || err != nil {
		t.Fatalf("unclaimed stream: %v, %v", ok, err)
	}
	a, err := s.Claim(ctx, "run/dpo", "a")
	if err != nil {
		t.Fatal(err)
	}
	if h := a.Head(); h.Epoch != 1 || h.Step != 0 || h.Files != nil {
		t.Errorf("fresh claim: %+v", h)
	}
	for step := int64(1); step <= 3; step++ {
		if err := a.Commit(ctx, step, files(step), map[string]any{"loss": step}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := s.Claim(ctx, "run/dpo", "b")
	if err != nil {
		t.Fatal(err)
	}
	h := b.Head()
	if h.Epoch != 2 || h.Owner != "b" || h.Step != 3 || string(h.Note) != `{"loss":3}` {
		t.Errorf("inherited head: %+v", h)
	}
	got, err := s.ReadFiles(ctx, h)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(files(3), got); diff != "" {
		t.Error(diff)
	}
	if h.Previous == nil || h.Previous.Step != 2 || h.Previous.Previous != nil {
		t.Fatalf("previous: %+v", h.Previous)
	}
	if got, err := s.ReadFiles(ctx, *h.Previous); err != nil || !bytes.Equal(got["trainer.json"], files(2)["trainer.json"]) {
		t.Errorf("files of the previous head: %v", err)
	}
	for range 2 {
		if err := a.Commit(ctx, 4, files(4), nil); !errors.Is(err, store.ErrFenced) {
			t.Errorf("zombie: %v", err)
		}
	}
	if err := b.Commit(ctx, 4, files(4), nil); err != nil {
		t.Fatal(err)
	}
	now, ok, err := s.ReadHead(ctx, "run/dpo")
	if err != nil || !ok || now.Step != 4 || now.Epoch != 2 || now.Note != nil {
		t.Errorf("head now: %+v, %v", now, err)
	}
	if diff := cmp.Diff(b.Head(), now); diff != "" {
		t.Error(diff)
	}
}

func TestDamagedNewestCommitFallsBack(t *testing.T) {
	t.Parallel()
	c := config(t)
	s := open(t, c)
	ctx := t.Context()
	claim, err := s.Claim(ctx, "st", "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := claim.UsePrevious(); ok {
		t.Error("a fresh stream has a previous head")
	}
	for step := int64(1); step <= 2; step++ {
		if err := claim.Commit(ctx, step, files(step), nil); err != nil {
			t.Fatal(err)
		}
	}
	h := claim.Head()
	if err := os.Remove(file(t, c, h.Files["trainer.json"].Key)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadFiles(ctx, h); !errors.Is(err, store.ErrCorrupt) || !errors.Is(err, store.ErrNotFound) {
		t.Errorf("missing file: %v", err)
	}
	h, ok := claim.UsePrevious()
	if !ok || h.Step != 1 {
		t.Fatalf("previous: %+v", h)
	}
	if _, err := s.ReadFiles(ctx, h); err != nil {
		t.Fatal(err)
	}
	if err := claim.Commit(ctx, 2, files(2), nil); err != nil {
		t.Fatal(err)
	}
	h = claim.Head()
	if _, err := s.ReadFiles(ctx, h); err != nil || h.Step != 2 || h.Previous == nil || h.Previous.Step != 1 {
		t.Errorf("after the repair: %+v, %v", h, err)
	}
}

func TestBrokenHeadIsNamed(t *testing.T) {
	t.Parallel()
	c := config(t)
	s := open(t, c)
	if _, err := s.PutKey(t.Context(), "st/HEAD.json", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(t.Context(), "st", "a"); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "st/HEAD.json") {
		t.Errorf("claim: %v", err)
	}
}

func TestConcurrentClaims(t *testing.T) {
	t.Parallel()
	s := open(t, config(t))
	const n = 8
	epochs := make([]int64, n)
	claims := make([]*store.Claim, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c, err := s.Claim(t.Context(), "st", fmt.Sprint(i))
			if err != nil {
				t.Error(err)
				return
			}
			claims[i], epochs[i] = c, c.Head().Epoch
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	seen := map[int64]int{}
	for i, e := range epochs {
		seen[e] = i
	}
	won := 0
	for i, c := range claims {
		err := c.Commit(t.Context(), 1, files(1), nil)
		switch {
		case err == nil:
			won++
			if i != seen[n] {
				t.Errorf("claim %d of epoch %d committed", i, epochs[i])
			}
		case !errors.Is(err, store.ErrFenced):
			t.Error(err)
		}
	}
	if len(seen) != n || won != 1 {
		t.Errorf("%d epochs, %d winners", len(seen), won)
	}
}

// lossy drops replies to PUT requests after the server has done the work.
type lossy struct {
	base  http.RoundTripper
	share float64
	drops atomic.Int64
	all   atomic.Bool // drop every one
}

func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.base.RoundTrip(r)
	if err == nil && r.Method == http.MethodPut && (l.all.Load() || rand.Float64() < l.share) {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		l.drops.Add(1)
		return nil, io.ErrUnexpectedEOF
	}
	return resp, err
}

// Attempts overlap, a fifth of the replies is lost after the write took place: the history must still be one line.
func TestZombiesWithLostReplies(t *testing.T) {
	t.Parallel()
	c := config(t)
	l := &lossy{base: http.DefaultTransport, share: 0.2}
	c.Transport = l
	s := open(t, c)
	type entry struct{ Epoch, Step int64 }
	var (
		wg     sync.WaitGroup
		fenced atomic.Int64
		mu     sync.Mutex
		acked  []entry
	)
	const attempts = 5
	for a := range attempts {
		claim, err := s.Claim(t.Context(), "ck", fmt.Sprint("attempt ", a))
		if err != nil {
			t.Fatal(err)
		}
		two := make(chan struct{})
		wg.Go(func() {
			var history []entry
			if n := claim.Head().Note; n != nil {
				if err := json.Unmarshal(n, &history); err != nil {
					t.Error(err)
				}
			}
			for i := range 6 {
				e := entry{claim.Head().Epoch, claim.Head().Step + 1}
				history = append(history, e)
				err := claim.Commit(t.Context(), e.Step, map[string][]byte{"f": fmt.Appendf(nil, "%v", e)}, history)
				if errors.Is(err, store.ErrFenced) {
					fenced.Add(1)
				} else if err != nil {
					t.Error(err)
				}
				if i == 1 || (err != nil && i < 1) {
					close(two)
				}
				if err != nil {
					return
				}
				mu.Lock()
				acked = append(acked, e)
				mu.Unlock()
			}
		})
		<-two // the next attempt starts while this one still runs
	}
	wg.Wait()
	h, ok, err := s.ReadHead(t.Context(), "ck")
	if err != nil || !ok {
		t.Fatal(err)
	}
	var history []entry
	if err := json.Unmarshal(h.Note, &history); err != nil {
		t.Fatal(err)
	}
	in := map[entry]bool{}
	for i, e := range history {
		in[e] = true
		if e.Step != int64(i+1) || (i > 0 && e.Epoch < history[i-1].Epoch) {
			t.Fatalf("history is not one line: %v", history)
		}
	}
	for _, e := range acked {
		if !in[e] {
			t.Errorf("acknowledged commit %v is not in the history %v", e, history)
		}
	}
	if h.Step != int64(len(history)) || h.Epoch != attempts {
		t.Errorf("head: epoch %d step %d, history of %d", h.Epoch, h.Step, len(history))
	}
	if _, err := s.ReadFiles(t.Context(), h); err != nil {
		t.Error(err)
	}
	if l.drops.Load() == 0 {
		t.Error("no reply was dropped in this test")
	}
	t.Logf("%d commits, %d acknowledged, %d fenced, %d replies dropped", len(history), len(acked), fenced.Load(), l.drops.Load())
}

func TestLostRepliesOfPutKey(t *testing.T) {
	t.Parallel()
	c := config(t)
	l := &lossy{base: http.DefaultTransport, share: 0.5}
	c.Transport = l
	c.MaxAttempts = 30
	s := open(t, c)
	for i := range 6 {
		key := fmt.Sprint("k", i)
		if created, err := s.PutKey(t.Context(), key, []byte(key)); err != nil || !created {
			t.Errorf("%s: created %v, %v", key, created, err)
		}
	}
	if l.drops.Load() == 0 {
		t.Error("no reply was dropped in this test")
	}
}

// A commit whose fate is unknown must not block the next one, nor be taken for somebody else's.
func TestCommitAfterUnknownOutcome(t *testing.T) {
	t.Parallel()
	c := config(t)
	l := &lossy{base: http.DefaultTransport}
	c.Transport = l
	c.MaxAttempts = 1
	s := open(t, c)
	claim, err := s.Claim(t.Context(), "ck", "a")
	if err != nil {
		t.Fatal(err)
	}
	// No files: the only write of this commit is the one of HEAD.json, and its reply is lost for good.
	l.all.Store(true)
	if err := claim.Commit(t.Context(), 1, nil, "first"); err == nil || errors.Is(err, store.ErrFenced) {
		t.Fatalf("commit without a reply: %v", err)
	}
	l.all.Store(false)
	if h, _, err := s.ReadHead(t.Context(), "ck"); err != nil || h.Step != 1 {
		t.Fatalf("the write took place: step %d, %v", h.Step, err)
	}
	if err := claim.Commit(t.Context(), 2, files(2), nil); err != nil {
		t.Fatalf("commit after it: %v", err)
	}
	// The same, and a successor comes in between: now it is fenced.
	l.all.Store(true)
	if err := claim.Commit(t.Context(), 3, nil, "third"); err == nil {
		t.Fatal("commit without a reply went well")
	}
	l.all.Store(false)
	if _, err := s.Claim(t.Context(), "ck", "b"); err != nil {
		t.Fatal(err)
	}
	if err := claim.Commit(t.Context(), 4, nil, nil); !errors.Is(err, store.ErrFenced) {
		t.Errorf("zombie after an unknown outcome: %v", err)
	}
}
