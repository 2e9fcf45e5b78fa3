package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrChanged: the object is not the one that was listed; it was left alone.
var ErrChanged = errors.New("the object has changed since it was listed")

// Stat tells an object's size and age by the server's clock alone: both times of the answer are the server's, so the
// clocks of this machine and of the server need not agree. A missing object gives ErrNotFound.
func (s *Store) Stat(ctx context.Context, key string) (o Object, age time.Duration, err error) {
	o, now, err := s.stat(ctx, key)
	if err == nil {
		age = max(0, now.Sub(o.Modified))
	}
	return o, age, err
}

// Now is the time by the server's clock, to the second. ahead is how far that clock is before ours (negative: behind); half of the request's
// duration is its uncertainty.
func (s *Store) Now(ctx context.Context) (now time.Time, ahead time.Duration, err error) {
	now, err = s.b.Now(ctx)
	if err == nil {
		ahead = time.Until(now)
	}
	return now, ahead, err
}

// Remove deletes a listed object for good. One that was written again since the listing is left alone, with ErrChanged; one that is gone
// already is no error. Between the look and the deletion somebody could still write the same key: remove only what
// nobody may write again.
func (s *Store) Remove(ctx context.Context, o Object) error {
	now, _, err := s.stat(ctx, o.Key)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if now.Size != o.Size || !now.Modified.Equal(o.Modified) {
		return fmt.Errorf("store: remove %s: %w", o.Key, ErrChanged)
	}
	return s.b.Delete(ctx, o.Key)
}

// SetAside moves an object out of the way without losing its bytes, damaged as they may be: to aside/KEY/<hash of the bytes>.
func (s *Store) SetAside(ctx context.Context, key string) (to string, err error) {
	if to, err = s.copyAside(ctx, key); err != nil {
		return "", err
	}
	return to, s.b.Delete(ctx, key)
}

func (s *Store) copyAside(ctx context.Context, key string) (to string, err error) {
	data, _, err := s.readRaw(ctx, key)
	if err != nil {
		return "", err
	}
	to = "aside/" + key + "/" + refOf(key, data).SHA256[:16]
	_, err = s.PutKey(ctx, to, data)
	return to, err
}

func (s *Store) stat(ctx context.Context, key string) (Object, time.Time, error) {
	if err := checkKey(key); err != nil {
		return Object{}, time.Time{}, fmt.Errorf("store: stat: %w", err)
	}
	return s.b.Stat(ctx, key)
}
