package dataset_test

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"kind":"k","rows":3,"kept":1,"dropped":{"x":2},"parts":[{"key":"a","rows":1}]}`))
	f.Add([]byte(`{"kind":""}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var m dataset.Manifest
		var err error
		hostile.Bounds{PerByte: 200}.Hold(t, len(data), func() { m, err = dataset.ParseManifest(data) })
		if err == nil && (m.Kind == "" || m.Kept > m.Rows) {
			t.Errorf("accepted %+v", m)
		}
	})
}

func TestInputHash(t *testing.T) {
	t.Parallel()
	type a struct {
		X int    `json:"x"`
		Y string `json:"y"`
	}
	type b struct {
		Y string `json:"y"`
		X int    `json:"x"`
	}
	same := dataset.InputHash(a{1, "<"})
	if dataset.InputHash(b{"<", 1}) != same || dataset.InputHash(map[string]any{"y": "<", "x": 1}) != same {
		t.Error("the order of fields matters")
	}
	sum := sha256.Sum256([]byte("{\"x\":1,\"y\":\"<\"}\n"))
	if want := hex.EncodeToString(sum[:]); same != want {
		t.Errorf("hash %s, want %s", same, want)
	}
	big := map[string]uint64{"seed": math.MaxUint64}
	if dataset.InputHash(big) == dataset.InputHash(map[string]uint64{"seed": math.MaxUint64 - 1}) {
		t.Error("large integers lose digits")
	}
	if dataset.InputHash([]int{1, 2}) == dataset.InputHash([]int{2, 1}) {
		t.Error("the order of a list does not matter")
	}
}

func TestShuffle(t *testing.T) {
	t.Parallel()
	rows := pairs(300)
	id := func(p dataset.Pair) string { return p.ID }
	a := dataset.Shuffle(rows, 1, id)
	reversed := slices.Clone(rows)
	slices.Reverse(reversed)
	if diff := cmp.Diff(a, dataset.Shuffle(reversed, 1, id)); diff != "" {
		t.Error("the order before matters")
	}
	if cmp.Equal(a, dataset.Shuffle(rows, 2, id)) || cmp.Equal(a, rows) {
		t.Error("the seed does not matter")
	}
	if !cmp.Equal(rows, pairs(300)) {
		t.Error("the caller's rows were moved")
	}
	seen := map[string]bool{}
	for _, r := range a {
		seen[r.ID] = true
	}
	if len(seen) != 300 {
		t.Errorf("%d of 300 rows", len(seen))
	}
	// A shorter list keeps the order of what it still has: rows can be added without moving others.
	half := dataset.Shuffle(rows[:150], 1, id)
	var rest []dataset.Pair
	for _, r := range a {
		if r.ChosenTokens < 150 {
			rest = append(rest, r)
		}
	}
	if diff := cmp.Diff(half, rest); diff != "" {
		t.Error(diff)
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	got := dataset.Merge(map[string]int64{"a": 1, "b": 2}, nil, map[string]int64{"b": 3})
	if diff := cmp.Diff(map[string]int64{"a": 1, "b": 5}, got); diff != "" {
		t.Error(diff)
	}
	if dataset.Merge() == nil {
		t.Error("Merge of nothing is nil")
	}
}

func TestCard(t *testing.T) {
	t.Parallel()
	card := string(dataset.Card("captain: \"the\" old\none", "dpo", "introspection"))
	front, body, ok := strings.Cut(strings.TrimPrefix(card, "---\n"), "\n---\n")
	if !ok {
		t.Fatalf("no front matter: %s", card)
	}
	var meta struct {
		PrettyName string `yaml:"pretty_name"`
		Tags       []string
		Configs    []struct {
			ConfigName string `yaml:"config_name"`
			Default    bool
			DataFiles  []struct{ Split, Path string } `yaml:"data_files"`
		}
	}
	if err := yaml.Unmarshal([]byte(front), &meta); err != nil {
		t.Fatal(err)
	}
	if meta.PrettyName != `captain: "the" old one` || !slices.Contains(meta.Tags, "dpo") || len(meta.Configs) != 2 {
		t.Errorf("%+v", meta)
	}
	c := meta.Configs[0]
	if !c.Default || meta.Configs[1].Default || c.ConfigName != "dpo" || len(c.DataFiles) != 1 || c.DataFiles[0].Path != "dpo/train-*.parquet" || c.DataFiles[0].Split != "train" {
		t.Errorf("%+v", meta.Configs)
	}
	if !strings.Contains(body, "__meta/manifest.json") {
		t.Error(body)
	}
}
