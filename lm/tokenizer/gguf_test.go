package tokenizer_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

// need returns the value of an environment variable that names test data. The
// test is skipped without it, or fails where CHARACTER_REQUIRE holds word.
func need(t testing.TB, name, word string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		if slices.Contains(strings.FieldsFunc(os.Getenv("CHARACTER_REQUIRE"), func(r rune) bool { return r == ',' || r == ' ' }), word) {
			t.Fatalf("%s is not set but CHARACTER_REQUIRE asks for %q", name, word)
		}
		t.Skipf("%s is not set", name)
	}
	return v
}

// ggufMeta reads the metadata of a GGUF file; no more than this test needs, so
// that the package stays a leaf.
func ggufMeta(path string) (meta map[string]any, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	defer func() {
		if e := recover(); e != nil {
			err = fmt.Errorf("%s: %v", path, e)
		}
	}()
	number := func(n int) uint64 {
		var b [8]byte
		if _, err := io.ReadFull(r, b[:n]); err != nil {
			panic(err)
		}
		return binary.LittleEndian.Uint64(b[:])
	}
	text := func() string {
		b := make([]byte, number(8))
		if _, err := io.ReadFull(r, b); err != nil {
			panic(err)
		}
		return string(b)
	}
	size := map[uint64]int{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
	number(8) // magic, version
	number(8) // tensors
	meta = map[string]any{}
	for range number(8) {
		key := text()
		switch kind := number(4); kind {
		case 8:
			meta[key] = text()
		case 9:
			of, n := number(4), number(8)
			if of == 8 {
				list := make([]string, n)
				for i := range list {
					list[i] = text()
				}
				meta[key] = list
				continue
			}
			list := make([]int64, n)
			for i := range list {
				list[i] = int64(number(size[of]))
			}
			meta[key] = list
		default:
			meta[key] = number(size[kind])
		}
	}
	return meta, nil
}

var smollm2 = sync.OnceValues(func() (*tokenizer.Tokenizer, error) {
	meta, err := ggufMeta(os.Getenv("CHARACTER_TESTMODEL"))
	if err != nil {
		return nil, err
	}
	return tokenizer.FromGGUF(meta)
})

func loadSmolLM2(t testing.TB) *tokenizer.Tokenizer {
	t.Helper()
	need(t, "CHARACTER_TESTMODEL", "model")
	tok, err := smollm2()
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// loadJSON reads the tokenizer.json named by an environment variable.
func loadJSON(t testing.TB, env, word string) *tokenizer.Tokenizer {
	t.Helper()
	data, err := os.ReadFile(need(t, env, word))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.FromJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

var gemma3 = sync.OnceValues(func() (*tokenizer.Tokenizer, error) {
	data, err := os.ReadFile(os.Getenv("CHARACTER_TEST_GEMMA3_TOKENIZER"))
	if err != nil {
		return nil, err
	}
	return tokenizer.FromJSON(data)
})

// loadGemma3 reads Gemma 3's tokenizer.json, once, since it has 33 MB.
func loadGemma3(t testing.TB) *tokenizer.Tokenizer {
	t.Helper()
	need(t, "CHARACTER_TEST_GEMMA3_TOKENIZER", "gemma3")
	tok, err := gemma3()
	if err != nil {
		t.Fatal(err)
	}
	return tok
}
