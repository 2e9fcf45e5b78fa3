package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// Head is the newest state of a fenced stream, as <stream>/HEAD.json holds it.
type Head struct {
	Epoch    int64           `json:"epoch"` // grows by one with every claim
	Owner    string          `json:"owner"` // who claimed last, for people
	Step     int64           `json:"step"`  // of the last commit
	Files    map[string]Ref  `json:"files,omitempty"`
	Note     json.RawMessage `json:"note,omitempty"`
	Nonce    string          `json:"nonce"`              // unique for each write
	Previous *Head           `json:"previous,omitempty"` // the commit before the last one, for when its files are damaged; one level
}

// Claim is the right to commit to a stream, until somebody else claims it. Its methods may be called from any goroutine.
type Claim struct {
	s      *Store
	stream string

	mu     sync.Mutex
	head   Head
	etag   string
	fenced bool
	unsure bool // the last write may or may not have landed
}

func headKey(stream string) string { return stream + "/HEAD.json" }

// Claim makes owner the one that may commit to a stream. Whoever held it gets ErrFenced at its next Commit.
//
// The order of things: HEAD.json is replaced under the condition that it is still the one that was read (If-Match; If-None-Match
// the first time), with epoch + 1. A commit first writes its files under names of this attempt only, then replaces HEAD.json under
// the condition that it is still the one this attempt wrote last. So there is one instant at which a commit happens, and a zombie never reaches it.
func (s *Store) Claim(ctx context.Context, stream, owner string) (*Claim, error) {
	stream = strings.Trim(stream, "/")
	if err := checkKey(headKey(stream)); err != nil {
		return nil, fmt.Errorf("store: claim: %w", err)
	}
	for range 200 {
		head, etag, err := s.readHead(ctx, stream)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("store: claim %s: %w", stream, err)
		}
		head.Epoch++
		head.Owner = owner
		c := &Claim{s: s, stream: stream, head: head}
		err = c.swap(ctx, head, etag)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, ErrFenced) {
			return nil, fmt.Errorf("store: claim %s: %w", stream, err)
		}
		// Somebody else claimed or committed between our read and our write: look again.
		if !sleep(ctx, time.Millisecond+rand.N(20*time.Millisecond)) {
			return nil, fmt.Errorf("store: claim %s: %w", stream, ctx.Err())
		}
	}
	return nil, fmt.Errorf("store: claim %s (%s): others changed it 200 times in a row; stop what else writes to this stream", stream, s.Where())
}

// Head returns what the stream holds under this claim: after Claim the last commit of any owner, later the last one of this.
func (c *Claim) Head() Head {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.head.clone()
}

// UsePrevious goes back one commit, because the files of the last one are damaged. It changes nothing in the store: the next Commit
// does. ok is false when there is none.
func (c *Claim) UsePrevious() (head Head, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.head.Previous == nil {
		return Head{}, false
	}
	p := c.head.Previous
	c.head.Step, c.head.Files, c.head.Note, c.head.Previous = p.Step, p.Files, p.Note, nil
	return c.head.clone(), true
}

// Commit makes files the content of the stream at step: all of them, or nothing. note is stored as JSON. After ErrFenced the
// owner must stop: its work is no longer wanted, and every later Commit fails the same way. After any other error the commit
// may have happened or not; calling Commit again is safe.
func (c *Claim) Commit(ctx context.Context, step int64, files map[string][]byte, note any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	fail := func(err error) error { return fmt.Errorf("store: commit %s step %d: %w", c.stream, step, err) }
	if c.fenced {
		return fail(ErrFenced)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	next := Head{Epoch: c.head.Epoch, Owner: c.head.Owner, Step: step, Files: make(map[string]Ref, len(files))}
	if note != nil {
		raw, err := json.Marshal(note)
		if err != nil {
			return fail(fmt.Errorf("encode the note: %w", err))
		}
		next.Note = raw
	}
	if len(c.head.Files) > 0 {
		previous := c.head.clone()
		previous.Previous = nil
		next.Previous = &previous
	}
	folder := fmt.Sprintf("%s/data/%08d/e%d-%s", c.stream, step, c.head.Epoch, newNonce())
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := checkKey(name); err != nil {
			return fail(err)
		}
		if name == commitName {
			return fail(fmt.Errorf("%s is the commit's own file; choose another name", name))
		}
		r := refOf(folder+"/"+name, files[name])
		if _, err := c.s.PutKey(ctx, r.Key, files[name]); err != nil {
			return fail(err)
		}
		next.Files[name] = r
	}
	if len(next.Files) > 0 {
		if err := c.keepCommit(ctx, folder, next); err != nil {
			return fail(err)
		}
	}
	if c.unsure {
		if err := c.resolve(ctx); err != nil {
			return fail(err)
		}
	}
	for {
		err := c.swap(ctx, next, c.etag)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrFenced) {
			c.unsure = true
			return fail(err)
		}
		// Not our nonce. With our epoch it is an earlier write of ours whose reply never came: go on from it.
		before := c.etag
		if err := c.resolve(ctx); err != nil {
			return fail(err)
		}
		if c.etag == before {
			return fail(fmt.Errorf("the store refused a condition that holds (%s); run the probe of the bucket", c.s.Where()))
		}
	}
}

