package dataset_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/dataset"
)

func TestHang(t *testing.T) {
	small, _ := dataset.EncodeParquet(pairs(3), map[string]string{"k": "v"})
	r := rand.New(rand.NewPCG(77, 5))
	worst := uint64(0)
	for i := range 60000 {
		data := append([]byte(nil), small...)
		for range 1 + r.IntN(4) {
			p := r.IntN(len(data))
			if r.IntN(2) == 0 { p = len(data)-1-r.IntN(len(data)/2) }
			switch r.IntN(3) {
			case 0: data[p] ^= 1 << r.IntN(8)
			case 1: data[p] = byte(r.IntN(256))
			case 2: q := r.IntN(p+1); data = append(data[:q], data[p:]...); if len(data) < 10 { data = append(data, small...) }
			}
		}
		var m0, m1 runtime.MemStats
		runtime.ReadMemStats(&m0)
		done := make(chan error, 1)
		start := time.Now()
		go func() { _, err := dataset.DecodeParquet[dataset.Pair](data); done <- err }()
		select {
		case err := <-done:
			runtime.ReadMemStats(&m1)
			if a := m1.TotalAlloc - m0.TotalAlloc; a > worst { worst = a; fmt.Println(i, "alloc", a>>20, "MB", time.Since(start), err) }
		case <-time.After(5 * time.Second):
			os.WriteFile("/tmp/hang.parquet", data, 0o644)
			buf := make([]byte, 1<<16); fmt.Println(string(buf[:runtime.Stack(buf, true)]))
			t.Fatal("hang at ", i)
		}
	}
}
