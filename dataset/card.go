package dataset

import (
	"fmt"
	"strings"
)

// Card returns the README.md of a dataset folder, with one Hugging Face configuration for each table. The data of a table are the files
// <table>/train-*.parquet. The first table is the default.
func Card(name string, tables ...string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "---\npretty_name: %s\ntask_categories:\n- text-generation\ntags:\n- character-training\n", yamlString(name))
	for _, t := range tables {
		if t == "dpo" {
			b.WriteString("- dpo\n")
		}
	}
	if len(tables) > 0 {
		b.WriteString("configs:\n")
	}
	for i, t := range tables {
		fmt.Fprintf(&b, "- config_name: %s\n", yamlString(t))
		if i == 0 {
			b.WriteString("  default: true\n")
		}
		fmt.Fprintf(&b, "  data_files:\n  - split: train\n    path: %s\n", yamlString(t+"/train-*.parquet"))
	}
	fmt.Fprintf(&b, "---\n\n# %s\n\n", oneLine(name))
	b.WriteString("Made by character training: a constitution (the character as first-person traits) shaped these rows; it is not needed to use them.\n\n")
	for _, t := range tables {
		switch t {
		case "dpo":
			b.WriteString("- `dpo`: preference pairs. `prompt`, `chosen` and `rejected` are lists of messages: chosen answered in character, rejected without it.\n")
		case "introspection", "sft":
			fmt.Fprintf(&b, "- `%s`: the character about itself. `messages` holds a reflection (one question, one answer) or an interaction (two copies talk).\n", oneLine(t))
		default:
			fmt.Fprintf(&b, "- `%s`\n", oneLine(t))
		}
	}
	b.WriteString("\nThe other columns tell where a row comes from. Counts of what was left out, by reason: `__meta/manifest.json`.\n")
	if len(tables) > 0 {
		fmt.Fprintf(&b, "\n```python\nfrom datasets import load_dataset\n\nrows = load_dataset(\"path/to/this/folder\", %q, split=\"train\")\n```\n", tables[0])
	}
	return []byte(b.String())
}

func oneLine(s string) string { return strings.Join(strings.Fields(strings.ToValidUTF8(s, "")), " ") }

// yamlString quotes s for YAML: a double-quoted YAML string takes every JSON escape.
func yamlString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(oneLine(s)) + `"`
}
