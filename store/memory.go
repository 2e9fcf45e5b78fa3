package store

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// memory is a backend that ends with the process.
type memory struct {
	mu      sync.Mutex
	objects map[string]kept
	writes  int64
}

type kept struct {
	data           []byte
	version, nonce string
	at             time.Time
}

// Memory makes a backend in memory, for the tests of programs that use a [Store]: no server is needed, and nothing is left.
func Memory() Backend { return &memory{objects: map[string]kept{}} }

func (m *memory) Where() string { return "memory" }

func (m *memory) Write(ctx context.Context, key string, data []byte, nonce, ifMatch string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("store: put %s: %w", key, err)
	}
	if there, ok := m.objects[key]; ok != (ifMatch != "") || ok && there.version != ifMatch {
		return "", fmt.Errorf("store: put %s: %w", key, ErrCondition)
	}
	m.writes++
	v := strconv.FormatInt(m.writes, 10)
	m.objects[key] = kept{bytes.Clone(data), v, nonce, time.Now()}
	return v, nil
}

func (m *memory) get(ctx context.Context, op, key string) (kept, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return kept{}, fmt.Errorf("store: %s %s: %w", op, key, err)
	}
	o, ok := m.objects[key]
	if !ok {
		return kept{}, fmt.Errorf("store: %s %s (memory): %w", op, key, ErrNotFound)
	}
	return o, nil
}

func (m *memory) Read(ctx context.Context, key string, _ int, _ bool) (data []byte, version, nonce string, err error) {
	o, err := m.get(ctx, "get", key)
	return bytes.Clone(o.data), o.version, o.nonce, err
}

func (m *memory) Stat(ctx context.Context, key string) (Object, time.Time, error) {
	o, err := m.get(ctx, "stat", key)
	if err != nil {
		return Object{}, time.Time{}, err
	}
	return Object{Key: key, Size: int64(len(o.data)), Modified: o.at}, time.Now(), nil
}

func (m *memory) List(ctx context.Context, prefix string) (out []Object, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(m.objects)) {
		if strings.HasPrefix(key, prefix) {
			out = append(out, Object{Key: key, Size: int64(len(m.objects[key].data)), Modified: m.objects[key].at})
		}
	}
	return out, ctx.Err()
}

func (m *memory) Delete(ctx context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("store: delete %s: %w", key, err)
	}
	delete(m.objects, key)
	return nil
}

func (m *memory) Now(ctx context.Context) (time.Time, error) { return time.Now(), ctx.Err() }
