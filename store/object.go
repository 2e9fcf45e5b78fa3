package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Ref points to an object by name and content. It is the only thing about data that travels between steps of a run.
type Ref struct {
	Key    string `json:"key"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	Rows   int64  `json:"rows,omitempty"`
}

// Object is an entry of a listing.
type Object struct {
	Key      string    `json:"key"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"` // by the server's clock
}

// nonceHeader is metadata of an object that tells which write made it.
const nonceHeader = "nonce"

func newNonce() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b[:])
}

func refOf(key string, data []byte) Ref {
	sum := sha256.Sum256(data)
	return Ref{Key: key, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data))}
}

// Put writes data as prefix/<first 32 hex digits of its SHA-256>ext, once: the same data has the same name, and writing it
// again does nothing. An object that was damaged since, so that its bytes are not those its name promises, is replaced.
func (s *Store) Put(ctx context.Context, prefix, ext string, data []byte) (Ref, error) {
	r := refOf("", data)
	r.Key = strings.Trim(prefix, "/") + "/" + r.SHA256[:32] + ext
	r.Key = strings.TrimPrefix(r.Key, "/")
	_, err := s.PutKey(ctx, r.Key, data)
	if errors.Is(err, ErrConflict) || errors.Is(err, ErrCorrupt) {
		err = s.mend(ctx, r.Key, data)
	}
	return r, err
}

// mend writes data over an object whose name promises data and whose bytes are others: they were damaged in the store.
func (s *Store) mend(ctx context.Context, key string, data []byte) error {
	for range 3 { // another writer may mend it at the same time
		there, etag, err := s.readRaw(ctx, key)
		if err != nil {
			return fmt.Errorf("store: put %s: it is damaged and can not be replaced: %w", key, err)
		}
		if bytes.Equal(there, data) {
			return nil
		}
		if _, err = s.write(ctx, key, data, newNonce(), etag); err == nil || !lostRace(err) {
			return err
		}
	}
	return fmt.Errorf("store: put %s (%s): %w: its name promises other bytes, and it can not be replaced; delete it", key, s.Where(), ErrConflict)
}

// Get reads the object of a Ref and checks its size and SHA-256. Other bytes than promised give ErrCorrupt.
func (s *Store) Get(ctx context.Context, r Ref) ([]byte, error) {
	// A second look tells bytes that were damaged on the way from those that are damaged in the store.
	for look := 1; ; look++ {
		data, _, _, err := s.read(ctx, r.Key, int(r.Size))
		if errors.Is(err, ErrCorrupt) && look == 1 {
			continue
		}
		if err != nil {
			return nil, err
		}
		got := refOf(r.Key, data)
		if got.SHA256 == r.SHA256 && got.Size == r.Size {
			return data, nil
		}
		if look == 2 {
			return nil, fmt.Errorf("store: get %s (%s): %w: want %d bytes with SHA-256 %s, found %d bytes with %s; restore this object or remake it",
				r.Key, s.Where(), ErrCorrupt, r.Size, r.SHA256, got.Size, got.SHA256)
		}
	}
}

// PutKey writes a key that does not exist yet. If it exists with the same bytes that is no error and created is false; with
// other bytes the error is ErrConflict. created is true also when the reply to our own write was lost on the way.
func (s *Store) PutKey(ctx context.Context, key string, data []byte) (created bool, err error) {
	if err := checkKey(key); err != nil {
		return false, fmt.Errorf("store: put: %w", err)
	}
	nonce := newNonce()
	_, err = s.write(ctx, key, data, nonce, "")
	if err == nil {
		return true, nil
	}
	if !lostRace(err) {
		return false, err
	}
	there, _, found, rerr := s.read(ctx, key, len(data))
	if rerr != nil {
		return false, fmt.Errorf("store: put %s: it exists, but it can not be compared: %w", key, rerr)
	}
	if !bytes.Equal(there, data) {
		return false, fmt.Errorf("store: put %s (%s): %w: %d bytes there, %d bytes to write; keys are written once, so choose another name or delete the old object",
			key, s.Where(), ErrConflict, len(there), len(data))
	}
	return found == nonce, nil
}

// GetKey reads the object of a key, as it is. A missing one gives ErrNotFound.
func (s *Store) GetKey(ctx context.Context, key string) ([]byte, error) {
	data, _, _, err := s.read(ctx, key, 0)
	return data, err
}

// read returns an object with its version and the nonce of the write that made it.
func (s *Store) read(ctx context.Context, key string, size int) (data []byte, version, nonce string, err error) {
	if err := checkKey(key); err != nil {
		return nil, "", "", fmt.Errorf("store: get: %w", err)
	}
	return s.b.Read(ctx, key, size, false)
}

// readRaw reads an object as it is, damaged or not.
func (s *Store) readRaw(ctx context.Context, key string) (data []byte, version string, err error) {
	if err := checkKey(key); err != nil {
		return nil, "", fmt.Errorf("store: get: %w", err)
	}
	data, version, _, err = s.b.Read(ctx, key, 0, true)
	return data, version, err
}

// CheckKey refuses keys that not every server and plain folder can hold.
func CheckKey(key string) error { return checkKey(key) }

// checkKey keeps to names that every server and a plain folder can hold.
func checkKey(key string) error {
	switch {
	case key == "":
		return errors.New("empty key")
	case len(key) > 900:
		return fmt.Errorf("key %.60q... has %d bytes, the limit is 900", key, len(key))
	case !utf8.ValidString(key):
		return fmt.Errorf("key %q is not valid UTF-8", key)
	}
	for _, r := range key {
		if r < 0x20 || r == 0x7f || r == '\\' {
			return fmt.Errorf("key %q contains the character %q", key, r)
		}
	}
	for part := range strings.SplitSeq(key, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return fmt.Errorf("key %q has an empty or dotted part", key)
		case len(part) > 255:
			return fmt.Errorf("key %.60q... has a part of %d bytes, the limit is 255", key, len(part))
		}
	}
	return nil
}
