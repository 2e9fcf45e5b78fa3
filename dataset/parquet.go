package dataset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

const (
	rowGroup   = 1000      // rows of a row group, and of one write: fixed, because both shape the bytes
	maxRows    = 1 << 26   // a file that claims more was not made here
	rowsPerKiB = 8 << 10   // the same: a group of 1000 equal rows takes some hundred bytes
	maxColumn  = 256 << 20 // bytes of one column of a row group, uncompressed: 1000 rows of 256 KiB of text
	maxFile    = 4 << 30   // bytes of all columns, uncompressed
)

// EncodeParquet returns rows as one Parquet file: zstd, row groups of 1000 rows, lists in the standard three-level form. The bytes depend on rows and meta
// only. Strings that are not valid UTF-8 are made so (other readers refuse such a file). meta goes into the file's key-value metadata.
func EncodeParquet[T any](rows []T, meta map[string]string) ([]byte, error) {
	schema := parquet.SchemaOf(new(T))
	options := []parquet.WriterOption{
		schema,
		parquet.Compression(&parquet.Zstd),
		parquet.MaxRowsPerRowGroup(rowGroup),
		parquet.PageBufferSize(1 << 20),
		parquet.CreatedBy("opencharacter", "1", ""),
	}
	for _, column := range schema.Columns() {
		leaf, ok := schema.Lookup(column...)
		// The footer would hold whole texts as bounds of their column.
		if ok && leaf.Node.Type().Kind() == parquet.ByteArray && column[len(column)-1] != "id" {
			options = append(options, parquet.SkipPageBounds(column...))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		options = append(options, parquet.KeyValueMetadata(strings.ToValidUTF8(key, "\uFFFD"), strings.ToValidUTF8(meta[key], "\uFFFD")))
	}
	var buf bytes.Buffer
	w := parquet.NewGenericWriter[T](&buf, options...)
	for batch := range slices.Chunk(rows, rowGroup) {
		clean := make([]T, len(batch))
		for i, row := range batch {
			clean[i] = validText(row)
		}
		if _, err := w.Write(clean); err != nil {
			return nil, fmt.Errorf("dataset: write Parquet: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("dataset: write Parquet: %w", err)
	}
	return buf.Bytes(), nil
}

// DecodeParquet reads all rows of a Parquet file. Columns that T does not have are ignored; a missing column, a column of another
// type and every damage give an error.
func DecodeParquet[T any](data []byte) (rows []T, err error) {
	defer func() {
		// The Parquet library panics on some damaged files.
		if p := recover(); p != nil {
			rows, err = nil, fmt.Errorf("dataset: read Parquet: damaged file: %v; remake it or restore it", p)
		}
	}()
	bad := func(err error) ([]T, error) {
		return nil, fmt.Errorf("dataset: read Parquet: %w; is this a complete Parquet file of this kind of row?", err)
	}
	f, err := openParquet(data)
	if err != nil {
		return bad(err)
	}
	schema := parquet.SchemaOf(new(T))
	if err := checkColumns(schema, f.Schema()); err != nil {
		return bad(err)
	}
	r := parquet.NewGenericReader[T](f, schema)
	defer func() { _ = r.Close() }()
	batch := make([]T, rowGroup)
	for {
		clear(batch) // the reader reuses the slices of the rows it is given
		n, err := r.Read(batch)
		rows = append(rows, batch[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			return bad(err)
		}
		if n == 0 || len(rows) > maxRows {
			return bad(fmt.Errorf("it does not end after %d rows", len(rows)))
		}
	}
	if int64(len(rows)) != f.NumRows() {
		return bad(fmt.Errorf("it claims %d rows and holds %d", f.NumRows(), len(rows)))
	}
	return rows, nil
}

// checkFooter looks at the end of the file, where its metadata and their length stand: the library makes room for any length.
func checkFooter(data []byte) error {
	const magic = "PAR1"
	n := len(data)
	if n < 12 || string(data[:4]) != magic || string(data[n-4:]) != magic {
		return errors.New("it does not begin and end as one")
	}
	size := binary.LittleEndian.Uint32(data[n-8:])
	if int64(size) > int64(n-12) {
		return fmt.Errorf("its metadata have %d bytes in a file of %d", size, n)
	}
	return checkLists(data[n-8-int(size) : n-8])
}

// checkChunks refuses what the library can not be trusted with: some of its decompressors do not end on damaged data.
func checkChunks(meta *format.FileMetaData, size int64) error {
	all := int64(0)
	for _, group := range meta.RowGroups {
		for _, column := range group.Columns {
			m := column.MetaData
			switch m.Codec {
			case format.Uncompressed, format.Snappy, format.Zstd:
			default:
				return fmt.Errorf("compression %s is not supported, write it with zstd", m.Codec)
			}
			if m.TotalCompressedSize < 0 || m.TotalCompressedSize > size || m.TotalUncompressedSize < 0 || m.TotalUncompressedSize > maxColumn {
				return fmt.Errorf("a column of %d bytes (%d uncompressed, the limit is %d) in a file of %d", m.TotalCompressedSize, m.TotalUncompressedSize, maxColumn, size)
			}
			if all += m.TotalUncompressedSize; all > maxFile {
				return fmt.Errorf("more than %d bytes, uncompressed", int64(maxFile))
			}
		}
	}
	return nil
}

// checkColumns compares leaf columns. Some writers call the element of a list "item".
func checkColumns(want, have *parquet.Schema) error {
	for _, column := range want.Columns() {
		w, _ := want.Lookup(column...)
		h, ok := have.Lookup(column...)
		if !ok {
			other := slices.Clone(column)
			for i, name := range other {
				if name == "element" {
					other[i] = "item"
				}
			}
			h, ok = have.Lookup(other...)
		}
		if !ok {
			return fmt.Errorf("column %s is missing", strings.Join(column, "."))
		}
		if wk, hk := w.Node.Type().Kind(), h.Node.Type().Kind(); wk != hk {
			return fmt.Errorf("column %s has type %s, want %s", strings.Join(column, "."), hk, wk)
		}
	}
	return nil
}
