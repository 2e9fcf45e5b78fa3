package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// commitName is a file of every commit's folder: the head that the commit made, so that a lost or damaged HEAD.json can be
// made again from what lies beside it.
const commitName = "commit.json"

// Restored says what RestoreHead did.
type Restored struct {
	Head  Head
	Aside string // where the damaged HEAD.json is now; "" when there was none
	From  string // the commit that is the newest one again; "" when none was whole: the stream begins anew
}

// RestoreHead mends a stream whose HEAD.json is missing, damaged, or names files that are. The newest commit whose files are all there and
// whole becomes the stream's content again: the one before (Head.Previous), or one of those that lie in the stream's data
// folder. When there is none, the stream is empty again. The damaged HEAD.json is kept under aside/. Whoever holds a
// claim is fenced off. ok is false when the stream is whole and nothing was done.
func (s *Store) RestoreHead(ctx context.Context, stream string) (r Restored, ok bool, err error) {
	stream = strings.Trim(stream, "/")
	fail := func(err error) (Restored, bool, error) {
		return Restored{}, false, fmt.Errorf("store: restore %s: %w", headKey(stream), err)
	}
	raw, etag, err := s.readRaw(ctx, headKey(stream))
	missing := errors.Is(err, ErrNotFound)
	if err != nil && !missing {
		return fail(err)
	}
	commits, highest, err := s.commits(ctx, stream)
	if err != nil {
		return fail(err)
	}
	now, perr := parseHead(raw)
	if perr == nil {
		switch _, err := s.ReadFiles(ctx, now); {
		case err == nil:
			return Restored{}, false, nil
		case !errors.Is(err, ErrCorrupt):
			return fail(err)
		case now.Previous != nil:
			commits = append([]candidate{{key: "the commit before it", head: now.Previous}}, commits...)
		}
	}
	next := Head{Epoch: max(now.Epoch, highest) + 1, Owner: "repair"}
	for _, c := range commits {
		head, err := s.whole(ctx, c)
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return fail(err)
		}
		next.Step, next.Files, next.Note, r.From = head.Step, head.Files, head.Note, c.key
		break
	}
	if !missing {
		if r.Aside, err = s.copyAside(ctx, headKey(stream)); err != nil {
			return fail(err)
		}
	}
	c := &Claim{s: s, stream: stream}
	if err := c.swap(ctx, next, etag); err != nil {
		return fail(err)
	}
	r.Head = c.head
	return r, true, nil
}

// candidate is a commit that may become the newest again: head, or what is to be read from key.
type candidate struct {
	key         string
	epoch, step int64
	head        *Head
}

// commits lists the commits in a stream's data folder, the newest first, and the highest epoch that wrote there.
func (s *Store) commits(ctx context.Context, stream string) (out []candidate, highest int64, err error) {
	list, err := s.List(ctx, stream+"/data/")
	if err != nil {
		return nil, 0, err
	}
	for _, o := range list {
		step, epoch, name, ok := ParseCommitKey(stream, o.Key)
		if !ok {
			continue
		}
		highest = max(highest, epoch) // also of a commit that never came to its end
		if name == commitName {
			out = append(out, candidate{key: o.Key, epoch: epoch, step: step})
		}
	}
	slices.SortStableFunc(out, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.epoch, a.epoch), cmp.Compare(b.step, a.step))
	})
	return out, highest, nil
}

// ParseCommitKey takes the key of a file of a stream's commit apart: STREAM/data/<step>/e<epoch>-<nonce>/<name>.
func ParseCommitKey(stream, key string) (step, epoch int64, name string, ok bool) {
	rest, ok := strings.CutPrefix(key, stream+"/data/")
	if !ok {
		return 0, 0, "", false
	}
	p := strings.SplitN(rest, "/", 3)
	if len(p) != 3 || !strings.HasPrefix(p[1], "e") || p[2] == "" {
		return 0, 0, "", false
	}
	e, nonce, _ := strings.Cut(p[1][1:], "-")
	step, err1 := strconv.ParseInt(p[0], 10, 64)
	epoch, err2 := strconv.ParseInt(e, 10, 64)
	return step, epoch, p[2], err1 == nil && err2 == nil && nonce != "" && epoch > 0 && step >= 0
}

// whole reads a candidate and all its files; ErrCorrupt or ErrNotFound says that it is of no use.
func (s *Store) whole(ctx context.Context, c candidate) (Head, error) {
	if c.head == nil {
		data, err := s.GetKey(ctx, c.key)
		if err != nil {
			return Head{}, err
		}
		head, err := parseCommit(data)
		if err != nil {
			return Head{}, fmt.Errorf("%s: %w", c.key, err)
		}
		c.head = &head
	}
	_, err := s.ReadFiles(ctx, *c.head)
	return *c.head, err
}

// parseCommit reads a commit.json. Whether its files are there is for its reader to see.
func parseCommit(data []byte) (h Head, err error) {
	if err := json.Unmarshal(data, &h); err != nil || len(h.Files) == 0 {
		return Head{}, fmt.Errorf("%w: not a commit", ErrCorrupt)
	}
	for name, r := range h.Files {
		if err := errors.Join(checkKey(name), checkKey(r.Key)); err != nil {
			return Head{}, fmt.Errorf("%w: not a commit: %w", ErrCorrupt, err)
		}
	}
	return h, nil
}
