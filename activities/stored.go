package activities

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
)

// This file reads what runs left through a [Bucket]: also the plain files of an S3 server that does not run.

// RecordIn is ReadRecord from a bucket. A run that nobody recorded gives store.ErrNotFound.
func RecordIn(ctx context.Context, b Bucket, id string) (r Record, p Plan, err error) {
	if err := spec.CheckRunID(id); err != nil {
		return r, p, err
	}
	data, err := b.GetKey(ctx, runStream(id)+"/HEAD.json")
	if err != nil {
		return r, p, err
	}
	h, err := store.ParseHead(data)
	if err != nil {
		return r, p, fmt.Errorf("run %q: %w", id, err)
	}
	ref, ok := h.Files["run.json"]
	if !ok {
		return r, p, fmt.Errorf("run %q: nothing is recorded yet: %w", id, store.ErrNotFound)
	}
	for _, x := range []struct {
		ref func() store.Ref
		to  any
	}{{func() store.Ref { return ref }, &r}, {func() store.Ref { return r.Plan }, &p}} {
		data, err := bytesIn(ctx, b, x.ref())
		if err == nil {
			err = strict(data, x.to)
		}
		if errors.Is(err, store.ErrNotFound) { // the run is there, and what its record names is not
			err = fmt.Errorf("%w: object %s is missing", store.ErrCorrupt, x.ref().Key)
		}
		if err != nil {
			return r, p, fmt.Errorf("run %q: its record is not readable: %w; `character repair --check` says more", id, err)
		}
	}
	return r, p, nil
}

// bytesIn reads an object and checks it against its ref.
func bytesIn(ctx context.Context, b Bucket, r store.Ref) ([]byte, error) {
	data, err := b.GetKey(ctx, r.Key)
	if err == nil {
		err = matches(r, data)
	}
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", r.Key, err)
	}
	return data, nil
}

// RowsIn reads the rows of parts in the order of refs, and checks every byte.
func RowsIn[T any](ctx context.Context, b Bucket, refs []store.Ref) ([]T, error) {
	var rows []T
	for _, r := range refs {
		data, err := bytesIn(ctx, b, r)
		if err != nil {
			return nil, err
		}
		part, err := dataset.DecodeParquet[T](data)
		if err != nil {
			return nil, fmt.Errorf("part %s: %w", r.Key, err)
		}
		rows = append(rows, part...)
	}
	return rows, nil
}

// Table is the key of a data set's one Parquet file: table is dpo or introspection.
func (s Stage) Table(table string) string { return s.Folder + tableFile(table) }
