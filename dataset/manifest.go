package dataset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencharacter/opencharacter/store"
)

// Manifest says what a finished dataset consists of and what was left out.
type Manifest struct {
	Kind      string            `json:"kind"`
	InputHash string            `json:"input_hash"` // of everything that shaped it
	Parts     []store.Ref       `json:"parts"`
	Rows      int64             `json:"rows"` // tried
	Kept      int64             `json:"kept"`
	Dropped   map[string]int64  `json:"dropped,omitempty"` // by reason
	Info      map[string]string `json:"info,omitempty"`
}

// CommitManifest writes a manifest once. Writing the same again is no error; another one under the same key is store.ErrConflict.
func CommitManifest(ctx context.Context, s *store.Store, key string, m Manifest) error {
	if err := m.check(); err != nil {
		return fmt.Errorf("dataset: manifest %s: %w", key, err)
	}
	data, err := canonicalJSON(m)
	if err != nil {
		return fmt.Errorf("dataset: manifest %s: %w", key, err)
	}
	if _, err := s.PutKey(ctx, key, data); err != nil {
		return fmt.Errorf("dataset: commit manifest: %w", err)
	}
	return nil
}

// ReadManifest reads a manifest; ok is false when there is none.
func ReadManifest(ctx context.Context, s *store.Store, key string) (m Manifest, ok bool, err error) {
	data, err := s.GetKey(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return Manifest{}, false, nil
	}
	if err != nil {
		return Manifest{}, false, fmt.Errorf("dataset: read manifest: %w", err)
	}
	m, err = ParseManifest(data)
	if err != nil {
		return Manifest{}, false, fmt.Errorf("dataset: manifest %s: %w", key, err)
	}
	return m, true, nil
}

// ParseManifest reads a manifest from JSON and checks that its numbers agree.
func ParseManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return Manifest{}, fmt.Errorf("not a manifest: %w", err)
	}
	return m, m.check()
}

func (m Manifest) check() error {
	if m.Kind == "" {
		return errors.New("it names no kind")
	}
	for reason, n := range m.Dropped {
		if n < 0 || reason == "" {
			return fmt.Errorf("it counts %d rows dropped for %q", n, reason)
		}
	}
	for _, p := range m.Parts {
		if p.Rows < 0 {
			return fmt.Errorf("part %s has %d rows", p.Key, p.Rows)
		}
	}
	if m.Rows < 0 || m.Kept < 0 || m.Kept > m.Rows {
		return fmt.Errorf("it keeps %d of %d rows", m.Kept, m.Rows)
	}
	return nil
}

// InputHash is the SHA-256, in hex, of the canonical JSON of v: keys sorted, no spaces. Equal values have equal hashes, whatever the order of
// their fields. It panics on values that JSON can not hold (channels, functions, NaN), which is a programmer's error.
func InputHash(v any) string {
	data, err := canonicalJSON(v)
	if err != nil {
		panic(fmt.Sprintf("dataset: InputHash of %T: %v", v, err))
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// canonicalJSON writes v with sorted keys, numbers as encoding/json writes them, and a line end.
func canonicalJSON(v any) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var tree any
	d := json.NewDecoder(bytes.NewReader(plain))
	d.UseNumber() // a large integer must not pass through float64
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(tree); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// Merge adds up counts by reason.
func Merge(counts ...map[string]int64) map[string]int64 {
	sum := map[string]int64{}
	for _, c := range counts {
		for reason, n := range c {
			sum[reason] += n
		}
	}
	return sum
}
