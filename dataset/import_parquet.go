package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/parquet-go/parquet-go"
)

// leaf is a column of a Parquet file that holds texts: a column of its own, or a field of the messages in a list.
type leaf struct {
	column string
	field  string // role or content; "" for a column of texts
}

// eachParquet gives the named columns of every row, counted from 1. A column is of texts, or a list of structures with
// role and content (or from and value); columns of other types are an error if they are asked for.
func eachParquet(data []byte, columns []string, each func(n int, cells map[string]cell) error) (err error) {
	defer func() {
		// The Parquet library panics on some damaged files.
		if p := recover(); p != nil {
			err = fmt.Errorf("damaged file: %v; remake it or restore it", p)
		}
	}()
	f, err := openParquet(data)
	if err != nil {
		return err
	}
	leaves, err := textLeaves(f.Schema(), columns)
	if err != nil {
		return err
	}
	n := 0
	for _, group := range f.RowGroups() {
		if err := eachGroup(group, leaves, &n, each); err != nil {
			return err
		}
	}
	if int64(n) != f.NumRows() {
		return fmt.Errorf("it claims %d rows and holds %d; is this a complete Parquet file?", f.NumRows(), n)
	}
	return nil
}

// textLeaves finds the wanted columns among those of the file, by the number of the leaf.
func textLeaves(schema *parquet.Schema, columns []string) (map[int]leaf, error) {
	names := map[string]string{"role": "role", "from": "role", "content": "content", "value": "content"}
	out := map[int]leaf{}
	for i, path := range schema.Columns() {
		if !slices.Contains(columns, path[0]) {
			continue
		}
		l, ok := schema.Lookup(path...)
		if !ok {
			return nil, inColumn(path[0], errors.New("it can not be read"))
		}
		field := names[path[len(path)-1]]
		switch {
		case len(path) > 1 && field == "": // something else in the messages
			continue
		case len(path) == 1 && l.MaxRepetitionLevel > 0, len(path) > 1 && l.MaxRepetitionLevel != 1:
			return nil, inColumn(path[0], errors.New("it must be a text, or a list of messages with role and content"))
		case l.Node.Type().Kind() != parquet.ByteArray:
			return nil, inColumn(path[0], fmt.Errorf("it has the type %s; it must be a text, or a list of messages with role and content", l.Node.Type()))
		}
		if len(path) == 1 {
			field = ""
		}
		out[i] = leaf{path[0], field}
	}
	return out, nil
}

// eachGroup reads one row group.
func eachGroup(group parquet.RowGroup, leaves map[int]leaf, n *int, each func(n int, cells map[string]cell) error) (err error) {
	rows := group.Rows()
	defer func() { err = errors.Join(err, rows.Close()) }()
	batch := make([]parquet.Row, rowGroup)
	for {
		count, err := rows.ReadRows(batch)
		for _, row := range batch[:count] {
			*n++
			cells, err := rowCells(row, leaves)
			if err != nil {
				return fmt.Errorf("row %d: %w", *n, err)
			}
			if err := each(*n, cells); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("row %d: %w; the file is damaged", *n+1, err)
		}
		if count == 0 || *n > maxRows {
			return fmt.Errorf("it does not end after %d rows", *n)
		}
	}
}

// rowCells collects the texts of a row.
func rowCells(row parquet.Row, leaves map[int]leaf) (map[string]cell, error) {
	cells, fields := map[string]cell{}, map[leaf][]string{}
	var failed error
	row.Range(func(column int, values []parquet.Value) bool {
		l, ok := leaves[column]
		if !ok || len(values) == 0 || len(values) == 1 && values[0].IsNull() { // no value, or an empty list
			return true
		}
		if l.field == "" {
			cells[l.column] = cell{text: string(values[0].ByteArray())}
			return true
		}
		for i, v := range values {
			if v.IsNull() {
				failed = inColumn(l.column, fmt.Errorf("message %d has no %s", i+1, l.field))
				return false
			}
			fields[l] = append(fields[l], string(v.ByteArray()))
		}
		return true
	})
	if failed != nil {
		return nil, failed
	}
	for _, l := range leaves {
		if l.field == "" || cells[l.column].messages != nil {
			continue
		}
		roles, contents := fields[leaf{l.column, "role"}], fields[leaf{l.column, "content"}]
		if len(roles) != len(contents) {
			return nil, inColumn(l.column, errors.New("every message needs a role and a content, both texts"))
		}
		if len(roles) == 0 {
			continue
		}
		c := cell{}
		for i := range roles {
			c.messages = append(c.messages, Message{roles[i], contents[i]})
		}
		cells[l.column] = c
	}
	return cells, nil
}

// openParquet checks what a hostile file could claim and opens it. The library may still panic on it: the caller recovers.
func openParquet(data []byte) (*parquet.File, error) {
	if err := checkFooter(data); err != nil {
		return nil, err
	}
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, err
	}
	if n := f.NumRows(); n < 0 || n > maxRows || n > int64(len(data)>>10+1)*rowsPerKiB {
		return nil, fmt.Errorf("it claims %d rows in %d bytes", n, len(data))
	}
	if err := checkChunks(f.Metadata(), int64(len(data))); err != nil {
		return nil, err
	}
	return f, checkPages(f.Metadata(), data)
}
