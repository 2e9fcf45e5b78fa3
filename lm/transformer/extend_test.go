package transformer_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// decoder drives one cache and remembers the log-prob of every token that followed
// a chunk's end.
type decoder struct {
	t     *testing.T
	m     *transformer.Model
	ws    *transformer.Workspace
	c     *transformer.Cache
	stack []*transformer.Adapter
}

func newDecoder(t *testing.T, m *transformer.Model) *decoder {
	stack := []*transformer.Adapter{randomAdapter(m.Config, 3, 6, 1), randomAdapter(m.Config, 5, 5, 2)}
	return &decoder{t: t, m: m, ws: transformer.NewWorkspace(), c: m.NewCache(), stack: stack}
}

func (d *decoder) extend(chunks ...transformer.Chunk) *tensor.Tensor {
	d.t.Helper()
	logits := tensor.New(len(chunks), d.m.Vocab)
	if err := d.m.Extend(d.ws, d.c, chunks, d.stack, logits); err != nil {
		d.t.Fatal(err)
	}
	return logits
}

// next is the log-prob of a token under one row of logits.
func next(logits []float32, token int32) float32 {
	return logits[token] - tensor.LogSumExp(logits)
}

// Prefilled in pieces and decoded token by token beside other sequences, a row has
// the log-probs of the packed forward pass bit for bit.
func TestExtendEqualsPacked(t *testing.T) {
	eachForward(t, func(t *testing.T, m *transformer.Model) {
		d := newDecoder(t, m)
		rows := randomRows(m.Vocab, 6, 100, 37, 3, 64)
		cuts := [][]int{{40, 41, 42, 70, 71, 99}, {1, 2, 3, 4, 32, 33, 34, 36}, {1, 2}, {31, 32, 33, 63}}
		seqs, at := make([]*transformer.Sequence, len(rows)), make([]int, len(rows))
		want := make([][]float32, len(rows))
		for i := range rows {
			seqs[i] = d.c.NewSequence()
			want[i] = logProbs(t, m, d.stack, rows[i])
		}
		for step := 0; ; step++ {
			var chunks []transformer.Chunk
			var of []int
			for i := range rows {
				if step < len(cuts[i]) {
					chunks = append(chunks, transformer.Chunk{Seq: seqs[i], Tokens: rows[i][at[i]:cuts[i][step]]})
					of, at[i] = append(of, i), cuts[i][step]
				}
			}
			if len(chunks) == 0 {
				break
			}
			logits := d.extend(chunks...)
			for k, i := range of {
				got := next(logits.Row(k), rows[i][at[i]])
				sameBits(t, fmt.Sprintf("row %d after %d tokens", i, at[i]), []float32{got}, want[i][at[i]-1:at[i]])
				if seqs[i].Length != at[i] {
					t.Fatalf("row %d: length %d after %d tokens", i, seqs[i].Length, at[i])
				}
			}
		}
	})
}

// Forks of a prefix, full pages shared and the partial page copied on write, go their
// own ways without touching each other.
func TestFork(t *testing.T) {
	eachForward(t, func(t *testing.T, m *transformer.Model) {
		for _, n := range []int{5, tensor.PageSize, tensor.PageSize + 9, 2 * tensor.PageSize} {
			d := newDecoder(t, m)
			prefix := randomRows(m.Vocab, 7, n)[0]
			tails := randomRows(m.Vocab, 8, 40, 35, 6)
			root := d.c.NewSequence()
			d.extend(transformer.Chunk{Seq: root, Tokens: prefix})
			held := d.c.InUse()
			seqs := []*transformer.Sequence{d.c.Fork(root), d.c.Fork(root), root}
			if d.c.InUse() != held {
				t.Fatalf("prefix %d: forks took %d pages before anything was appended", n, d.c.InUse()-held)
			}
			for at := range 40 {
				var chunks []transformer.Chunk
				var of []int
				for i, tail := range tails {
					if at+1 < len(tail) {
						chunks = append(chunks, transformer.Chunk{Seq: seqs[i], Tokens: tail[at : at+1]})
						of = append(of, i)
					}
				}
				if len(chunks) == 0 {
					break
				}
				logits := d.extend(chunks...)
				for k, i := range of {
					row := append(append([]int32(nil), prefix...), tails[i]...)
					if at%7 == 0 || at == len(tails[i])-2 {
						want := logProbs(t, m, d.stack, row)[n+at]
						sameBits(t, fmt.Sprintf("prefix %d, fork %d, token %d", n, i, at), []float32{next(logits.Row(k), tails[i][at+1])}, []float32{want})
					}
				}
			}
			for _, s := range seqs {
				d.c.Free(s)
			}
			if d.c.InUse() != 0 {
				t.Errorf("prefix %d: %d pages are held after every sequence was freed", n, d.c.InUse())
			}
		}
	})
}

