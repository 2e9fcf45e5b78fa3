package store

import (
	"context"
	"fmt"
	"time"
)

const probeLimit = 30 * time.Second

// Probe writes, reads and deletes one small object and checks that the bucket honours conditional writes. Servers exist that accept
// the conditions and ignore them; on those two attempts could overwrite each other's work without a word.
func (s *Store) Probe(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	if err := s.probe(limited); err != nil {
		return fmt.Errorf("store: probe of %s: %w", s.Where(), err)
	}
	return nil
}

func (s *Store) probe(ctx context.Context) error {
	key := "_probe/" + newNonce()
	const next = "; use another S3 server, or another version of it: runs on this one could lose work"
	first, err := s.write(ctx, key, []byte("one"), newNonce(), "")
	if err != nil && !lostRace(err) { // the key is ours alone: a lost race is a lost reply
		return err
	}
	defer func() {
		// Best effort: without the right to delete a few bytes stay behind.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeLimit/3)
		defer cancel()
		_ = s.b.Delete(last, key)
	}()
	data, etag, _, err := s.read(ctx, key, 0)
	if err != nil {
		return err
	}
	if string(data) != "one" || (first != "" && etag != first) {
		return fmt.Errorf("an object just written reads back differently%s", next)
	}
	switch _, err := s.write(ctx, key, []byte("two"), newNonce(), ""); {
	case err == nil:
		return fmt.Errorf("the server ignores If-None-Match: a second write of one key was accepted%s", next)
	case !lostRace(err):
		return fmt.Errorf("a second write with If-None-Match must be refused with status 412, but: %w%s", err, next)
	}
	switch _, err := s.write(ctx, key, []byte("two"), newNonce(), `"00000000000000000000000000000000"`); {
	case err == nil:
		return fmt.Errorf("the server ignores If-Match: a write with a wrong ETag was accepted%s", next)
	case !lostRace(err):
		return fmt.Errorf("a write with a wrong If-Match must be refused with status 412, but: %w%s", err, next)
	}
	if _, err := s.write(ctx, key, []byte("three"), newNonce(), etag); err != nil && !lostRace(err) {
		return fmt.Errorf("a write with the right If-Match was refused: %w%s", err, next)
	}
	data, _, _, err = s.read(ctx, key, 0)
	if err != nil {
		return err
	}
	if string(data) != "three" {
		return fmt.Errorf("a write with the right If-Match did not take place%s", next)
	}
	return nil
}
