package codec

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	keyBytes    = 32 // AES-256
	maxKeyFile  = 64 << 10
	maxKeys     = 100
	explainFile = `want lines "NAME BASE64", 32 random bytes each; "character codec new-key FILE" makes one`
)

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Read reads a key file; see Parse.
func Read(path string) (*Keys, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("codec: key file: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("codec: key file %s: %w", path, err)
	}
	k, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("codec: key file %s: %w", path, err)
	}
	return k, nil
}

// Parse reads the text of a key file: one key a line, its name and 32 bytes in base64. The first line's key encrypts,
// all decrypt: to change keys put a new line on top, give the file to every worker and client, and take the old line
// away when no run needs it any more. Empty lines and lines with # are skipped. Errors never repeat a key.
func Parse(b []byte) (*Keys, error) {
	if len(b) > maxKeyFile {
		return nil, fmt.Errorf("more than %d bytes; %s", maxKeyFile, explainFile)
	}
	k := &Keys{}
	n := 0
	for line := range bytes.Lines(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))) {
		n++
		f := strings.Fields(string(line))
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) != 2 || !validID.MatchString(f[0]) {
			return nil, fmt.Errorf("line %d: %s", n, explainFile)
		}
		key, err := base64.StdEncoding.DecodeString(f[1])
		if err != nil || len(key) != keyBytes {
			return nil, fmt.Errorf("line %d: the key %s is not 32 bytes in base64; %s", n, f[0], explainFile)
		}
		if err := k.add(f[0], key); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if len(k.ids) > maxKeys {
			return nil, fmt.Errorf("more than %d keys", maxKeys)
		}
	}
	if len(k.ids) == 0 {
		return nil, fmt.Errorf("no key in it; %s", explainFile)
	}
	return k, nil
}

// NewKey puts a new random key on top of a key file, which is made when it is missing, for the owner's eyes only.
func NewKey(path, id string) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("codec: key name %q: use letters, digits, dot, dash and underscore, at most 64", id)
	}
	old, err := os.ReadFile(path)
	switch {
	case err == nil:
		k, err := Parse(old)
		if err != nil {
			return fmt.Errorf("codec: key file %s: %w", path, err)
		}
		if k.aead[id] != nil {
			return fmt.Errorf("codec: key file %s has a key %s already; give the new one another name", path, id)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("codec: key file: %w", err)
	}
	key := make([]byte, keyBytes)
	_, _ = rand.Read(key) // never fails
	text := append([]byte(id+" "+base64.StdEncoding.EncodeToString(key)+"\n"), old...)
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new*") // mode 0600
	if err != nil {
		return fmt.Errorf("codec: key file: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("codec: write key file %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
