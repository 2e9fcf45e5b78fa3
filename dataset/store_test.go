//go:build !noserver

package dataset_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/s3server"
)

func TestMain(m *testing.M) { s3server.Main(m) }

func open(t *testing.T) *store.Store {
	t.Helper()
	server := s3server.Shared(t)
	s, err := store.Open(t.Context(), store.Config{
		Endpoint: server.Endpoint, Bucket: "test-bucket", Prefix: strings.ToLower(t.Name()),
		AccessKey: server.AccessKey, SecretKey: server.SecretKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParts(t *testing.T) {
	t.Parallel()
	s := open(t)
	rows := pairs(2100)
	refs, err := dataset.WriteParts(t.Context(), s, "parts/pairs", rows)
	if err != nil {
		t.Fatal(err)
	}
	var counts []int64
	for _, r := range refs {
		counts = append(counts, r.Rows)
		if !strings.HasPrefix(r.Key, "parts/pairs/"+r.SHA256[:32]) {
			t.Errorf("key %s does not name the content %s", r.Key, r.SHA256)
		}
	}
	if !slices.Equal(counts, []int64{1000, 1000, 100}) {
		t.Errorf("parts of %v rows", counts)
	}
	again, err := dataset.WriteParts(t.Context(), s, "parts/pairs", rows)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(refs, again); diff != "" {
		t.Error(diff)
	}
	got, err := dataset.ReadParts[dataset.Pair](t.Context(), s, refs)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rows, got); diff != "" {
		t.Error(diff)
	}
	lie := slices.Clone(refs)
	lie[2].Rows = 99
	if _, err := dataset.ReadParts[dataset.Pair](t.Context(), s, lie); err == nil || !strings.Contains(err.Error(), lie[2].Key) {
		t.Errorf("wrong row count: %v", err)
	}
	if _, err := dataset.ReadParts[dataset.Metric](t.Context(), s, refs); err == nil {
		t.Error("pairs were read as metrics")
	}
	missing := []store.Ref{{Key: "parts/none.parquet", SHA256: "00", Size: 1}}
	if _, err := dataset.ReadParts[dataset.Pair](t.Context(), s, missing); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("missing part: %v", err)
	}
	none, err := dataset.WriteParts[dataset.Pair](t.Context(), s, "parts/pairs", nil)
	if err != nil || len(none) != 1 || none[0].Rows != 0 {
		t.Errorf("no rows: %+v, %v", none, err)
	}
	if got, err := dataset.ReadParts[dataset.Pair](t.Context(), s, none); err != nil || len(got) != 0 {
		t.Errorf("no rows read: %d, %v", len(got), err)
	}
	few, err := dataset.WritePartsWith(t.Context(), s, "p", rows[:5], dataset.PartOptions{MaxRows: 2})
	if err != nil || len(few) != 3 {
		t.Errorf("parts of 2: %d, %v", len(few), err)
	}
	if _, err := dataset.WritePartsWith(t.Context(), s, "p", rows, dataset.PartOptions{MaxRows: -1}); err == nil {
		t.Error("parts of -1 rows were written")
	}
}

func TestManifestIsCommittedOnce(t *testing.T) {
	t.Parallel()
	s := open(t)
	m := dataset.Manifest{
		Kind: "preferences", InputHash: "abc", Parts: []store.Ref{{Key: "k", SHA256: "s", Size: 1, Rows: 2}}, Rows: 5, Kept: 2,
		Dropped: map[string]int64{"repetition": 2, "empty": 1}, Info: map[string]string{"model": "<m&m>"},
	}
	const key = "d/__meta/manifest.json"
	if _, ok, err := dataset.ReadManifest(t.Context(), s, key); ok || err != nil {
		t.Errorf("no manifest yet: %v, %v", ok, err)
	}
	for range 2 {
		if err := dataset.CommitManifest(t.Context(), s, key, m); err != nil {
			t.Fatal(err)
		}
	}
	got, ok, err := dataset.ReadManifest(t.Context(), s, key)
	if err != nil || !ok {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, got); diff != "" {
		t.Error(diff)
	}
	raw, err := s.GetKey(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"dropped":{"empty":1,"repetition":2},"info":{"model":"<m&m>"},"input_hash":"abc","kept":2,"kind":"preferences","parts":[{"key":"k","rows":2,"sha256":"s","size":1}],"rows":5}` + "\n"
	if string(raw) != want {
		t.Errorf("bytes %s", raw)
	}
	other := m
	other.Kept = 3
	if err := dataset.CommitManifest(t.Context(), s, key, other); !errors.Is(err, store.ErrConflict) {
		t.Errorf("another manifest under the same key: %v", err)
	}
	for _, bad := range []dataset.Manifest{{}, {Kind: "k", Rows: 1, Kept: 2}, {Kind: "k", Dropped: map[string]int64{"": 1}}, {Kind: "k", Dropped: map[string]int64{"x": -1}}} {
		if err := dataset.CommitManifest(t.Context(), s, "bad", bad); err == nil {
			t.Errorf("%+v was committed", bad)
		}
	}
	if _, err := s.PutKey(t.Context(), "broken", []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := dataset.ReadManifest(t.Context(), s, "broken"); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("broken manifest: %v", err)
	}
}
