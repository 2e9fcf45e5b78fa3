package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
)

// Shuffle returns rows in an order that depends on the seed and the rows' ids only, not on their order before: by the SHA-256 of seed and id, ties by id,
// and rows of one id as they came.
func Shuffle[T any](rows []T, seed uint64, id func(T) string) []T {
	type entry struct {
		hash [sha256.Size]byte
		id   string
		row  T
	}
	entries := make([]entry, len(rows))
	for i, row := range rows {
		name := id(row)
		var b bytes.Buffer
		_ = binary.Write(&b, binary.LittleEndian, seed) // a bytes.Buffer takes everything
		b.WriteString(name)
		entries[i] = entry{sha256.Sum256(b.Bytes()), name, row}
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		if c := bytes.Compare(a.hash[:], b.hash[:]); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	})
	out := make([]T, len(rows))
	for i, e := range entries {
		out[i] = e.row
	}
	return out
}
