// Command encode measures our tokenizer and prints one JSON line: bytes, ids, the median
// seconds of encoding each group of documents one after the other, and the SHA-256 of all
// ids, which must be that of Hugging Face's tokenizers. bench/compare_tokenizer.py runs it
// in turn with bench/peers/encode_hf.py.
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
	Name    string  `json:"name"`
	Bytes   int     `json:"bytes"`
	Tokens  int     `json:"tokens"`
	Seconds float64 `json:"seconds"`
	SHA256  string  `json:"sha256"` // of every document's length and ids as little-endian int32
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
		results = append(results, measure(t, g, turns))
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

func measure(t *tokenizer.Tokenizer, g group, turns int) result {
	r, sum := result{Name: g.Name}, sha256.New()
	for _, d := range g.Documents { // warms up too
		ids := t.Encode(d)
		r.Bytes, r.Tokens = r.Bytes+len(d), r.Tokens+len(ids)
		_ = binary.Write(sum, binary.LittleEndian, int32(len(ids))) // a hash takes everything
		_ = binary.Write(sum, binary.LittleEndian, ids)
	}
	r.SHA256 = hex.EncodeToString(sum.Sum(nil))
	var seconds []float64
	for range turns {
		start := time.Now()
		for _, d := range g.Documents {
			t.Encode(d)
		}
		seconds = append(seconds, time.Since(start).Seconds())
	}
	slices.Sort(seconds)
	r.Seconds = seconds[len(seconds)/2]
	return r
}