// Freed pages serve new sequences and leave no trace in them.
func TestPagesAreReused(t *testing.T) {
	m := newTiny(t, tinyConfigs["llama"])
	d := newDecoder(t, m)
	row := randomRows(m.Vocab, 9, 90)[0]
	want := logProbs(t, m, d.stack, row)
	for range 4 {
		s, other := d.c.NewSequence(), d.c.NewSequence()
		d.extend(transformer.Chunk{Seq: other, Tokens: row[30:60]})
		logits := d.extend(transformer.Chunk{Seq: s, Tokens: row[:89]})
		sameBits(t, "last token", []float32{next(logits.Row(0), row[89])}, want[88:])
		if d.c.InUse() != 4 {
			t.Fatalf("%d pages in use for 89 and 30 tokens, want 4", d.c.InUse())
		}
		d.c.Free(s)
		d.c.Free(other)
	}
}

func TestExtendErrors(t *testing.T) {
	m := newTiny(t, tinyConfigs["llama"])
	d := newDecoder(t, m)
	row := randomRows(m.Vocab, 10, m.Context+1)[0]
	good, freed := d.c.NewSequence(), d.c.NewSequence()
	d.extend(transformer.Chunk{Seq: good, Tokens: row[:30]})
	d.c.Free(freed)
	foreign := m.NewCache().NewSequence()
	other := newTiny(t, tinyConfigs["qwen3"])
	chunk := func(s *transformer.Sequence, tokens ...int32) []transformer.Chunk {
		return []transformer.Chunk{{Seq: s, Tokens: tokens}}
	}
	for _, c := range []struct {
		name   string
		chunks []transformer.Chunk
		logits *tensor.Tensor
		stack  []*transformer.Adapter
		want   string
	}{
		{"none", nil, nil, nil, "no chunks"},
		{"empty", chunk(good), nil, nil, "no tokens"},
		{"context", chunk(good, row[:m.Context-29]...), nil, nil, "context is 160"},
		{"vocabulary", chunk(good, 3, int32(m.Vocab)), nil, nil, "outside the vocabulary of 67"},
		{"negative token", chunk(good, -1), nil, nil, "outside the vocabulary"},
		{"freed", chunk(freed, 1), nil, nil, "freed or belongs to another cache"},
		{"foreign", chunk(foreign, 1), nil, nil, "freed or belongs to another cache"},
		{"nil sequence", chunk(nil, 1), nil, nil, "freed or belongs to another cache"},
		{"twice", append(chunk(good, 1), chunk(good, 2)...), nil, nil, "same sequence"},
		{"logits", chunk(good, 1), tensor.New(2, m.Vocab), nil, "logits are 2x67"},
		{"adapter", chunk(good, 1), nil, []*transformer.Adapter{randomAdapter(other.Config, 2, 2, 1)}, "adapter 0 of the stack"},
		{"nil adapter", chunk(good, 1), nil, []*transformer.Adapter{nil}, "is nil"},
	} {
		err := m.Extend(d.ws, d.c, c.chunks, c.stack, c.logits)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
		if good.Length != 30 || d.c.InUse() != 1 {
			t.Fatalf("%s: the failed call changed the sequence (%d tokens) or the cache (%d pages)", c.name, good.Length, d.c.InUse())
		}
	}
	// and the sequence still works
	logits := d.extend(transformer.Chunk{Seq: good, Tokens: row[30:40]})
	want := logProbs(t, m, d.stack, row[:41])
	sameBits(t, "after errors", []float32{next(logits.Row(0), row[40])}, want[39:])
}

