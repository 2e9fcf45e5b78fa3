package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var updatePages = flag.Bool("update", false, "write docs/reference/flags.md instead of comparing with it")

// TestFlagReference: docs/reference/flags.md has every command with every flag. `make docs` writes it.
func TestFlagReference(t *testing.T) {
	for _, kv := range os.Environ() { // defaults of flags
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "CHARACTER_") || strings.HasPrefix(name, "TEMPORAL_") || strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	path := filepath.Join(root, "docs", "reference", "flags.md")
	want := flagReference()
	if *updatePages {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil || string(have) != want {
		t.Errorf("docs/reference/flags.md is not what the commands say (%v): make docs writes it again", err)
	}
	if n := strings.Count(want, "\n| `--"); n < 120 {
		t.Errorf("%d flags: the walk does not see them all", n)
	}
}

func flagReference() string {
	var b strings.Builder
	b.WriteString("# Every flag\n\nMade of the commands by `make docs`: change their code, not this page. What the commands are for, with examples: [cli.md](../cli.md) and\n" +
		"`character COMMAND --help`.\n\n## Of every command\n\n")
	tree := rootCmd()
	flagTable(&b, tree.PersistentFlags())
	walk(tree, func(c *cobra.Command) {
		if c.Hidden || c == tree {
			return
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s. `%s`\n", c.CommandPath(), c.Short, strings.TrimSuffix(c.UseLine(), " [flags]"))
		if c.LocalNonPersistentFlags().HasAvailableFlags() {
			b.WriteString("\n")
			flagTable(&b, c.LocalNonPersistentFlags())
		}
	})
	return b.String()
}

func flagTable(b *strings.Builder, flags *pflag.FlagSet) {
	b.WriteString("| flag | value | default | meaning |\n|---|---|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		typ, usage := pflag.UnquoteUsage(f)
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name += ", `-" + f.Shorthand + "`"
		}
		value := f.DefValue
		if value == "[]" || value == "" || typ == "" && value == "false" {
			value = ""
		} else {
			value = "`" + value + "`"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", name, typ, value, strings.NewReplacer("|", "\\|", "\n", " ").Replace(usage))
	})
}
