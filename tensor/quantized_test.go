package tensor_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/opencharacter/opencharacter/tensor"
)

// TestQuantized: values by hand. 0x3c00 is 1, 0x3800 a half, 0xc800 is -8.
func TestQuantized(t *testing.T) {
	q := make([]byte, tensor.Block)
	for i := range q {
		q[i] = byte(i % 16)
	}
	w4 := tensor.NewQuantized(2, tensor.Block, tensor.Q4)
	w4.SetBlocks(0, q, []uint16{0x3800}, []uint16{0x3c00}) // 1 + q/2
	w4.SetBlocks(1, q, []uint16{0x3c00}, []uint16{0xc800}) // q - 8
	w8 := tensor.NewQuantized(1, tensor.Block, tensor.Q8)
	q[1] = 0x80 // -128
	w8.SetBlocks(0, q, []uint16{0x3800}, nil)
	x, y4, y8 := tensor.New(1, tensor.Block), tensor.New(1, 2), tensor.New(1, 1)
	x.Row(0)[1], x.Row(0)[31] = 1, 10
	tensor.Linear(y4, x, w4, false)
	tensor.Linear(y8, x, w8, false)
	if y4.Row(0)[0] != 1.5+85 || y4.Row(0)[1] != -7+70 || y8.Row(0)[0] != -64+75 {
		t.Errorf("products %v and %v", y4.Row(0), y8.Row(0))
	}
	embedded := tensor.New(2, tensor.Block)
	tensor.Embed(embedded, w4, []int32{1, 0})
	if embedded.Row(0)[3] != -5 || embedded.Row(1)[3] != 2.5 {
		t.Errorf("rows %v", embedded.Data())
	}
	if w4.Format().String() != "q4" || w8.Format().String() != "q8" || tensor.NewWeight(1, 1).Format().String() != "bf16" {
		t.Errorf("formats %v and %v", w4.Format(), w8.Format())
	}
	// A panel holds 32 rows: half a byte or a byte a value, and scales.
	if w4.Bytes() != 32*(16+4) || w8.Bytes() != 32*(32+2) {
		t.Errorf("%d and %d bytes", w4.Bytes(), w8.Bytes())
	}
}

// TestSetBlocksConcurrent: rows set at the same time do not touch each other (also run
// with the race detector).
func TestSetBlocksConcurrent(t *testing.T) {
	for _, f := range []tensor.Format{tensor.Q4, tensor.Q8} {
		const rows, cols = 40, 2 * tensor.Block
		w, one, minimum := tensor.NewQuantized(rows, cols, f), []uint16{0x3c00, 0x3c00}, []uint16{0, 0}
		if f == tensor.Q8 {
			minimum = nil
		}
		var wg sync.WaitGroup
		for i := range rows {
			wg.Go(func() {
				q := make([]byte, cols)
				for j := range q {
					q[j] = byte((i + j) % 16)
				}
				w.SetBlocks(i, q, one, minimum)
			})
		}
		wg.Wait()
		got := make([]float32, cols)
		for i := range rows {
			w.Row(i, got)
			for j, v := range got {
				if v != float32((i+j)%16) {
					t.Fatalf("%v: value %d,%d is %v", f, i, j, v)
				}
			}
		}
	}
}

func TestQuantizedRefuses(t *testing.T) {
	w := tensor.NewQuantized(3, tensor.Block, tensor.Q4)
	x, y, one := tensor.New(2, tensor.Block), tensor.New(2, 3), []uint16{0}
	for name, c := range map[string]struct {
		want string
		run  func()
	}{
		"row length":     {"multiples of 32", func() { tensor.NewQuantized(1, 33, tensor.Q8) }},
		"format":         {"multiples of 32", func() { tensor.NewQuantized(1, 32, tensor.StoredBF16) }},
		"SetRow":         {"stored as q4", func() { w.SetRow(0, make([]float32, tensor.Block)) }},
		"bf16":           {"SetCompute(bf16)", func() { w.SetCompute(tensor.BF16) }},
		"LinearBackward": {"stored as q4", func() { tensor.LinearBackward(x, y, w, false) }},
		"head gradient":  {"stored as q4", func() { tensor.HeadLogProbGrad(make([]float32, 2), tensor.New(2, tensor.Block), x, w, []int32{0, 1}) }},
		"row":            {"row 3", func() { w.SetBlocks(3, make([]byte, tensor.Block), one, one) }},
		"minimums":       {"1 scales and 0 minimums", func() { w.SetBlocks(0, make([]byte, tensor.Block), one, nil) }},
		"five bits":      {"is 16", func() { w.SetBlocks(0, append(make([]byte, tensor.Block-1), 16), one, one) }},
		"bf16 weight":    {"format bf16", func() { tensor.NewWeight(1, tensor.Block).SetBlocks(0, make([]byte, tensor.Block), one, nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if got, _ := recover().(string); !strings.Contains(got, c.want) {
					t.Errorf("panic %q, want %q", got, c.want)
				}
			}()
			c.run()
			t.Error("accepted")
		})
	}
}
