package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/testenv/doclines"
)

// This file holds every command that the pages name to what there is: commands, flags, arguments, make's targets, scripts,
// workflow types, queries, updates, fields of a spec. docs_checks_test.go has the checks; docs_run_test.go runs the commands.

// root is the top of the repository.
const root = "../.."

// pages are all that people read, as paths from the top.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range []string{"README.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, f := range found {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := filepath.Rel(root, f)
			out[filepath.ToSlash(name)] = string(b)
		}
	}
	return out
}

// TestPagesNameWhatThereIs goes over every page and over the examples of the help.
func TestPagesNameWhatThereIs(t *testing.T) {
	n := 0
	for page, text := range pages(t) {
		lines, err := doclines.Of(page, text)
		if err != nil {
			t.Error(err)
		}
		for _, l := range lines {
			if l.In != doclines.Inline {
				n++
			}
			if err := checkLine(l.Text, l.In == doclines.Inline); err != nil {
				t.Errorf("%s: %s: %v", l.At(), l.Text, err)
			}
		}
	}
	walk(rootCmd(), func(c *cobra.Command) {
		lines, err := doclines.Of(c.CommandPath()+" --help", "```sh\n"+strings.TrimRight(c.Example, "\n")+"\n```")
		if err != nil {
			t.Error(err)
		}
		for _, l := range lines {
			n++
			if err := checkLine(l.Text, false); err != nil {
				t.Errorf("%s: %s: %v", l.At(), l.Text, err)
			}
		}
	})
	if n < 100 {
		t.Errorf("%d commands: the pages are not read as they are written", n)
	}
}

// TestPageChecksAreStrict: what is not there is found.
func TestPageChecksAreStrict(t *testing.T) {
	for line, want := range map[string]string{
		"character train captain":                        `there is no command "train"`,
		"character data mend captain":                    "data mend",
		"character run captain --epochs 3":               "unknown flag: --epochs",
		"character run captain --set dpo.epoch=3":        "unknown field",
		"character gc --older-than soon":                 "invalid argument",
		"character runs compare one":                     "accepts 2 arg",
		"character doctor now":                           "unknown command",
		"X=1 bin/character status | bin/character chatt": `"chatt"`,
		"make demos":                          "no target demos",
		"make demo TEACHERS=local":            "TEACHERS",
		"bench/nothing.py --times 3":          "no such file",
		"bench/compare.py --times 3 --colour": "does not know --colour",
		"bench-venv/bin/python bench/open_elsewhere.py --everything":                           "does not know --everything",
		"go run ./bench/soak -minutes 3":                                                       "does not know -minutes",
		"go run ./bench/nothing":                                                               "no Go code",
		"go test -run TestNothingAtAll ./cmd/character":                                        "there is no TestNothingAtAll",
		"bin/chaos -colour":                                                                    "does not know -colour",
		"temporal workflow begin --type X":                                                     "not known",
		"temporal workflow start --kind X":                                                     "has no --kind",
		"temporal workflow start --type Character --task-queue character":                      "none of",
		"temporal workflow start --task-queue characters":                                      "none of",
		`temporal workflow start --type CharacterTraining --input '{"constitutoin":"x"}'`:      "unknown field",
		`tctl workflow start --workflow_type CharacterTraining -i '{"dpo":{"epochs":-1}}'`:     "dpo.epochs",
		"temporal workflow query --workflow-id x --type weather":                               "none of",
		"temporal workflow update execute --workflow-id x --name stop":                         "none of",
		`temporal workflow update execute --name adjust --input '{"dpo.epoch":1}'`:             `unknown field "epoch"`,
		`temporal workflow update execute --name finish-early --input '{"stage":"breakfast"}'`: "finish-early",
		`temporal workflow list --query 'CharacterColour="red"'`:                               "CharacterColour",
		"frobnicate --all":       "nothing is known",
		"character run 'captain": "not closed",
	} {
		if err := checkLine(line, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	for _, line := range []string{"character", "character COMMAND --help", "character adjust ID KEY=VALUE", "character finish-early ID [STAGE]", "it's", "other thing"} {
		if err := checkLine(line, true); err != nil {
			t.Errorf("inline %s: %v", line, err)
		}
	}
	if err := checkLine("character frob", true); err == nil {
		t.Error("inline commands are not checked")
	}
}
