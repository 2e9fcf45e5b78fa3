package dataset

import (
	"cmp"
	"context"
	"fmt"

	"github.com/opencharacter/opencharacter/store"
)

// PartOptions shape the parts that WritePartsWith makes.
type PartOptions struct {
	MaxRows int               // rows of a part; 0 = 1000
	Meta    map[string]string // key-value metadata of every part; it is part of the bytes and so of the name
}

// WriteParts writes rows as immutable Parquet parts under prefix, 1000 rows a part, each named by its content. The same rows give the same
// parts, and writing them again writes nothing. No rows give one part without rows, so that every result has something to point to.
func WriteParts[T any](ctx context.Context, s *store.Store, prefix string, rows []T) ([]store.Ref, error) {
	return WritePartsWith(ctx, s, prefix, rows, PartOptions{})
}

// WritePartsWith is WriteParts with options.
func WritePartsWith[T any](ctx context.Context, s *store.Store, prefix string, rows []T, o PartOptions) ([]store.Ref, error) {
	size := cmp.Or(o.MaxRows, rowGroup)
	if size < 0 {
		return nil, fmt.Errorf("dataset: write parts: %d rows a part is impossible; use 0 for the default of %d", size, rowGroup)
	}
	var refs []store.Ref
	for from := 0; from < len(rows) || from == 0; from += size {
		part := rows[from:min(from+size, len(rows))]
		data, err := EncodeParquet(part, o.Meta)
		if err != nil {
			return nil, err
		}
		r, err := s.Put(ctx, prefix, ".parquet", data)
		if err != nil {
			return nil, fmt.Errorf("dataset: write part: %w", err)
		}
		r.Rows = int64(len(part))
		refs = append(refs, r)
	}
	return refs, nil
}

// ReadParts reads the rows of parts in the order of refs, and checks bytes and row counts.
func ReadParts[T any](ctx context.Context, s *store.Store, refs []store.Ref) ([]T, error) {
	var rows []T
	for _, r := range refs {
		data, err := s.Get(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("dataset: read part: %w", err)
		}
		part, err := DecodeParquet[T](data)
		if err != nil {
			return nil, fmt.Errorf("dataset: part %s: %w", r.Key, err)
		}
		if r.Rows != 0 && int64(len(part)) != r.Rows {
			return nil, fmt.Errorf("dataset: part %s holds %d rows, its reference says %d; the reference is for another file", r.Key, len(part), r.Rows)
		}
		rows = append(rows, part...)
	}
	return rows, nil
}
