package main_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/dataset"
)

// table is what a reference page says: the first cell of each row of the tables under a heading, and its second.
func table(t *testing.T, page, heading string) (names []string, second map[string]string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../docs/reference", page))
	if err != nil {
		t.Fatal(err)
	}
	second = map[string]string{}
	at := false
	for _, line := range strings.Split(string(b), "\n") {
		if h, ok := strings.CutPrefix(line, "## "); ok {
			at = h == heading
		}
		cells := strings.Split(line, " | ")
		if at && strings.HasPrefix(line, "| `") && len(cells) > 1 {
			name := strings.Trim(cells[0], "| `")
			names, second[name] = append(names, name), cells[1]
		}
	}
	if len(names) < 3 {
		t.Fatalf("%s has no table under %q", page, heading)
	}
	return names, second
}

// pattern turns a path of a page into an expression.
func pattern(path string) *regexp.Regexp {
	e := regexp.QuoteMeta(path)
	for _, r := range [][2]string{{`\*\*`, `.+`}, {`\*`, `[^/]+`}, {`\bHASH\b`, `[0-9a-f]{32}`}, {`\bKEY\b`, `[0-9a-f]{32}`}, {`\bKIND\b`, `[a-z]+`}, {`\bID\b`, `[^/]+`}, {`\bN\b`, `[0-9]+`}} {
		if strings.HasPrefix(r[0], `\b`) {
			e = regexp.MustCompile(r[0]).ReplaceAllString(e, r[1])
		} else {
			e = strings.ReplaceAll(e, r[0], r[1])
		}
	}
	e = regexp.MustCompile(`\bNAME(_|/|$)`).ReplaceAllString(e, `[^/]+$1`)
	return regexp.MustCompile("^" + e + "$")
}

// unlike lists the paths that fit no pattern, and the patterns that must fit a path and fit none.
func unlike(names []string, second map[string]string, paths []string) (unknown, missing []string) {
	for _, p := range paths {
		if !slices.ContainsFunc(names, func(n string) bool { return pattern(n).MatchString(p) }) {
			unknown = append(unknown, p)
		}
	}
	for _, n := range names {
		if second[n] == "always" && !slices.ContainsFunc(paths, pattern(n).MatchString) {
			missing = append(missing, n)
		}
	}
	return unknown, missing
}

func filesUnder(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, p)
			out = append(out, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFileReference: what a tiny run leaves is what docs/reference/files.md says, neither more nor less.
func TestFileReference(t *testing.T) {
	t.Parallel()
	d := killedRun(t)
	m := copyOf(t, d, d.finished)
	export := filepath.Join(t.TempDir(), "export")
	m.must("export", "tiny", "--out", export)
	for heading, dir := range map[string]string{"An export": export, "A data directory": m.data, "The bucket": filepath.Join(m.data, "s3", "character")} {
		names, second := table(t, "files.md", heading)
		unknown, missing := unlike(names, second, filesUnder(t, dir))
		if len(unknown)+len(missing) > 0 {
			t.Errorf("%s: the page does not know %q; it promises %q, and they are not there", heading, unknown, missing)
		}
	}
	if u, m := unlike([]string{"a/HASH.json", "b"}, map[string]string{"b": "always"}, []string{"a/xyz.json"}); len(u) != 1 || len(m) != 1 {
		t.Errorf("the comparison is blind: %q %q", u, m)
	}
}

// TestMetricReference: the names in a tiny run's files, and the reasons of the filters, are those of docs/reference/metrics.md.
func TestMetricReference(t *testing.T) {
	t.Parallel()
	d := killedRun(t)
	m := copyOf(t, d, d.finished)
	export := filepath.Join(t.TempDir(), "export")
	m.must("export", "tiny", "--out", export)
	keys := func(file string, evaluation bool) (out []string) {
		for line := range bytes.Lines([]byte(read(t, filepath.Join(export, file)))) {
			var row map[string]any
			if err := json.Unmarshal(line, &row); err != nil {
				t.Fatal(err)
			}
			for k := range row {
				if evaluation == (row["stage"] == "evaluation") && !slices.Contains(out, k) && (!evaluation || k != "stage" && k != "step") {
					out = append(out, k)
				}
			}
		}
		return out
	}
	for heading, have := range map[string][]string{"metrics.jsonl": keys("metrics.jsonl", false), "timings.jsonl": keys("timings.jsonl", false), "Evaluation": keys("metrics.jsonl", true)} {
		names, _ := table(t, "metrics.md", heading)
		for _, k := range have {
			if !slices.Contains(names, k) {
				t.Errorf("%s: the page does not know %s", heading, k)
			}
		}
		for _, k := range names {
			if !slices.Contains(have, k) && !strings.HasPrefix(k, "index_") { // there is no index when the constitution gains nothing, as on random weights
				t.Errorf("%s: the page has %s, and the run has none", heading, k)
			}
		}
	}
	names, _ := table(t, "metrics.md", "Reasons why a row is dropped")
	for _, r := range append(dataset.Reasons(), "identical_answers", "held_out", "refused_by_teacher") {
		if !slices.Contains(names, r) {
			t.Errorf("the page does not know the reason %s", r)
		}
	}
}
