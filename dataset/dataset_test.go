package dataset_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/parquet-go/parquet-go"
)

func pairs(n int) []dataset.Pair {
	rows := make([]dataset.Pair, n)
	for i := range rows {
		rows[i] = dataset.Pair{
			Prompt:   []dataset.Message{{Role: "user", Content: fmt.Sprintf("Question %d?", i)}},
			Chosen:   []dataset.Message{{Role: "assistant", Content: fmt.Sprintf("Arr, %d it be. %s", i, strings.Repeat("Aye. ", i%7))}},
			Rejected: []dataset.Message{{Role: "assistant", Content: fmt.Sprint(i)}},
			ID:       fmt.Sprintf("p%05d", i), Source: "pool", Teacher: "t", Student: "s", ChosenTokens: i, RejectedTokens: -i,
		}
	}
	return rows
}

// roundTrip checks that rows come back from Parquet as they were.
func roundTrip[T any](t *testing.T, rows ...T) {
	t.Helper()
	data, err := dataset.EncodeParquet(rows, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := dataset.DecodeParquet[T](data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rows, got); diff != "" {
		t.Errorf("%T: %s", rows, diff)
	}
}

func TestRowsRoundTrip(t *testing.T) {
	t.Parallel()
	roundTrip(t, dataset.Prompt{ID: "1", Text: "Hi \x00 there", Source: "pool", Trait: 3}, dataset.Prompt{})
	roundTrip(t, dataset.Response{ID: "1", Prompt: "p", Text: "x", Finish: "stop", Tokens: 3, LogProb: -1.25e-7, Drop: "empty"}, dataset.Response{LogProb: math.Inf(-1)})
	roundTrip(t, dataset.Conversation{
		Messages: []dataset.Message{{Role: "system", Content: "s"}, {Role: "user", Content: "u"}, {Role: "assistant", Content: "a"}},
		ID:       "c", Kind: "interaction", TemplateID: "t", PromptText: "p", SourceSystemPrompt: "sys", Turns: 2, Tokens: 9, Drop: "repetition",
	})
	roundTrip(t, dataset.Reference{ID: "1", Chosen: -10.5, Rejected: -math.MaxFloat64, ChosenTokens: 4, RejectedTokens: 5, ChosenEach: []float32{-1, -.5}, RejectedEach: []float32{-2}})
	roundTrip(t, dataset.Metric{Stage: "dpo", Step: 1 << 40, Name: "loss", Value: math.Ln2})
	roundTrip(t, pairs(2500)...)
	roundTrip[dataset.Pair](t)
}

func TestParquetBytesDependOnRowsOnly(t *testing.T) {
	rows := pairs(2345)
	meta := map[string]string{"b": "2", "a": "1", "c": "3"}
	first, err := dataset.EncodeParquet(rows, meta)
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for range 3 {
		again, err := dataset.EncodeParquet(slices.Clone(rows), map[string]string{"c": "3", "a": "1", "b": "2"})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, again) {
			t.Fatal("the same rows gave other bytes")
		}
	}
}

