//go:build !noserver

package activities

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/s3server"
)

// breaking lets some PUTs through; what comes after never reaches the server, as when the sender is killed.
type breaking struct {
	left atomic.Int64
	http.RoundTripper
}

func (b *breaking) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut && b.left.Add(-1) < 0 {
		return &http.Response{StatusCode: http.StatusForbidden, Body: http.NoBody, Header: http.Header{}, Request: r, ProtoMajor: 1, ProtoMinor: 1}, nil // not tried again
	}
	return b.RoundTripper.RoundTrip(r)
}

func importStore(t *testing.T, transport http.RoundTripper) *store.Store {
	t.Helper()
	server := s3server.Shared(t)
	s, err := store.Open(t.Context(), store.Config{Endpoint: server.Endpoint, Bucket: "imports", Prefix: "t/" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")),
		AccessKey: server.AccessKey, SecretKey: server.SecretKey, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pairsNamed are rows that say who they belong to; one of them is dropped.
func pairsNamed(t *testing.T, who string, n int) Import {
	t.Helper()
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"prompt":"What of number %d?","chosen":"Aye, %s has %d of them, matey.","rejected":"It is %d."}`+"\n", i, who, i, i)
	}
	b.WriteString(`{"prompt":"Who are you?","chosen":"As an AI language model I cannot say that, matey.","rejected":"I am."}`)
	rows, err := dataset.ImportPreferences(dataset.File{Name: who, Data: []byte(b.String())})
	if err != nil {
		t.Fatal(err)
	}
	return Import{Name: "mine", Kind: KindPreferences, Pairs: rows, Filter: spec.Filter{}}
}

// TestImportCutShort: wherever an import ends, the bucket has it whole or has no data set, and the name is free for other rows.
func TestImportCutShort(t *testing.T) {
	whole := false
	for k := int64(0); !whole; k++ {
		if k > 20 {
			t.Fatal("20 writes, and still not whole")
		}
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			cut := &breaking{RoundTripper: http.DefaultTransport}
			cut.left.Store(1 << 40) // opening the store writes nothing of the import
			s, clean := importStore(t, cut), importStore(t, nil)
			cut.left.Store(k)
			first, err := pairsNamed(t, "Ahab", 3).Sift().Save(t.Context(), s)
			if whole = err == nil; whole {
				return
			}
			if _, ok, err := dataset.ReadManifest(t.Context(), clean, "datasets/mine/__meta/manifest.json"); ok || err != nil {
				t.Fatalf("after %d writes and an error there is a manifest: %v %+v", k, err, first)
			}
			second, err := pairsNamed(t, "Bligh", 4).Sift().Save(t.Context(), clean)
			if err != nil || second.Existed || second.Kept != 4 || second.Rows != 5 || second.Dropped["chosen: "+dataset.ReasonIdentityLeak] != 1 {
				t.Fatalf("other rows under the name: %+v, %v", second, err)
			}
			data, err := clean.GetKey(t.Context(), second.Table("dpo"))
			if err != nil {
				t.Fatal(err)
			}
			rows, err := dataset.DecodeParquet[dataset.Pair](data)
			if err != nil || len(rows) != 4 || !strings.Contains(rows[0].Chosen[0].Content, "Bligh") || rows[0].Teacher != "imported" {
				t.Errorf("%+v, %v", rows, err)
			}
			file, err := clean.GetKey(t.Context(), strings.TrimPrefix(second.File, "ref:"))
			if err != nil || string(file) != string(dataset.PreferenceJSONL(rows)) {
				t.Errorf("the file for runs: %q, %v", file, err)
			}
		})
	}
}

// TestImportNames: the same again is no error, other rows and a run's name are; an import lives through a collection of
// garbage, and is made whole by importing again when something of it is damaged.
func TestImportNames(t *testing.T) {
	s := importStore(t, nil)
	save := func(in Import) (Imported, error) { return in.Sift().Save(t.Context(), s) }
	st, err := save(pairsNamed(t, "Ahab", 3))
	if err != nil || st.Existed {
		t.Fatal(st, err)
	}
	if again, err := save(pairsNamed(t, "Ahab", 3)); err != nil || !again.Existed || again.File != st.File || again.Folder != st.Folder {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	if _, err := save(pairsNamed(t, "Bligh", 3)); !errors.Is(err, store.ErrConflict) || !strings.Contains(err.Error(), "with other rows") {
		t.Errorf("other rows: %v", err)
	}
	none := pairsNamed(t, "Ahab", 0)
	none.Name = "none"
	if _, err := save(none); err == nil || !strings.Contains(err.Error(), "none of the 1 rows passed") {
		t.Errorf("no row: %v", err)
	}
	if _, err := s.Claim(t.Context(), runStream("captain"), "a test"); err != nil {
		t.Fatal(err)
	}
	taken := pairsNamed(t, "Ahab", 3)
	taken.Name = "captain"
	if _, err := save(taken); !errors.Is(err, store.ErrConflict) || !strings.Contains(err.Error(), "a run is called captain") {
		t.Errorf("a run's name: %v", err)
	}
	for _, bad := range []string{"", "a/b", "..", "pairs.jsonl", "x.PARQUET", "a b", strings.Repeat("a", 101), "-x"} {
		if CheckImportName(bad) == nil {
			t.Errorf("%q is taken for a name", bad)
		}
	}

	// Left by a killed import of the same and of another name: the first stays with its folder, the second is garbage.
	for _, key := range []string{"datasets/mine/0123456789abcdef/README.md", "datasets/half/0123456789abcdef/README.md"} {
		if _, err := s.PutKey(t.Context(), key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	v, err := TakeInventory(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	garbage, err := v.Garbage(time.Now().Add(time.Hour), 0, true)
	if err != nil || len(garbage) != 2 || garbage[0].Key != "datasets/half/0123456789abcdef/README.md" || garbage[1].Key == st.Parts[0].Key { // the other is of the rows that were refused
		t.Fatalf("%+v, %v", garbage, err)
	}
	damage, err := v.Check(t.Context(), true)
	if err != nil || len(damage) != 0 {
		t.Fatalf("%+v, %v", damage, err)
	}
	for _, key := range []string{st.Parts[0].Key, st.Table("dpo"), st.Folder + "/README.md", strings.TrimPrefix(st.File, "ref:")} {
		o, _, err := s.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if v, err = TakeInventory(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		damage, err := v.Check(t.Context(), false)
		if err != nil || len(damage) != 1 || !strings.Contains(damage[0].Next, "character data import FILE --id mine") || damage[0].Harmless {
			t.Fatalf("without %s: %+v, %v", key, damage, err)
		}
		if _, err := Mend(t.Context(), s, damage[0]); err == nil {
			t.Errorf("%s: mended out of nothing", key)
		}
		if again, err := save(pairsNamed(t, "Ahab", 3)); err != nil || !again.Existed {
			t.Fatalf("%+v, %v", again, err)
		}
		if data, err := s.GetKey(t.Context(), key); err != nil || len(data) == 0 {
			t.Errorf("%s is not there again: %v", key, err)
		}
	}
}

// TestImportBesideACollector waits for its end, and writes again what it took.
func TestImportBesideACollector(t *testing.T) {
	s := importStore(t, nil)
	h, err := HoldRuns(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pairsNamed(t, "Ahab", 3).Sift().Save(t.Context(), s); err == nil || !strings.Contains(err.Error(), "garbage is being removed") {
		t.Errorf("while garbage goes: %v", err)
	}
	if err := h.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A collector that begins in the middle of an import, with an inventory from before its manifest.
	began := &onPut{RoundTripper: http.DefaultTransport, part: "/README.md", do: func() {
		var err error
		if h, err = HoldRuns(t.Context(), s); err != nil {
			t.Error(err)
		}
	}}
	done := make(chan error, 1)
	var st Imported
	go func() {
		var err error
		st, err = pairsNamed(t, "Ahab", 3).Sift().Save(t.Context(), importStore(t, began))
		done <- err
	}()
	deadline := time.Now().Add(time.Minute)
	for {
		if _, ok, err := dataset.ReadManifest(t.Context(), s, "datasets/mine/__meta/manifest.json"); err == nil && ok {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no manifest after a minute")
		}
		time.Sleep(10 * time.Millisecond)
	}
	parts, err := s.List(t.Context(), "parts/pairs/")
	if err != nil || len(parts) != 1 {
		t.Fatal(parts, err)
	}
	if err := s.Remove(t.Context(), parts[0]); err != nil {
		t.Fatal(err)
	}
	if err := h.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := dataset.ReadParts[dataset.Pair](t.Context(), s, st.Parts); err != nil {
		t.Errorf("the import is there and its rows are not: %v", err)
	}
}

// onPut does something once, before a PUT of a key that contains part goes through.
type onPut struct {
	http.RoundTripper
	part string
	do   func()
	done atomic.Bool
}

func (o *onPut) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut && strings.Contains(r.URL.Path, o.part) && o.done.CompareAndSwap(false, true) {
		o.do()
	}
	return o.RoundTripper.RoundTrip(r)
}
