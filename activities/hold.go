package activities

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/opencharacter/opencharacter/store"
)

// hold is the note of the stream that keeps runs from beginning while garbage is removed.
type hold struct {
	Collecting bool `json:"collecting"`
}

const (
	holdStream = "gc"
	// holdLasts is how long a collector that was killed keeps runs from beginning. It must say every holdRenew that it lives.
	holdLasts = 15 * time.Minute
	holdRenew = time.Minute
	// holdSeen is how long a worker must have watched an old hold stand still, by a clock that nobody can set: the server's
	// clock may have jumped since the hold was renewed. A living collector renews it meanwhile.
	holdSeen = 3 * holdRenew
)

// Hold keeps new runs from beginning until Release: they wait, and lose nothing.
type Hold struct {
	claim *store.Claim
	last  time.Time
}

// HoldRuns begins a hold. A second one takes over from the first, which then ends with store.ErrFenced.
func HoldRuns(ctx context.Context, s *store.Store) (*Hold, error) {
	c, err := s.Claim(ctx, holdStream, "garbage collection")
	if err != nil {
		return nil, err
	}
	h := &Hold{claim: c}
	return h, h.say(ctx, true)
}

// Keep renews the hold when it is time. After an error nothing may be removed any more.
func (h *Hold) Keep(ctx context.Context) error {
	if time.Since(h.last) < holdRenew {
		return nil
	}
	return h.say(ctx, true)
}

// Release lets runs begin again.
func (h *Hold) Release(ctx context.Context) error { return h.say(ctx, false) }

func (h *Hold) say(ctx context.Context, collecting bool) error {
	began := time.Now()
	err := h.claim.Commit(ctx, h.claim.Head().Step+1, nil, hold{collecting})
	if err == nil {
		h.last = began
	}
	return err
}

// collectors remembers what this worker has seen of the hold.
type collectors struct {
	mu    sync.Mutex
	head  store.Head
	since time.Time // when head was first seen; it keeps its monotonic reading
}

// still tells how long the hold has been seen as it is.
func (c *collectors) still(h store.Head, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() || c.head.Epoch != h.Epoch || c.head.Step != h.Step || c.head.Nonce != h.Nonce {
		c.head, c.since = h, now
	}
	return now.Sub(c.since)
}

// held is an error while garbage is being removed: a run that begins now could need what is about to go. A hold whose
// collector is dead is taken over and ended: were it alive after all (its machine slept), it is fenced.
func (c *collectors) held(ctx context.Context, s *store.Store) error {
	h, ok, err := s.ReadHead(ctx, holdStream)
	if err != nil || !ok {
		return err
	}
	var n hold
	if json.Unmarshal(h.Note, &n) != nil || !n.Collecting {
		return nil
	}
	still := c.still(h, time.Now())
	if still > holdSeen && still <= holdLasts {
		_, age, err := s.Stat(ctx, holdStream+"/HEAD.json")
		if err != nil {
			return err
		}
		still = max(still, age)
	}
	if still <= holdLasts {
		return errors.New("garbage is being removed from the bucket (`character gc`): the run begins when that is over (or, if gc was killed, within a quarter of an hour)")
	}
	claim, err := s.Claim(ctx, holdStream, "a run, because the collector is dead")
	if err != nil {
		return err
	}
	return (&Hold{claim: claim}).Release(ctx)
}
