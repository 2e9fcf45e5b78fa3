package dataset_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

// decodeBounds are what a Parquet file may cost to read: its columns, uncompressed up to what the package says, its rows,
// and the library's buffers for each column.
var decodeBounds = hostile.Bounds{Base: 64 << 20, PerByte: 4096}

// table is one kind of row, so that every kind goes through the same test.
type table struct {
	name   string
	sample []byte
	decode func(t *testing.T, data []byte)
}

func tableOf[T any](f testing.TB, name string, rows ...T) table {
	f.Helper()
	sample, err := dataset.EncodeParquet(rows, map[string]string{"k": "v"})
	if err != nil {
		f.Fatal(err)
	}
	return table{name, sample, func(t *testing.T, data []byte) {
		var rows []T
		var err error
		decodeBounds.Hold(t, len(data), func() { rows, err = dataset.DecodeParquet[T](data) })
		if err != nil {
			if !strings.HasPrefix(err.Error(), "dataset: ") {
				t.Errorf("%s: error %q does not name the package", name, err)
			}
			return
		}
		out, err := dataset.EncodeParquet(rows, nil)
		if err != nil {
			t.Fatalf("%s: rows that were read can not be written: %v", name, err)
		}
		again, err := dataset.DecodeParquet[T](out)
		if err != nil || len(again) != len(rows) {
			t.Fatalf("%s: %d rows were written, %d read: %v", name, len(rows), len(again), err)
		}
		twice, err := dataset.EncodeParquet(again, nil)
		if err != nil || !bytes.Equal(out, twice) {
			t.Fatalf("%s: the rows changed on their way (%v)", name, err)
		}
	}}
}

func tables(f testing.TB) []table {
	m := []dataset.Message{{Role: "user", Content: "hello"}, {Role: "assistant", Content: "aye"}}
	return []table{
		tableOf(f, "pair", dataset.Pair{Prompt: m[:1], Chosen: m[1:], Rejected: m[1:], ID: "a", Source: "pool", ChosenTokens: 3}, dataset.Pair{ID: "b"}),
		tableOf(f, "prompt", dataset.Prompt{ID: "a", Text: "hello", Source: "constitution", Trait: 2}),
		tableOf(f, "response", dataset.Response{ID: "a", Prompt: "hello", Text: "aye", Finish: "stop", Tokens: 2, LogProb: -1.5}),
		tableOf(f, "conversation", dataset.Conversation{Messages: m, ID: "a", Kind: "reflection", Turns: 1, Tokens: 9}),
		tableOf(f, "reference", dataset.Reference{ID: "a", Chosen: -2, Rejected: math.Inf(-1), ChosenEach: []float32{-1, -1}}),
		tableOf(f, "metric", dataset.Metric{Stage: "dpo", Step: 3, Name: "loss", Value: math.Ln2}),
	}
}

// FuzzDecodeRows: a file is refused, by every kind of row, or its rows survive being written and read again.
func FuzzDecodeRows(f *testing.F) {
	all := tables(f)
	for i, a := range all {
		f.Add(uint8(i), a.sample)
		f.Add(uint8(i), all[(i+1)%len(all)].sample)
		f.Add(uint8(i), a.sample[len(a.sample)/2:])
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) { all[int(kind)%len(all)].decode(t, data) })
}

// FuzzDecodeFooter: the metadata alone are hostile; they lie at the end of a whole file, whose lengths are set right so
// that the bytes are read at all.
func FuzzDecodeFooter(f *testing.F) {
	all := tables(f)
	cut := func(data []byte) (body, footer []byte) {
		n := int(binary.LittleEndian.Uint32(data[len(data)-8:]))
		return data[:len(data)-8-n], data[len(data)-8-n : len(data)-8]
	}
	for i, a := range all {
		_, footer := cut(a.sample)
		f.Add(uint8(i), footer, uint16(0), []byte(nil))
	}
	f.Fuzz(func(t *testing.T, kind uint8, footer []byte, at uint16, patch []byte) {
		a := all[int(kind)%len(all)]
		body, _ := cut(a.sample)
		body = bytes.Clone(body)
		if int(at)+len(patch) <= len(body)-4 {
			copy(body[4+int(at):], patch) // a page's header, or its data
		}
		data := binary.LittleEndian.AppendUint32(append(body, footer...), uint32(len(footer)))
		a.decode(t, append(data, "PAR1"...))
	})
}