func TestLogProbsErrors(t *testing.T) {
	m := newTiny(t, tinyConfigs["llama"])
	long := randomRows(m.Vocab, 10, m.Context+1)[0]
	for _, c := range []struct {
		name      string
		rows      transformer.Rows
		positions []int32
		want      string
	}{
		{"no offsets", transformer.Rows{Tokens: []int32{1}}, nil, "offsets"},
		{"short offsets", transformer.Rows{Tokens: []int32{1, 2}, Offsets: []int32{0, 1}}, nil, "offsets"},
		{"empty row", transformer.Rows{Tokens: []int32{1, 2}, Offsets: []int32{0, 0, 2}}, nil, "row 0 has no tokens"},
		{"falling offsets", transformer.Rows{Tokens: []int32{1, 2}, Offsets: []int32{0, 3, 2}}, nil, "row 1 has no tokens"},
		{"context", transformer.Rows{Tokens: long, Offsets: []int32{0, int32(len(long))}}, nil, "context is 160"},
		{"token", transformer.Rows{Tokens: []int32{1, 99}, Offsets: []int32{0, 2}}, nil, "outside the vocabulary"},
		{"last of row", transformer.Rows{Tokens: []int32{1, 2, 3}, Offsets: []int32{0, 2, 3}}, []int32{1}, "last of row 0"},
		{"descending", transformer.Rows{Tokens: []int32{1, 2, 3}, Offsets: []int32{0, 3}}, []int32{1, 0}, "ascend"},
		{"repeated", transformer.Rows{Tokens: []int32{1, 2, 3}, Offsets: []int32{0, 3}}, []int32{1, 1}, "ascend"},
		{"negative", transformer.Rows{Tokens: []int32{1, 2, 3}, Offsets: []int32{0, 3}}, []int32{-1}, "ascend"},
		{"beyond", transformer.Rows{Tokens: []int32{1, 2, 3}, Offsets: []int32{0, 3}}, []int32{7}, "outside 3 tokens"},
	} {
		if _, err := m.LogProbs(transformer.NewWorkspace(), c.rows, c.positions, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

// A fork of a beginning goes on as a sequence of its own would, whatever the other side holds and appends, and Need says
// beforehand what is taken. A cache beside another takes from the same pages, for another stack.
func TestForkAt(t *testing.T) {
	eachForward(t, func(t *testing.T, m *transformer.Model) {
		const size = tensor.PageSize
		d := newDecoder(t, m)
		d.c.Limit(12)
		rows := randomRows(m.Vocab, 6, 100, 100)
		for _, n := range []int{0, 5, size - 1, size, size + 9, 2 * size, 80} {
			root := d.c.NewSequence()
			d.extend(transformer.Chunk{Seq: root, Tokens: rows[0][:80]})
			f := d.c.ForkAt(root, n)
			row := append(append([]int32(nil), rows[0][:n]...), rows[1][n:]...)
			held, need := d.c.InUse(), d.c.Need(f, 99-n)
			got := d.extend(transformer.Chunk{Seq: f, Tokens: row[n:99]})
			if took := d.c.InUse() - held; took != need || f.Length != 99 {
				t.Errorf("fork at %d: %d pages taken, Need said %d; length %d", n, took, need, f.Length)
			}
			sameBits(t, fmt.Sprintf("fork at %d", n), []float32{next(got.Row(0), row[99])}, logProbs(t, m, d.stack, row)[98:])
			got = d.extend(transformer.Chunk{Seq: root, Tokens: rows[0][80:99]})
			sameBits(t, fmt.Sprintf("root of the fork at %d", n), []float32{next(got.Row(0), rows[0][99])}, logProbs(t, m, d.stack, rows[0])[98:])
			d.c.Free(f)
			d.c.Free(root)
		}
		a, b := newDecoder(t, m), newDecoder(t, m)
		b.c, b.stack = a.c.Beside(), nil
		one, other := a.c.NewSequence(), b.c.NewSequence()
		a.extend(transformer.Chunk{Seq: one, Tokens: rows[0][:40]})
		b.extend(transformer.Chunk{Seq: other, Tokens: rows[0][:70]})
		if a.c.InUse() != 5 || b.c.InUse() != 5 {
			t.Errorf("%d and %d pages in use for 40 and 70 tokens, want 5", a.c.InUse(), b.c.InUse())
		}
		x := a.extend(transformer.Chunk{Seq: one, Tokens: rows[0][40:99]})
		y := b.extend(transformer.Chunk{Seq: other, Tokens: rows[0][70:99]})
		sameBits(t, "with the stack", []float32{next(x.Row(0), rows[0][99])}, logProbs(t, m, a.stack, rows[0])[98:])
		sameBits(t, "without", []float32{next(y.Row(0), rows[0][99])}, logProbs(t, m, nil, rows[0])[98:])
		b.c.Free(other)
		if a.c.InUse() != 4 {
			t.Errorf("%d pages in use after one was freed", a.c.InUse())
		}
	})
}