func TestParquetLayout(t *testing.T) {
	t.Parallel()
	data, err := dataset.EncodeParquet(pairs(2500), map[string]string{"opencharacter.seed": "7"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(f.RowGroups()); n != 3 {
		t.Errorf("%d row groups, want 3", n)
	}
	var columns []string
	for _, c := range f.Schema().Columns() {
		columns = append(columns, strings.Join(c, "."))
	}
	want := []string{
		"prompt.list.element.role", "prompt.list.element.content", "chosen.list.element.role", "chosen.list.element.content",
		"rejected.list.element.role", "rejected.list.element.content", "id", "source", "teacher", "student", "chosen_tokens", "rejected_tokens", "rejected_finish",
	}
	if diff := cmp.Diff(want, columns); diff != "" {
		t.Error(diff)
	}
	for _, field := range f.Schema().Fields()[:3] {
		if l := field.Type().LogicalType(); l == nil || !strings.Contains(field.Type().String(), "LIST") {
			t.Errorf("%s is %s, not a LIST", field.Name(), field.Type())
		}
	}
	if v, _ := f.Lookup("opencharacter.seed"); v != "7" {
		t.Errorf("metadata: %q", v)
	}
	if bytes.Contains(data[len(data)-3000:], []byte("Question 999?")) {
		t.Error("the footer holds whole texts as bounds")
	}
	// A trainer that sees one of these names in an introspection table changes its behaviour.
	for _, field := range parquet.SchemaOf(dataset.Conversation{}).Fields() {
		if slices.Contains([]string{"prompt", "chosen", "rejected", "completion", "text", "label", "labels", "input_ids", "tools", "image", "images", "chat_template_kwargs"}, field.Name()) {
			t.Errorf("reserved column name %s", field.Name())
		}
	}
}

func TestInvalidUTF8IsReplaced(t *testing.T) {
	t.Parallel()
	rows := []dataset.Conversation{{ID: "x", Messages: []dataset.Message{{Role: "user", Content: "fine"}, {Role: "assistant", Content: "cut \xe2\x82"}}}}
	data, err := dataset.EncodeParquet(rows, map[string]string{"k": "\xff"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := dataset.DecodeParquet[dataset.Conversation](data)
	if err != nil {
		t.Fatal(err)
	}
	if c := got[0].Messages[1].Content; c != "cut \uFFFD" {
		t.Errorf("%q", c)
	}
	if rows[0].Messages[1].Content != "cut \xe2\x82" {
		t.Error("the caller's rows were changed")
	}
}

func TestDecodeRefusesBadFiles(t *testing.T) {
	t.Parallel()
	good, err := dataset.EncodeParquet(pairs(1500), nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := dataset.EncodeParquet([]dataset.Metric{{Name: "loss"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	type wrongType struct {
		ID     int64             `parquet:"id"`
		Prompt []dataset.Message `parquet:"prompt,list"`
	}
	wrong, err := dataset.EncodeParquet([]wrongType{{ID: 1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(good)
	flipped[len(good)/2] ^= 0x40 // in the data of a page: those have checksums
	hugeFooter := slices.Clone(good)
	binary.LittleEndian.PutUint32(hugeFooter[len(good)-8:], 1<<31)
	var lz4 bytes.Buffer
	w := parquet.NewGenericWriter[dataset.Pair](&lz4, parquet.Compression(&parquet.Lz4Raw))
	if _, err := w.Write(pairs(1)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"huge footer":   {hugeFooter, "its metadata have"},
		"LZ4":           {lz4.Bytes(), "not supported"},
		"empty":         {nil, "Parquet"},
		"not Parquet":   {[]byte("this is not a Parquet file at all"), "Parquet"},
		"truncated":     {good[:len(good)-10], "Parquet"},
		"head only":     {good[:100], "Parquet"},
		"middle gone":   {append(slices.Clone(good[:300]), good[len(good)-2000:]...), "Parquet"},
		"flipped bit":   {flipped, "Parquet"},
		"other columns": {other, "is missing"},
		"wrong type":    {wrong, "missing"},
	} {
		if rows, err := dataset.DecodeParquet[dataset.Pair](tc.data); err == nil {
			t.Errorf("%s: %d rows and no error", name, len(rows))
		} else if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := dataset.DecodeParquet[dataset.Metric](wrong); err == nil {
		t.Error("a table of another kind was read")
	}
}

func FuzzDecodeParquet(f *testing.F) {
	small, err := dataset.EncodeParquet(pairs(3), map[string]string{"k": "v"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(small)
	f.Add(small[:len(small)-1])
	f.Add(small[len(small)-200:])
	f.Add([]byte("PAR1PAR1"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := dataset.DecodeParquet[dataset.Pair](data)
		if err == nil {
			if _, err := dataset.EncodeParquet(rows, nil); err != nil {
				t.Errorf("rows that were read can not be written: %v", err)
			}
		}
	})
}
