package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// ErrChanged: the object is not the one that was listed; it was left alone.
var ErrChanged = errors.New("the object has changed since it was listed")

// Stat tells an object's size and age by the server's clock alone: both times of the answer are the server's, so the
// clocks of this machine and of the server need not agree. A missing object gives ErrNotFound.
func (s *Store) Stat(ctx context.Context, key string) (o Object, age time.Duration, err error) {
	o, now, _, err := s.head(ctx, key)
	if err == nil {
		age = max(0, now.Sub(o.Modified))
	}
	return o, age, err
}

// Now is the time by the server's clock, to the second. ahead is how far that clock is before ours (negative: behind); half of the request's
// duration is its uncertainty.
func (s *Store) Now(ctx context.Context) (now time.Time, ahead time.Duration, err error) {
	err = s.call(ctx, "ask for the time", "", 0, func(ctx context.Context) error {
		out, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.cfg.Bucket})
		if err != nil {
			return err
		}
		at := time.Now()
		var ok bool
		if now, ok = awsmiddleware.GetServerTime(out.ResultMetadata); !ok {
			return errors.New("the answer has no Date header")
		}
		ahead = now.Sub(at)
		return nil
	})
	return now, ahead, err
}

// Remove deletes a listed object for good. One that was written again since the listing is left alone, with ErrChanged; one that is gone
// already is no error. Between the look and the deletion somebody could still write the same key: remove only what
// nobody may write again.
func (s *Store) Remove(ctx context.Context, o Object) error {
	now, _, _, err := s.head(ctx, o.Key)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if now.Size != o.Size || !now.Modified.Equal(o.Modified) {
		return fmt.Errorf("store: remove %s: %w", o.Key, ErrChanged)
	}
	return s.delete(ctx, o.Key)
}

// SetAside moves an object out of the way without losing its bytes, damaged as they may be: to aside/KEY/<hash of the bytes>.
func (s *Store) SetAside(ctx context.Context, key string) (to string, err error) {
	if to, err = s.copyAside(ctx, key); err != nil {
		return "", err
	}
	return to, s.delete(ctx, key)
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

func (s *Store) delete(ctx context.Context, key string) error {
	return s.call(ctx, "delete", key, 0, func(ctx context.Context) error {
		_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.cfg.Bucket, Key: aws.String(s.full(key))})
		if notFound(err) { // an earlier try, whose reply was lost
			return nil
		}
		return err
	})
}

func (s *Store) head(ctx context.Context, key string) (o Object, now time.Time, etag string, err error) {
	if err := checkKey(key); err != nil {
		return o, now, "", fmt.Errorf("store: stat: %w", err)
	}
	err = s.call(ctx, "stat", key, 0, func(ctx context.Context) error {
		out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.cfg.Bucket, Key: aws.String(s.full(key))})
		if notFound(err) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		o = Object{Key: key, Size: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified)}
		etag = aws.ToString(out.ETag)
		var ok bool
		if now, ok = awsmiddleware.GetServerTime(out.ResultMetadata); !ok {
			return errors.New("the answer has no Date header")
		}
		return nil
	})
	return o, now, etag, err
}

// readRaw reads an object as it is: the server's own checksum, which damaged bytes do not have, is not asked for.
func (s *Store) readRaw(ctx context.Context, key string) (data []byte, etag string, err error) {
	data, etag, _, err = s.readWith(ctx, key, 0, func(o *s3.Options) { o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired })
	return data, etag, err
}
