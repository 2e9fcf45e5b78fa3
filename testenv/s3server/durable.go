package s3server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3response"
)

// durable makes an acknowledged write survive a power cut: the storage it wraps never calls fsync. The file is flushed
// BEFORE it gets its name, so that no name ever points at torn data, then its attributes and every folder above it.
type durable struct {
	*posix.Posix
	root string // absolute: the storage itself uses paths relative to the working directory
}

// PutObject implements the storage interface of the server.
func (d *durable) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	out, err := d.PutObjectWithPostFunc(ctx, in, func(f *os.File) error { return f.Sync() })
	if err != nil {
		return out, err
	}
	return out, d.flush(in.Bucket, in.Key)
}

// CompleteMultipartUpload implements the storage interface of the server.
func (d *durable) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput) (s3response.CompleteMultipartUploadResult, string, error) {
	out, version, err := d.Posix.CompleteMultipartUpload(ctx, in)
	if err != nil {
		return out, version, err
	}
	return out, version, d.flush(in.Bucket, in.Key)
}

// CopyObject implements the storage interface of the server.
func (d *durable) CopyObject(ctx context.Context, in s3response.CopyObjectInput) (s3response.CopyObjectOutput, error) {
	out, err := d.Posix.CopyObject(ctx, in)
	if err != nil {
		return out, err
	}
	return out, d.flush(in.Bucket, in.Key)
}

// CreateBucket implements the storage interface of the server.
func (d *durable) CreateBucket(ctx context.Context, in *s3.CreateBucketInput, acl []byte) error {
	if err := d.Posix.CreateBucket(ctx, in, acl); err != nil {
		return err
	}
	if err := syncPath(filepath.Join(d.root, *in.Bucket)); err != nil {
		return err
	}
	return syncPath(d.root)
}

// DeleteObject implements the storage interface of the server.
func (d *durable) DeleteObject(ctx context.Context, in *s3.DeleteObjectInput) (*s3.DeleteObjectOutput, error) {
	out, err := d.Posix.DeleteObject(ctx, in)
	if err != nil {
		return out, err
	}
	return out, d.flushParent(in.Bucket, in.Key)
}

// flush writes the file of a key and all folders from it up to the root to the disk.
func (d *durable) flush(bucket, key *string) error {
	if bucket == nil || key == nil {
		return nil
	}
	path := filepath.Join(d.root, *bucket, filepath.FromSlash(*key))
	if err := syncPath(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // deleted meanwhile: nothing to keep
		return err
	}
	return d.flushParent(bucket, key)
}

// flushParent flushes the folders above a key; those that a delete removed are skipped.
func (d *durable) flushParent(bucket, key *string) error {
	if bucket == nil || key == nil {
		return nil
	}
	path := filepath.Join(d.root, *bucket, filepath.FromSlash(*key))
	for dir := filepath.Dir(path); strings.HasPrefix(dir, d.root) && len(dir) > len(d.root); dir = filepath.Dir(dir) {
		if err := syncPath(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("flush %s: %w", path, err)
	}
	return nil
}
