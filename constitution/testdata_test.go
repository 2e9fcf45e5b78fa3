package constitution_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/constitution"
)

// testdata returns the folder of published constitutions, which the repository
// does not hold: CHARACTER_TESTDATA names it. With CHARACTER_REQUIRE=testdata a
// missing folder is a failure.
func testdata(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("CHARACTER_TESTDATA")
	if dir == "" {
		if strings.Contains(os.Getenv("CHARACTER_REQUIRE"), "testdata") {
			t.Fatal("CHARACTER_TESTDATA is not set, and CHARACTER_REQUIRE asks for it")
		}
		t.Skip("CHARACTER_TESTDATA is not set: the published constitutions are not here")
	}
	return dir
}

func TestPublishedForms(t *testing.T) {
	dir := testdata(t)
	for _, form := range []struct {
		glob                 string
		files                int
		traits               int // at least
		questions            int // a trait, exactly; -1 = none
		description, example bool
	}{
		{"oct/constitutions/hand-written/*.txt", 11, 10, 5, false, false},
		{"oct/constitutions/few-shot/*.jsonl", 10, 10, 50, false, false},
		{"studio/constitutions/structured/*.yaml", 11, 10, -1, true, false},
		{"studio/constitutions/hand-written/*.txt", 12, 7, -1, false, false},
	} {
		files, err := filepath.Glob(filepath.Join(dir, form.glob))
		if err != nil || len(files) < form.files {
			t.Fatalf("%s: %d files, want at least %d (%v)", form.glob, len(files), form.files, err)
		}
		for _, file := range files {
			name := filepath.Base(file)
			c, err := constitution.Load(file)
			if name == "template.txt" { // the published empty form
				if err == nil || !strings.Contains(err.Error(), "empty") {
					t.Errorf("%s: error %v, want one that speaks of empty traits", name, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", form.glob, err)
				continue
			}
			if c.Name != strings.TrimSuffix(name, filepath.Ext(name)) {
				t.Errorf("%s: name %q", file, c.Name)
			}
			if len(c.Traits) < form.traits {
				t.Errorf("%s: %d traits, want at least %d", file, len(c.Traits), form.traits)
			}
			for i, tr := range c.Traits {
				if len(tr.Questions) != max(0, form.questions) {
					t.Errorf("%s: trait %d has %d questions, want %d", file, i+1, len(tr.Questions), form.questions)
				}
			}
			if (c.Description != "") != form.description {
				t.Errorf("%s: description %q", file, c.Description)
			}
		}
	}
}

// The plain text files of the studio hold one trait a line; no line may be lost
// or joined.
func TestPublishedTextKeepsEveryLine(t *testing.T) {
	dir := testdata(t)
	files, _ := filepath.Glob(filepath.Join(dir, "studio/constitutions/hand-written/*.txt"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := constitution.Parse(data, file)
		if err != nil {
			t.Error(err)
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		if len(lines) != len(c.Traits) {
			t.Errorf("%s: %d lines, %d traits", file, len(lines), len(c.Traits))
			continue
		}
		for i, l := range lines {
			if c.Traits[i].Text != strings.Join(strings.Fields(l), " ") {
				t.Errorf("%s: trait %d is %q, the line is %q", file, i+1, c.Traits[i].Text, l)
			}
		}
	}
}
