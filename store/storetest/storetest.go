// Package storetest is the conformance suite of store.Backend: the rules that fences and resumed runs rely on, as tests. It tests
// the backend alone, and then streams and content-named objects on top of it.
//
//	func TestBackend(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) store.Backend { return open(t) })
//	}
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/store"
)

// Run tests a backend. open gives an empty one, each time another.
func Run(t *testing.T, open func(t *testing.T) store.Backend) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*testing.T, store.Backend)
	}{
		{"conditions", conditions}, {"bytes", exact}, {"list", list}, {"stat and delete", gone}, {"one writer creates", creates}, {"no lost update", swaps},
		{"context", ended}, {"probe", probe}, {"content", content}, {"fence", fence}, {"claims", claims}, {"restore", restore},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

func write(t *testing.T, b store.Backend, key, data, ifMatch string) string {
	t.Helper()
	v, err := b.Write(t.Context(), key, []byte(data), "n-"+data, ifMatch)
	if err != nil || v == "" {
		t.Fatalf("write %s: version %q, %v", key, v, err)
	}
	return v
}

func refused(t *testing.T, b store.Backend, key, ifMatch, why string) {
	t.Helper()
	if _, err := b.Write(t.Context(), key, []byte("refused"), "n", ifMatch); !errors.Is(err, store.ErrCondition) {
		t.Errorf("a write %s gives %v, want store.ErrCondition", why, err)
	}
}

func holds(t *testing.T, b store.Backend, key, data, version string) {
	t.Helper()
	got, v, nonce, err := b.Read(t.Context(), key, 0, false)
	if err != nil || string(got) != data || v != version || nonce != "n-"+data {
		t.Errorf("%s holds %.40q, version %q, nonce %q, %v; want %.40q, version %q", key, got, v, nonce, err, data, version)
	}
}

func conditions(t *testing.T, b store.Backend) {
	if _, _, _, err := b.Read(t.Context(), "a/x.json", 0, false); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a missing object gives %v, want store.ErrNotFound", err)
	}
	refused(t, b, "a/x.json", `"00000000000000000000000000000000"`, "over a version, where nothing is,")
	one := write(t, b, "a/x.json", "one", "")
	refused(t, b, "a/x.json", "", "of a new object, where one is,")
	holds(t, b, "a/x.json", "one", one)
	two := write(t, b, "a/x.json", "two", one)
	if two == one {
		t.Error("two versions have one name")
	}
	refused(t, b, "a/x.json", one, "over an old version")
	holds(t, b, "a/x.json", "two", two)
	if err := b.Delete(t.Context(), "a/x.json"); err != nil {
		t.Fatal(err)
	}
	refused(t, b, "a/x.json", two, "over an object that is deleted")
	holds(t, b, "a/x.json", "three", write(t, b, "a/x.json", "three", ""))
}

func exact(t *testing.T, b store.Backend) {
	for i, data := range [][]byte{{}, {0}, []byte("\r\n\xff\xfe"), bytes.Repeat([]byte("0123456789abcdef"), 1<<16)} {
		key := fmt.Sprintf("b/%d.bin", i)
		mine := bytes.Clone(data)
		if _, err := b.Write(t.Context(), key, mine, "n", ""); err != nil {
			t.Fatal(err)
		}
		for j := range mine {
			mine[j]++ // the writer's own again
		}
		for _, raw := range []bool{false, true} {
			got, _, _, err := b.Read(t.Context(), key, len(data), raw)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes read back as %d others, %v", len(data), len(got), err)
			}
			for j := range got {
				got[j]++ // the reader's own
			}
		}
	}
}

