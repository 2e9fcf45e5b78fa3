package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// importJSON is what `data import --json` prints.
type importJSON struct {
	Name, Kind, File     string
	Files                []string
	LeftOut              []string `json:"left_out"`
	Rows, Kept, Repeated int
	Dropped              map[string]int
	Existed, Stored      bool
}

func pairLines(who string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"prompt\":\"What of number %d?\",\"chosen\":\"Aye, %s has %d of them, matey.\",\"rejected\":\"It is %d.\"}\n", i, who, i, i)
	}
	return b.String()
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDataImport: rows of a finished run, written out, imported and trained on by name, give the run that the file itself
// gives; other commands know the data set by its name.
func TestDataImport(t *testing.T) {
	t.Parallel()
	d := killedRun(t)
	m := copyOf(t, d, d.finished)
	dir := t.TempDir()
	pairs, talks := filepath.Join(dir, "pairs.jsonl"), filepath.Join(dir, "talks.parquet")
	m.must("data", "export", "tiny/dpo", "--out", pairs)
	m.must("data", "export", "tiny/introspection", "--out", talks)
	limits := []string{"--set", "preferences.filter.repetition_threshold=-1", "--set", "introspection.filter.repetition_threshold=-1", "--set", "introspection.filter.min_chars=4"}
	var in importJSON
	m.into(&in, append([]string{"data", "import", pairs, "--check", "--json"}, limits...)...)
	if in.Stored || in.Kept == 0 || in.Kind != "dpo" {
		t.Errorf("--check: %+v", in)
	}
	m.into(&in, append([]string{"data", "import", pairs, "--id", "mine", "--json"}, limits...)...)
	if !in.Stored || in.Existed || in.Rows != in.Kept || in.Kind != "dpo" || !strings.HasPrefix(in.File, "ref:uploads/") {
		t.Errorf("import: %+v", in)
	}
	m.into(&in, append([]string{"data", "import", talks, "--id", "talks", "--json"}, limits...)...)
	if in.Kind != "introspection" || in.Rows != in.Kept {
		t.Errorf("import of talks: %+v", in)
	}
	if out := m.must(append([]string{"data", "import", talks, "--id", "talks"}, limits...)...); !strings.Contains(out, "The same rows are there already: data set talks") {
		t.Errorf("the same again:\n%s", out)
	}
	var ls struct{ DataSets []listedSet }
	m.into(&ls, "data", "ls", "--json")
	if len(ls.DataSets) != 4 || ls.DataSets[2].Name != "mine" || ls.DataSets[3].Name != "talks" || ls.DataSets[2].Bytes == 0 || ls.DataSets[2].Stage != "preferences" {
		t.Errorf("data ls: %+v", ls.DataSets)
	}
	if out := m.must("data", "show", "mine", "--n", "1"); !strings.Contains(out, "rejected") {
		t.Errorf("data show:\n%s", out)
	}
	again := filepath.Join(dir, "again.jsonl")
	m.must("data", "export", "mine", "--out", again)
	if a, b := read(t, pairs), read(t, again); a != b {
		t.Error("what comes out of an import is not what went in")
	}

	// A run on names ends as one on the files.
	m.must(append(m.runArgs("byname"), "--pairs", "mine", "--introspection", "talks")...)
	m.must(append(m.runArgs("byfile"), "--pairs", pairs, "--introspection", filepath.Join(dir, "talks.parquet"))...)
	m.must(append(m.runArgs("byrun"), "--pairs", "tiny", "--introspection", "tiny/introspection")...)
	if a, b, c := m.sums("byname"), m.sums("byfile"), m.sums("byrun"); withoutSpec(a) != withoutSpec(b) || a != c {
		t.Errorf("by name:\n%s\nby file:\n%s\nby run:\n%s", a, b, c)
	}
	if out := m.must("repair", "--check"); !strings.Contains(out, "Every object is whole.") {
		t.Errorf("repair --check:\n%s", out)
	}
	for _, name := range []string{"mine", "mine/dpo"} {
		var stats struct{ DataSets []listedSet }
		m.into(&stats, "data", "stats", name, "--json")
		if len(stats.DataSets) != 1 || stats.DataSets[0].Name != "mine" || stats.DataSets[0].Summary.Rows == 0 {
			t.Errorf("data stats %s: %+v", name, stats.DataSets)
		}
	}

	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"data", "import", pairs}, "--id is missing", 2},
		{[]string{"data", "import", pairs, "--id", "a/b"}, `data set name "a/b"`, 2},
		{[]string{"data", "import", pairs, "--id", "pairs.jsonl"}, "no ending of a file", 2},
		{[]string{"data", "import", pairs, "--id", "x", "--kind", "sft"}, `--kind "sft"`, 2},
		{[]string{"data", "import", pairs, "--id", "x", "--kind", "introspection"}, "pairs.jsonl: line 1", 1},
		{[]string{"data", "import", pairs, "--id", "x", "--set", "dpo.epochs=1"}, "want a limit of the filters", 2},
		{[]string{"data", "import", pairs, "--id", "x", "--set", "preferences.filter.max=1"}, "unknown field", 1},
		{[]string{"data", "import", pairs, "--id", "x", "--preset", "grand"}, `preset "grand"`, 1},
		{[]string{"data", "import", pairs, "--id", "tiny"}, "a run is called tiny", 1},
		{[]string{"data", "import", write(t, filepath.Join(dir, "other.jsonl"), pairLines("Ahab", 3)), "--id", "mine"}, "with other rows", 1},
		{[]string{"data", "import", filepath.Join(dir, "nowhere.jsonl"), "--id", "x"}, "no such file", 1},
		{[]string{"data", "import", write(t, filepath.Join(dir, "bad.jsonl"), pairLines("Ahab", 3)+"{\"prompt\":\"a\",\"chosen\":\"b\"}\n"), "--id", "x"}, `bad.jsonl: line 4: column "rejected": it is missing`, 1},
		{[]string{"data", "import", write(t, filepath.Join(dir, "text.jsonl"), "hello\n"), "--id", "x"}, "line 1: it is not a JSON object", 1},
		{[]string{"data", "import", write(t, filepath.Join(dir, "cut.parquet"), "PAR1 and nothing"), "--id", "x"}, "cut.parquet", 1},
		{[]string{"data", "import", write(t, filepath.Join(dir, "none.jsonl"), `{"prompt":"Who?","chosen":"As an AI language model I cannot.","rejected":"I am."}`), "--id", "x"}, "none of the 1 rows passed, so nothing is stored", 1},
		{[]string{"data", "import", write(t, filepath.Join(dir, "data.arrow"), "ARROW1"), "--id", "x"}, "Arrow files are not read", 1},
		{append(m.runArgs("y"), "--pairs", "ghost"), "no data set of that name", 1},
		{append(m.runArgs("y"), "--pairs", "talks"), "holds introspection rows, and dpo are wanted", 1},
		{append(m.runArgs("y"), "--pairs", filepath.Join(dir, "gone.jsonl")), "no such file", 1},
	} {
		out, err := m.command(c.args...).CombinedOutput()
		code := 0
		if x, ok := err.(*exec.ExitError); ok {
			code = x.ExitCode()
		}
		if code != c.code || !strings.Contains(string(out), c.want) || strings.Count(string(out), "\n") != 1 {
			t.Errorf("character %s: exit code %d, want %d and %q in one line:\n%s", strings.Join(c.args, " "), code, c.code, c.want, out)
		}
	}
}

