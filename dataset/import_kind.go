package dataset

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// KindOfRows tells by the columns of a file's first row what it can be imported as: dpo or introspection. Both or
// neither is an error that names the columns.
func KindOfRows(f File) (kind string, err error) {
	columns, err := columnsOf(f.Data)
	if err != nil {
		return "", fmt.Errorf("dataset: %s: %w", f.Name, err)
	}
	has := func(name string) bool { return slices.Contains(columns, name) }
	pairs := has("chosen") && has("rejected")
	talks := has("messages") || has("reflection") || has("turns") || has("conversation")
	switch {
	case pairs && talks:
		return "", fmt.Errorf("dataset: %s: its columns fit preference pairs and conversations (%s); say which with --kind", f.Name, strings.Join(columns, ", "))
	case pairs:
		return "dpo", nil
	case talks:
		return "introspection", nil
	}
	return "", fmt.Errorf("dataset: %s: its columns are %s; preference pairs need chosen and rejected, conversations need messages, reflection or turns", f.Name, strings.Join(columns, ", "))
}

// columnsOf lists the columns of a Parquet file, or the fields of the first JSON line, sorted.
func columnsOf(data []byte) (columns []string, err error) {
	defer func() {
		if p := recover(); p != nil { // the Parquet library panics on some damaged files
			err = fmt.Errorf("damaged file: %v; remake it or restore it", p)
		}
	}()
	if strings.HasPrefix(string(data[:min(4, len(data))]), "PAR1") {
		f, err := openParquet(data)
		if err != nil {
			return nil, err
		}
		for _, c := range f.Root().Columns() {
			columns = append(columns, c.Name())
		}
		slices.Sort(columns)
		return columns, nil
	}
	for n, line := range eachLine(data) {
		var fields map[string]json.RawMessage
		if err := decodeLine(line, &fields); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		for name := range fields {
			columns = append(columns, name)
		}
		slices.Sort(columns)
		return columns, nil
	}
	return nil, errors.New("there are no rows")
}