func list(t *testing.T, b store.Backend) {
	if l, err := b.List(t.Context(), ""); err != nil || len(l) != 0 {
		t.Errorf("an empty backend lists %v, %v", l, err)
	}
	for _, key := range []string{"l/b", "l/a/z", "l/a-", "l/a.json", "l/B", "m", "l2/x", "l/a/b/c"} {
		write(t, b, key, key, "")
	}
	for prefix, want := range map[string][]string{
		"": {"l/B", "l/a-", "l/a.json", "l/a/b/c", "l/a/z", "l/b", "l2/x", "m"}, "l/": {"l/B", "l/a-", "l/a.json", "l/a/b/c", "l/a/z", "l/b"},
		"l/a": {"l/a-", "l/a.json", "l/a/b/c", "l/a/z"}, "l/a/": {"l/a/b/c", "l/a/z"}, "x": nil,
	} {
		l, err := b.List(t.Context(), prefix)
		var keys []string
		for _, o := range l {
			keys = append(keys, o.Key)
			if o.Size != int64(len(o.Key)) || o.Modified.IsZero() {
				t.Errorf("%+v: %d bytes were written", o, len(o.Key))
			}
		}
		if err != nil || fmt.Sprint(keys) != fmt.Sprint(want) {
			t.Errorf("%q lists %v, %v; want %v", prefix, keys, err, want)
		}
	}
}

func gone(t *testing.T, b store.Backend) {
	if _, _, err := b.Stat(t.Context(), "s/x"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("stat of a missing object gives %v, want store.ErrNotFound", err)
	}
	write(t, b, "s/x", "12345", "")
	o, now, err := b.Stat(t.Context(), "s/x")
	// The clock may be one of seconds.
	if err != nil || o.Key != "s/x" || o.Size != 5 || o.Modified.After(now.Add(2*time.Second)) || now.Sub(o.Modified) > time.Hour {
		t.Errorf("stat: %+v, now %v, %v", o, now, err)
	}
	if l, err := b.List(t.Context(), "s/"); err != nil || len(l) != 1 || !l[0].Modified.Equal(o.Modified) && l[0].Modified.Sub(o.Modified).Abs() > time.Second {
		t.Errorf("list and stat differ: %v, %v, %v", l, o, err)
	}
	if clock, err := b.Now(t.Context()); err != nil || clock.Sub(now).Abs() > time.Hour {
		t.Errorf("the clock says %v, and said %v before; %v", clock, now, err)
	}
	for range 2 {
		if err := b.Delete(t.Context(), "s/x"); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if _, _, _, err := b.Read(t.Context(), "s/x", 0, true); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a deleted object gives %v", err)
	}
}

func creates(t *testing.T, b store.Backend) {
	var wg sync.WaitGroup
	var won atomic.Int32
	for i := range 16 {
		wg.Go(func() {
			switch _, err := b.Write(t.Context(), "c/x", []byte(strconv.Itoa(i)), "n", ""); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, store.ErrCondition):
				t.Errorf("writer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 16 writers have created one object", won.Load())
	}
}

// swaps counts with compare-and-swap from several goroutines: each success must count.
func swaps(t *testing.T, b store.Backend) {
	write(t, b, "w/n", "0", "")
	var wg sync.WaitGroup
	const writers, each = 4, 5
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				data, version, _, err := b.Read(t.Context(), "w/n", 0, false)
				if err != nil {
					t.Error(err)
					return
				}
				n, err := strconv.Atoi(string(data))
				if err != nil {
					t.Error(err)
					return
				}
				switch _, err := b.Write(t.Context(), "w/n", []byte(strconv.Itoa(n+1)), "n", version); {
				case err == nil:
					done++
				case !errors.Is(err, store.ErrCondition):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if data, _, _, err := b.Read(t.Context(), "w/n", 0, false); err != nil || string(data) != strconv.Itoa(writers*each) {
		t.Errorf("%d additions made %q, %v", writers*each, data, err)
	}
}

func ended(t *testing.T, b store.Backend) {
	write(t, b, "e/there", "x", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Write(ctx, "e/x", []byte("x"), "n", ""); err == nil {
		t.Error("it writes though its context is over")
	}
	if _, _, _, err := b.Read(ctx, "e/there", 0, false); err == nil {
		t.Error("it reads though its context is over")
	}
	if _, err := b.List(ctx, ""); err == nil {
		t.Error("it lists though its context is over")
	}
	if err := b.Delete(ctx, "e/there"); err == nil {
		t.Error("it deletes though its context is over")
	}
	if _, _, _, err := b.Read(t.Context(), "e/x", 0, false); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("what was written under a context that is over: %v", err)
	}
}
