//go:build unix

// Command encode measures our tokenizer and prints one JSON line: bytes, ids, the median
// seconds of encoding each group of documents one after the other, the processor's seconds,
// all threads together, and the SHA-256 of all ids, which must be that of Hugging Face's
// tokenizers. bench/compare_tokenizer.py runs it in turn with bench/peers/encode_hf.py.
//
//	encode -tokenizer tokenizer.json|model.gguf -texts texts.jsonl [-turns 5]
//
// A line of the texts is {"name": "go", "documents": ["...", ...]}.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

// group is documents of one kind.
type group struct {
	Name      string   `json:"name"`
	Documents []string `json:"documents"`
}

// result is what one group took. Seconds are those of one pass over all documents.
type result struct {
	Name       string  `json:"name"`
	Bytes      int     `json:"bytes"`
	Tokens     int     `json:"tokens"`
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
	FirstCPU   float64 `json:"first_cpu_seconds"` // of the first pass, with no word of it in the cache
	SHA256     string  `json:"sha256"`            // of every document's length and ids as little-endian int32
}

func main() {
	file := flag.String("tokenizer", "", "tokenizer.json, or a GGUF file with the tokenizer inside")
	texts := flag.String("texts", "", "JSON lines of {name, documents}")
	turns := flag.Int("turns", 5, "passes over every group after one to warm up; the median counts")
	flag.Parse()
	if err := run(*file, *texts, *turns); err != nil {
		fmt.Fprintln(os.Stderr, "encode:", err)
		os.Exit(1)
	}
}

func run(file, texts string, turns int) error {
	if file == "" || texts == "" || turns < 1 {
		return errors.New("give -tokenizer FILE, -texts FILE and -turns of at least 1")
	}
	start := time.Now()
	t, err := load(file)
	if err != nil {
		return err
	}
	loaded := time.Since(start).Seconds()
	groups, err := read(texts)
	if err != nil {
		return err
	}
	var results []result
	for _, g := range groups {
		r, err := measure(t, g, turns)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"load_seconds": loaded, "groups": results})
}

func load(path string) (*tokenizer.Tokenizer, error) {
	if strings.HasSuffix(path, ".gguf") {
		f, err := gguf.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return tokenizer.FromGGUF(f.Meta)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return tokenizer.FromJSON(data)
}

func read(path string) (groups []group, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for d := json.NewDecoder(bufio.NewReader(f)); ; {
		var g group
		if err := d.Decode(&g); errors.Is(err, io.EOF) {
			return groups, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: group %d: %w", path, len(groups)+1, err)
		}
		groups = append(groups, g)
	}
}

func measure(t *tokenizer.Tokenizer, g group, turns int) (result, error) {
	r, sum := result{Name: g.Name}, sha256.New()
	ids := make([][]int32, len(g.Documents))
	pass := func() (wall, cpu float64, err error) {
		from, err := cpuSeconds()
		if err != nil {
			return 0, 0, err
		}
		start := time.Now()
		for i, d := range g.Documents {
			ids[i] = t.Encode(d)
		}
		wall = time.Since(start).Seconds()
		to, err := cpuSeconds()
		return wall, to - from, err
	}
	_, first, err := pass()
	if err != nil {
		return r, err
	}
	r.FirstCPU = first
	for i, d := range g.Documents {
		r.Bytes, r.Tokens = r.Bytes+len(d), r.Tokens+len(ids[i])
		_ = binary.Write(sum, binary.LittleEndian, int32(len(ids[i]))) // a hash takes everything
		_ = binary.Write(sum, binary.LittleEndian, ids[i])
	}
	r.SHA256 = hex.EncodeToString(sum.Sum(nil))
	var walls, cpus []float64
	for range turns {
		wall, cpu, err := pass()
		if err != nil {
			return r, err
		}
		walls, cpus = append(walls, wall), append(cpus, cpu)
	}
	slices.Sort(walls)
	slices.Sort(cpus)
	r.Seconds, r.CPUSeconds = walls[len(walls)/2], cpus[len(cpus)/2]
	return r, nil
}

// cpuSeconds is what this process has used of the processor, the collection of garbage included.
func cpuSeconds() (float64, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9, nil
}
