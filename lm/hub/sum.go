package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencharacter/opencharacter/lm/safetensors"
)

// fingerprint is what a file's state looks like from outside. A file with an equal fingerprint was not
// changed: the change time can not be set back by a program.
type fingerprint struct {
	Path    string `json:"path"`
	Size    int64  `json:"size"`
	ModTime int64  `json:"mod_time"`    // ns
	Change  int64  `json:"change_time"` // ns, 0 where the system has none
	Inode   uint64 `json:"inode"`       // 0 where the system has none
}

// remembered is the content of a file in CacheDir/sums.
type remembered struct {
	fingerprint
	SHA256 string `json:"sha256"`
}

// settled is the age from which a change is sure to change the fingerprint too, whatever the resolution
// of the file system's clock.
const settled = 2 * time.Second

// fileSum gives the sha256 and size of a file. Hashing a big model takes a noticeable time at every start,
// so the result is remembered in the cache directory (if there is one) together with the file's fingerprint.
func fileSum(path string, o Options) (sum string, size int64, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", 0, err
	}
	f, err := os.Open(abs)
	if err != nil {
		return "", 0, err
	}
	defer f.Close() // only read
	st, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	if !st.Mode().IsRegular() {
		return "", 0, fmt.Errorf("%s is not a regular file", path)
	}
	state := fingerprintOf(abs, st)
	if sum, ok := recall(state, o); ok {
		return sum, st.Size(), nil
	}
	started := time.Now()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return "", 0, fmt.Errorf("%s: %w", path, err)
	}
	sum = hex.EncodeToString(h.Sum(nil))
	after, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	if n != st.Size() || fingerprintOf(abs, after) != state {
		return "", 0, fmt.Errorf("%s changed while it was read; wait until it is complete", path)
	}
	newest := max(state.ModTime, state.Change)
	if started.UnixNano()-newest > settled.Nanoseconds() {
		remember(remembered{state, sum}, o)
	}
	return sum, n, nil
}

// sumPath is where the hash of a file is remembered.
func sumPath(path string, o Options) string {
	name := sha256.Sum256([]byte(path))
	return filepath.Join(o.CacheDir, "sums", hex.EncodeToString(name[:12])+".json")
}

func recall(state fingerprint, o Options) (string, bool) {
	if o.CacheDir == "" {
		return "", false
	}
	text, err := os.ReadFile(sumPath(state.Path, o))
	if err != nil {
		return "", false
	}
	var r remembered
	if json.Unmarshal(text, &r) != nil || r.fingerprint != state || len(r.SHA256) != 64 {
		return "", false
	}
	return r.SHA256, true
}

// remember writes a hash down. Failing is no error: a cache that can not be written (a read-only
// mount, a full disk) only means that the next start hashes the file again.
func remember(r remembered, o Options) {
	text, err := json.Marshal(r)
	if o.CacheDir == "" || err != nil {
		return
	}
	path := sumPath(r.Path, o)
	if os.MkdirAll(filepath.Dir(path), 0o755) != nil {
		return
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return
	}
	_, err = tmp.Write(append(text, '\n'))
	if errors.Join(err, tmp.Close()) == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
}

// folderParts are the files beside the weights that shape what a model computes, as far as they exist.
var folderParts = []string{"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}

// folderFiles lists the files of a model folder that shape what the model computes, after checking that it is one.
func folderFiles(dir string) ([]string, error) {
	for _, must := range []string{"config.json", "tokenizer.json"} {
		if _, err := os.Stat(filepath.Join(dir, must)); err != nil {
			return nil, fmt.Errorf("%s can not be read (%w); a model folder has config.json, tokenizer.json and safetensors weights", must, err)
		}
	}
	set, err := safetensors.OpenIndex(dir)
	if err != nil {
		return nil, err
	}
	if err := set.Close(); err != nil {
		return nil, err
	}
	var paths []string
	for _, name := range folderParts {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			paths = append(paths, path)
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return append(paths, set.Shards...), nil
}

// folderSum hashes a model folder: the sha256 of the lines "<sha256>  <file name>\n" of its files, the form
// that sha256sum prints.
func folderSum(dir string, o Options) (sum string, size int64, err error) {
	paths, err := folderFiles(dir)
	if err != nil {
		return "", 0, err
	}
	h := sha256.New()
	for _, path := range paths {
		one, n, err := fileSum(path, o)
		if err != nil {
			return "", 0, err
		}
		fmt.Fprintf(h, "%s  %s\n", one, filepath.Base(path))
		size += n
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}