// withoutSpec leaves the sums of files out that say where the rows came from.
func withoutSpec(sums string) string {
	var out []string
	for _, l := range strings.Split(sums, "\n") {
		if !strings.HasSuffix(l, " spec.json") && !strings.HasSuffix(l, "report.html") && !strings.Contains(l, "data/") && !strings.HasSuffix(l, "README.md") {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestDataImportFolders reads what Hugging Face folders look like, and says what it leaves out.
func TestDataImportFolders(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	dir := t.TempDir()
	hf := filepath.Join(dir, "hf")
	write(t, filepath.Join(hf, "README.md"), "# rows")
	write(t, filepath.Join(hf, "dataset_info.json"), "{}")
	write(t, filepath.Join(hf, ".cache", "x.jsonl"), "no row")
	write(t, filepath.Join(hf, "data", "train-00000-of-00002.jsonl"), pairLines("Ahab", 2))
	write(t, filepath.Join(hf, "data", "train-00001-of-00002.jsonl"), pairLines("Bligh", 3)+pairLines("Bligh", 1))
	write(t, filepath.Join(hf, "data", "test-00000-of-00001.jsonl"), pairLines("Cook", 1))
	ours := filepath.Join(dir, "ours")
	write(t, filepath.Join(ours, "dpo", "train.jsonl"), pairLines("Ahab", 2))
	write(t, filepath.Join(ours, "introspection", "train.jsonl"), `{"prompt":"Who are you?","reflection":"Arr, an old captain I be, and the sea is in all that I say."}`)
	mixed := filepath.Join(dir, "mixed")
	write(t, filepath.Join(mixed, "a.jsonl"), pairLines("Ahab", 2))
	write(t, filepath.Join(mixed, "a.parquet"), "PAR1")
	arrow := filepath.Join(dir, "arrow")
	write(t, filepath.Join(arrow, "data-00000-of-00001.arrow"), "x")
	for _, c := range []struct {
		args                            []string
		files, left, rows, kept, repeat int
		kind                            string
	}{
		{[]string{hf}, 2, 1, 6, 6, 1, "dpo"},
		{[]string{hf, "--split", "test"}, 1, 2, 1, 1, 0, "dpo"},
		{[]string{ours, "--kind", "introspection"}, 1, 0, 1, 1, 0, "introspection"},
		{[]string{ours, "--kind", "dpo"}, 1, 0, 2, 2, 0, "dpo"},
		{[]string{filepath.Join(ours, "dpo")}, 1, 0, 2, 2, 0, "dpo"},
	} {
		var in importJSON
		m.into(&in, append([]string{"data", "import", "--check", "--json"}, c.args...)...)
		if len(in.Files) != c.files || len(in.LeftOut) != c.left || in.Rows != c.rows || in.Kept != c.kept || in.Repeated != c.repeat || in.Kind != c.kind || in.Stored {
			t.Errorf("%v: %+v", c.args, in)
		}
	}
	if _, err := os.Stat(m.data); err == nil {
		t.Error("--check has made a data directory")
	}
	for want, args := range map[string][]string{
		"say which with --kind":       {ours},
		"both Parquet and JSONL":      {mixed},
		"Arrow files are not read":    {arrow},
		"no .parquet and no .jsonl":   {t.TempDir()},
		`no file is of split "other"`: {hf, "--split", "other"},
	} {
		if out := m.fails(append([]string{"data", "import", "--check"}, args...)...); !strings.Contains(out, want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%v: want %q in one line:\n%s", args, want, out)
		}
	}
	out := m.must("data", "import", hf, "--id", "hf") // nothing ran here before
	for _, want := range []string{"Left out, because they are of another split: data/test-00000-of-00001.jsonl.", "6 rows of kind dpo read, 6 pass the filters, 1 of them repeat", "Stored as data set hf", "--pairs hf"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

// TestDataImportKilled kills imports with -9 while their objects appear: the bucket has the data set whole, or not at all, and
// other rows can take its name.
func TestDataImportKilled(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "pairs.jsonl"), pairLines("Ahab", 30000)) // thirty parts
	m.must("data", "import", write(t, filepath.Join(dir, "first.jsonl"), pairLines("Cook", 2)), "--id", "first")
	manifest := filepath.Join(m.data, "s3", "character", "datasets", "mine", "__meta", "manifest.json")
	parts := func() int {
		found, _ := filepath.Glob(filepath.Join(m.data, "s3", "character", "parts", "pairs", "*.parquet"))
		return len(found)
	}
	inTheMiddle := 0
	for _, n := range []int{2, 10, 25} {
		before := parts()
		c := m.command("data", "import", file, "--id", "mine")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(2 * time.Minute)
		for parts() < min(before+n, 31) && !exists(manifest) {
			if time.Now().After(deadline) {
				t.Fatal("no parts after two minutes")
			}
			time.Sleep(time.Millisecond)
		}
		killAll(t, c)
		if exists(manifest) {
			break
		}
		inTheMiddle++
		var ls struct{ DataSets []listedSet }
		m.into(&ls, "data", "ls", "--json")
		if len(ls.DataSets) != 1 || ls.DataSets[0].Name != "first" {
			t.Fatalf("after a kill: %+v", ls.DataSets)
		}
		if out := m.fails("data", "show", "mine"); !strings.Contains(out, "mine") {
			t.Errorf("data show of a half import:\n%s", out)
		}
		if n > 2 {
			break
		}
	}
	if inTheMiddle == 0 {
		t.Fatal("no import was killed in the middle: the test is blind")
	}
	var in importJSON
	if !exists(manifest) {
		m.into(&in, "data", "import", write(t, filepath.Join(dir, "other.jsonl"), pairLines("Bligh", 5)), "--id", "mine", "--json")
		var show struct {
			Found int
			Rows  []json.RawMessage
		}
		m.into(&show, "data", "show", "mine", "--json", "--n", "0")
		if in.Kept != 5 || in.Existed || show.Found != 5 || !strings.Contains(string(show.Rows[0]), "Bligh") {
			t.Errorf("other rows after the kill: %+v %+v", in, show)
		}
	}
	if out := m.must("repair", "--check"); !strings.Contains(out, "Every object is whole.") {
		t.Errorf("repair --check:\n%s", out)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
