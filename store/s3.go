package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// This file is the requests of the backend on S3: see [Backend].

// List pages through the bucket.
func (s *bucket) List(ctx context.Context, prefix string) ([]Object, error) {
	var objects []Object
	in := &s3.ListObjectsV2Input{Bucket: &s.cfg.Bucket, Prefix: aws.String(s.full(prefix))}
	for {
		var out *s3.ListObjectsV2Output
		err := s.call(ctx, "list", prefix, 0, func(ctx context.Context) (err error) {
			out, err = s.client.ListObjectsV2(ctx, in)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, o := range out.Contents {
			key := aws.ToString(o.Key)
			if s.cfg.Prefix != "" {
				key = strings.TrimPrefix(key, s.cfg.Prefix+"/")
			}
			objects = append(objects, Object{Key: key, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)})
		}
		if !aws.ToBool(out.IsTruncated) {
			return objects, nil
		}
		if out.NextContinuationToken == nil || aws.ToString(out.NextContinuationToken) == aws.ToString(in.ContinuationToken) {
			return nil, fmt.Errorf("store: list %s (%s): the server says there is more but not where; it does not page its listings", prefix, s.Where())
		}
		in.ContinuationToken = out.NextContinuationToken
	}
}

// Write is the only request that stores bytes. A version is an ETag.
func (s *bucket) Write(ctx context.Context, key string, data []byte, nonce, ifMatch string) (etag string, err error) {
	in := &s3.PutObjectInput{
		Bucket: &s.cfg.Bucket, Key: aws.String(s.full(key)), ContentType: aws.String(contentType(key)),
		Metadata: map[string]string{nonceHeader: nonce},
	}
	if ifMatch == "" {
		in.IfNoneMatch = aws.String("*")
	} else {
		in.IfMatch = &ifMatch
	}
	err = s.call(ctx, "put", key, len(data), func(ctx context.Context) error {
		in := *in
		in.Body = newUpload(ctx, data)
		out, err := s.client.PutObject(ctx, &in)
		if err == nil {
			etag = aws.ToString(out.ETag)
		}
		return err
	})
	if httpStatus(err) == http.StatusPreconditionFailed || ifMatch != "" && notFound(err) { // 404: the condition names an ETag and the key is gone
		err = fmt.Errorf("%w: %w", ErrCondition, err)
	}
	return etag, err
}

// Read reads an object. Raw, the server's own checksum is not asked for, which damaged bytes do not have.
func (s *bucket) Read(ctx context.Context, key string, size int, raw bool) (data []byte, etag, nonce string, err error) {
	var options []func(*s3.Options)
	if raw {
		options = append(options, func(o *s3.Options) { o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired })
	}
	err = s.call(ctx, "get", key, size, func(ctx context.Context) error {
		out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.cfg.Bucket, Key: aws.String(s.full(key))}, options...)
		if err != nil {
			if notFound(err) {
				return ErrNotFound
			}
			return err
		}
		defer func() { _ = out.Body.Close() }()
		var buf bytes.Buffer
		if n := aws.ToInt64(out.ContentLength); n > 0 && n <= 1<<30 {
			buf.Grow(int(n) + bytes.MinRead)
		}
		if _, err := io.Copy(&buf, newProgress(ctx, out.Body)); err != nil {
			if strings.Contains(err.Error(), "checksum did not match") { // the SDK has no exported type for it
				return fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			return &bodyError{err}
		}
		data, etag, nonce = buf.Bytes(), aws.ToString(out.ETag), out.Metadata[nonceHeader]
		return nil
	})
	return data, etag, nonce, err
}

func contentType(key string) string {
	switch {
	case strings.HasSuffix(key, ".json"):
		return "application/json"
	case strings.HasSuffix(key, ".html"):
		return "text/html; charset=utf-8"
	case strings.HasSuffix(key, ".md"), strings.HasSuffix(key, ".jsonl"), strings.HasSuffix(key, ".txt"):
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// Delete removes an object.
func (s *bucket) Delete(ctx context.Context, key string) error {
	return s.call(ctx, "delete", key, 0, func(ctx context.Context) error {
		_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.cfg.Bucket, Key: aws.String(s.full(key))})
		if notFound(err) { // an earlier try, whose reply was lost
			return nil
		}
		return err
	})
}

// Stat asks for an object without its bytes.
func (s *bucket) Stat(ctx context.Context, key string) (o Object, now time.Time, err error) {
	err = s.call(ctx, "stat", key, 0, func(ctx context.Context) error {
		out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.cfg.Bucket, Key: aws.String(s.full(key))})
		if notFound(err) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		o = Object{Key: key, Size: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified)}
		var ok bool
		if now, ok = awsmiddleware.GetServerTime(out.ResultMetadata); !ok {
			return errors.New("the answer has no Date header")
		}
		return nil
	})
	return o, now, err
}

// Now is the server's time, to the second.
func (s *bucket) Now(ctx context.Context) (now time.Time, err error) {
	err = s.call(ctx, "ask for the time", "", 0, func(ctx context.Context) error {
		out, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.cfg.Bucket})
		if err != nil {
			return err
		}
		var ok bool
		if now, ok = awsmiddleware.GetServerTime(out.ResultMetadata); !ok {
			return errors.New("the answer has no Date header")
		}
		return nil
	})
	return now, err
}
