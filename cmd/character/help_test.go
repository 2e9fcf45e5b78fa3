package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/testenv/stack"
)

// TestEveryCommandTeaches: each command says at length what it does and shows an example of itself; docs/cli.md has a line for it.
func TestEveryCommandTeaches(t *testing.T) {
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	walk(rootCmd(), func(c *cobra.Command) {
		if c.Hidden || c == c.Root() {
			return
		}
		n++
		path := c.CommandPath()
		if c.Short == "" || c.Long == "" {
			t.Errorf("%s: its help says too little: Short %q, Long %q", path, c.Short, c.Long)
		}
		if !strings.Contains(c.Example, path) {
			t.Errorf("%s: its help has no example of it: %q", path, c.Example)
		}
		if strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: Short ends in a full stop", path)
		}
		if len(c.Commands()) == 0 && !bytes.Contains(page, []byte("`"+path+" ")) && !bytes.Contains(page, []byte("`"+path+"`")) {
			t.Errorf("%s: docs/cli.md has no line for it", path)
		}
		for _, line := range strings.Split(c.Long, "\n") {
			if len([]rune(line)) > 160 {
				t.Errorf("%s: a line of its help has %d characters", path, len([]rune(line)))
			}
		}
	})
	if n < 30 {
		t.Errorf("%d commands: the walk does not see them all", n)
	}
}

// completeLine is what the shell is offered after a line.
func completeLine(t *testing.T, args ...string) []string {
	t.Helper()
	root := rootCmd()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs(append([]string{cobra.ShellCompNoDescRequestCmd}, args...))
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, l := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if !strings.HasPrefix(l, ":") && !strings.HasPrefix(l, "Completion ended") {
			words = append(words, l)
		}
	}
	return words
}

// TestCompletion reads files alone: nothing runs on the data directory.
func TestCompletion(t *testing.T) {
	dir := t.TempDir()
	for _, id := range []string{"captain", "sarcastic-2"} {
		at := filepath.Join(dir, "s3", stack.Bucket, "runs", id)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, "HEAD.json"), []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"mine", "captain-dpo-0123456789abcdef0123456789abcdef"} {
		at := filepath.Join(dir, "s3", stack.Bucket, "datasets", name, "__meta")
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, "manifest.json"), []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		line string
		want []string
	}{
		{"chat ", []string{"captain", "sarcastic-2"}},
		{"chat s", []string{"sarcastic-2"}},
		{"chat captain ", nil},
		{"generate --id c", []string{"captain"}},
		{"generate --model d", []string{"dpo"}},
		{"runs compare captain s", []string{"sarcastic-2"}},
		{"runs compare captain captain ", nil},
		{"data show m", []string{"mine"}},
		{"run captain --pairs m", []string{"mine"}},
		{"data import x --kind d", []string{"dpo"}},
		{"data show captain/", []string{"captain/dpo", "captain/introspection"}},
		{"data export --format p", []string{"parquet"}},
		{"run capt", []string{"captain"}},
		{"run --preset p", []string{"paper-scale", "published"}},
		{"run --set dpo.ep", []string{"dpo.epochs=", "dpo.eps="}},
		{"completion z", []string{"zsh"}},
		{"run --model smollm2-135m-i", []string{"smollm2-135m-instruct"}},
	} {
		fields := strings.Fields(c.line)
		if strings.HasSuffix(c.line, " ") {
			fields = append(fields, "")
		}
		if got := completeLine(t, append([]string{"--data", dir}, fields...)...); !slices.Equal(got, c.want) {
			t.Errorf("%q offers %q, want %q", c.line, got, c.want)
		}
	}
	for name := range completed {
		if c, _, err := rootCmd().Find(strings.Fields(name)); err != nil || c.CommandPath() != "character "+name {
			t.Errorf("words for %q, which is no command: %v", name, err)
		}
	}
	for _, shell := range shells {
		root := rootCmd()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs([]string{"completion", shell})
		if err := root.Execute(); err != nil || out.Len() < 1000 {
			t.Errorf("%s: %d bytes, %v", shell, out.Len(), err)
		}
	}
}
