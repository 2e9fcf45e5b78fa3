package doclines

import (
	"slices"
	"strings"
	"testing"
)

const page = "# Title\n\nType `character status` or `x`.\n\n```sh\n# only a comment\ncharacter run captain   # start it\ncharacter score \\\n    --id captain\n\nA='#1' make demo\n```\n\n" +
	"```console\n$ character doctor; echo done\nAll well\n```\n```json\n{\"character\": 1}\n```\n| `character up` | a |\n~~~ text\ncharacter nothing\n~~~\n"

func TestOf(t *testing.T) {
	got, err := Of("p.md", page)
	want := []Line{
		{"p.md", 3, Inline, "character status"}, {"p.md", 3, Inline, "x"}, {"p.md", 7, Block, "character run captain"}, {"p.md", 8, Block, "character score --id captain"},
		{"p.md", 11, Block, "A='#1' make demo"}, {"p.md", 15, Console, "character doctor; echo done"}, {"p.md", 21, Inline, "character up"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"a\n```\nx\n```\n":      "p.md:2: a block without a word",
		"```sh\nx\n":            "p.md:1: this block is not closed",
		"```sh\na\nx \\\n```\n": "p.md:3: a command ends in a backslash",
	} {
		if _, err := Of("p.md", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestCommands(t *testing.T) {
	got, err := Commands(`A=1 temporal --input '{"a":"b c"}' "x y" a\ b '' | jq . >> out x; B=2; make N=3 &`)
	want := [][]string{{"temporal", "--input", `{"a":"b c"}`, "x y", "a b", ""}, {"jq", ".", "x"}, {"make", "N=3"}}
	if err != nil || !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{`a "b`, `a 'b`, `a \`} {
		if _, err := Commands(bad); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	if got := WithoutComment(`a#b "# c" # d`); got != `a#b "# c" ` {
		t.Errorf("%q", got)
	}
}

func FuzzOf(f *testing.F) {
	f.Add(page)
	f.Fuzz(func(t *testing.T, text string) {
		lines, err := Of("p", text)
		if err != nil && lines != nil {
			t.Error("lines beside an error")
		}
		for _, l := range lines {
			if l.Text == "" || strings.Contains(l.Text, "\n") || l.N < 1 || l.N > strings.Count(text, "\n")+1 {
				t.Errorf("%+v", l)
			}
			if cs, err := Commands(l.Text); err == nil && len(cs) > len(l.Text) {
				t.Errorf("%q of %q", cs, l.Text)
			}
		}
	})
}