// TestLyingParquet: other numbers of rows in the metadata, by the varints of the footer that hold them.
func TestLyingParquet(t *testing.T) {
	for _, a := range tables(t) {
		n := 1
		if a.name == "pair" {
			n = 2
		}
		for name, edit := range map[string]func(footer []byte) []byte{
			// A count is an i64 field that follows the field before it: "\x16" and a zigzag varint.
			"rows": func(b []byte) []byte {
				return bytes.Replace(b, []byte{0x16, byte(2 * n)}, []byte{0x16, 0x80 | byte(2*n), 0x40}, 1)
			},
			"many rows": func(b []byte) []byte {
				return bytes.ReplaceAll(b, []byte{0x16, byte(2 * n)}, []byte{0x16, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
			},
		} {
			m := int(binary.LittleEndian.Uint32(a.sample[len(a.sample)-8:]))
			at := len(a.sample) - 8 - m
			footer := edit(bytes.Clone(a.sample[at : len(a.sample)-8]))
			if bytes.Equal(footer, a.sample[at:len(a.sample)-8]) {
				t.Errorf("%s, %s: nothing was changed", a.name, name)
			}
			data := append(bytes.Clone(a.sample[:at]), footer...)
			data = append(binary.LittleEndian.AppendUint32(data, uint32(len(footer))), "PAR1"...)
			a.decode(t, data)
			decodeBounds.Hold(t, len(data), func() {
				if rows, err := dataset.DecodeParquet[dataset.Metric](data); a.name == "metric" && err == nil {
					t.Errorf("%s: %d rows and no error", name, len(rows))
				}
			})
		}
	}
}

// TestParquetBomb: a small file of a large text, and one that promises more rows than it can hold, cost what they are and
// no more.
func TestParquetBomb(t *testing.T) {
	type one struct {
		Stage string  `parquet:"stage,dict"`
		Step  int64   `parquet:"step"`
		Name  string  `parquet:"name"`
		Value float64 `parquet:"value"`
	}
	var file bytes.Buffer
	w := parquet.NewGenericWriter[one](&file, parquet.Compression(&parquet.Zstd), parquet.PageBufferSize(1<<30), parquet.MaxRowsPerRowGroup(1<<30))
	rows := make([]one, 1<<16)
	for range 20 {
		if _, err := w.Write(rows); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := dataset.DecodeParquet[dataset.Metric](file.Bytes()); err == nil || !strings.Contains(err.Error(), "rows") {
		t.Errorf("%d bytes gave %d rows: %v", file.Len(), len(got), err)
	}

	file.Reset()
	w = parquet.NewGenericWriter[one](&file, parquet.Compression(&parquet.Zstd), parquet.SkipPageBounds("name"))
	for range 257 {
		if _, err := w.Write([]one{{Name: strings.Repeat("x", 1<<20)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	hostile.Bounds{}.Hold(t, file.Len(), func() {
		if _, err := dataset.DecodeParquet[dataset.Metric](file.Bytes()); err == nil || !strings.Contains(err.Error(), "uncompressed") {
			t.Errorf("%d bytes of 257 MiB of text: %v", file.Len(), err)
		}
	})
}

// TestDictionaryBomb: one long text in a dictionary and very many rows that name it.
func TestDictionaryBomb(t *testing.T) {
	type one struct {
		Stage string  `parquet:"stage,dict"`
		Step  int64   `parquet:"step"`
		Name  string  `parquet:"name,dict"`
		Value float64 `parquet:"value"`
	}
	for rows, refused := range map[int]bool{100: false, 5000: true} {
		var file bytes.Buffer
		w := parquet.NewGenericWriter[one](&file, parquet.Compression(&parquet.Zstd), parquet.SkipPageBounds("name"))
		long := strings.Repeat("x", 1<<18)
		for range rows {
			if _, err := w.Write([]one{{Name: long}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		hostile.Bounds{Base: 200 << 20}.Hold(t, file.Len(), func() {
			got, err := dataset.DecodeParquet[dataset.Metric](file.Bytes())
			if refused && (err == nil || !strings.Contains(err.Error(), "its texts may have more than")) || !refused && (err != nil || len(got) != rows) {
				t.Errorf("%d bytes of %d rows gave %d: %v", file.Len(), rows, len(got), err)
			}
		})
	}
}

// TestManyRowsOfOurs: the limits leave all files alone that the package itself writes, however well they compress.
func TestManyRowsOfOurs(t *testing.T) {
	same := make([]dataset.Metric, 20_000)
	data, err := dataset.EncodeParquet(same, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := dataset.DecodeParquet[dataset.Metric](data)
	if err != nil || !reflect.DeepEqual(got, same) {
		t.Errorf("%d bytes, %d of %d rows: %v", len(data), len(got), len(same), err)
	}
}