// keepCommit leaves in a commit's folder what RestoreHead goes by when HEAD.json is lost.
func (c *Claim) keepCommit(ctx context.Context, folder string, next Head) error {
	next.Previous = nil
	data, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode %s: %w", commitName, err)
	}
	_, err = c.s.PutKey(ctx, folder+"/"+commitName, data)
	return err
}

// resolve finds out whether this claim still holds. An epoch belongs to one claim, so the same epoch means that every write since was ours.
func (c *Claim) resolve(ctx context.Context) error {
	head, etag, err := c.s.readHead(ctx, c.stream)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if err != nil || head.Epoch != c.head.Epoch {
		c.fenced = true
		return fmt.Errorf("%w (epoch %d by %q; this is epoch %d by %q)", ErrFenced, head.Epoch, head.Owner, c.head.Epoch, c.head.Owner)
	}
	c.etag, c.unsure = etag, false
	return nil
}

// swap replaces HEAD.json if its ETag is still etag ("" = if there is none). It returns ErrFenced when the condition does not hold
// and what is there is not this very write with its reply lost.
func (c *Claim) swap(ctx context.Context, next Head, etag string) error {
	next.Nonce = newNonce()
	data, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode HEAD.json: %w", err)
	}
	newTag, err := c.s.write(ctx, headKey(c.stream), data, next.Nonce, etag)
	switch {
	case err == nil:
	case lostRace(err):
		there, thereTag, rerr := c.s.readHead(ctx, c.stream)
		if rerr != nil && !errors.Is(rerr, ErrNotFound) {
			return rerr
		}
		if rerr != nil || there.Nonce != next.Nonce {
			return ErrFenced
		}
		newTag = thereTag
	default:
		return err
	}
	c.head, c.etag, c.unsure = next, newTag, false
	return nil
}

// ReadHead reads the state of a stream without claiming it. ok is false when nobody has claimed it yet.
func (s *Store) ReadHead(ctx context.Context, stream string) (head Head, ok bool, err error) {
	head, _, err = s.readHead(ctx, strings.Trim(stream, "/"))
	if errors.Is(err, ErrNotFound) {
		return Head{}, false, nil
	}
	return head, err == nil, err
}

func (s *Store) readHead(ctx context.Context, stream string) (Head, string, error) {
	data, etag, _, err := s.read(ctx, headKey(stream), 0)
	if errors.Is(err, ErrCorrupt) {
		return Head{}, "", fmt.Errorf("%w; `character repair` restores it from the commit before", err)
	}
	if err != nil {
		return Head{}, "", err
	}
	head, err := parseHead(data)
	if err != nil {
		return Head{}, "", fmt.Errorf("store: %s (%s): %w; `character repair` restores it from the commit before", headKey(stream), s.Where(), err)
	}
	return head, etag, nil
}

// ParseHead reads the bytes of a HEAD.json; what is none gives ErrCorrupt.
func ParseHead(data []byte) (Head, error) { return parseHead(data) }

func parseHead(data []byte) (Head, error) {
	var h Head
	if err := json.Unmarshal(data, &h); err != nil {
		return Head{}, fmt.Errorf("%w: not a stream head: %w", ErrCorrupt, err)
	}
	if h.Epoch < 1 || h.Nonce == "" {
		return Head{}, fmt.Errorf("%w: not a stream head: no epoch or nonce", ErrCorrupt)
	}
	return h, nil
}

// ReadFiles reads all files of a head and checks them; a damaged or missing one gives ErrCorrupt (then Head.Previous may help).
func (s *Store) ReadFiles(ctx context.Context, h Head) (map[string][]byte, error) {
	files := make(map[string][]byte, len(h.Files))
	for _, name := range slices.Sorted(maps.Keys(h.Files)) {
		data, err := s.Get(ctx, h.Files[name])
		if errors.Is(err, ErrNotFound) {
			err = fmt.Errorf("%w: it is missing: %w", ErrCorrupt, err)
		}
		if err != nil {
			return nil, fmt.Errorf("store: file %q of step %d: %w", name, h.Step, err)
		}
		files[name] = data
	}
	return files, nil
}

func (h Head) clone() Head {
	h.Files = maps.Clone(h.Files)
	h.Note = slices.Clone(h.Note)
	if h.Previous != nil {
		p := h.Previous.clone()
		h.Previous = &p
	}
	return h
}
