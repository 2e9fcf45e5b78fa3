package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/testenv/stack"
)

var shells = []string{"bash", "zsh", "fish", "powershell"}

func completionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that completes commands, flags, runs and characters in your shell",
		Long: `Print the completion script of a shell. It completes commands, flags, built-in characters, presets, fields of --set, known
models, and the runs and data sets of the data directory, which it reads from its files: no server is asked.`,
		Example: `  source <(character completion bash)
  character completion bash > ~/.local/share/bash-completion/completions/character
  character completion zsh > "${fpath[1]}/_character"
  character completion fish > ~/.config/fish/completions/character.fish
  character completion powershell | Out-String | Invoke-Expression`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			}
			return usage(fmt.Errorf("shell %q is not known; give %s", args[0], strings.Join(shells, ", ")))
		},
	}
}

// words gives what can stand at a place, of which the shell takes those that begin with what was typed.
type words func(cmd *cobra.Command) []string

// completed are arguments, by the command's name after "character".
var completed = map[string]words{
	"status": localRuns, "pause": localRuns, "resume": localRuns, "cancel": localRuns, "export": localRuns, "repair": localRuns, "chat": localRuns,
	"runs compare": localRuns, "runs remove": localRuns, "data ls": localRuns,
	"data show": localSets, "data stats": localSets, "data export": localSets, "data import": func(*cobra.Command) []string { return nil },
	"run": characters, "plan": characters, "constitution show": characters, "constitution check": characters,
	"model pull": knownModels, "model inspect": knownModels,
}

// withFiles are commands whose argument may also be a file.
var withFiles = map[string]bool{"run": true, "plan": true, "constitution show": true, "constitution check": true, "model inspect": true, "data import": true}

// addCompletion gives every command its words; it is called when the tree is whole.
func addCompletion(root *cobra.Command) {
	root.CompletionOptions.DisableDefaultCmd = true
	for name, w := range completed {
		c, _, err := root.Find(strings.Fields(name))
		if err != nil || c == root {
			continue // TestCompletion finds names that no command has
		}
		files := cobra.ShellCompDirectiveNoFileComp
		if withFiles[name] {
			files = cobra.ShellCompDirectiveDefault
		}
		c.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if most := map[string]int{"runs compare": 2}[name]; len(args) >= max(most, 1) {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return beginning(w(cmd), typed), files
		}
	}
	walk(root, func(c *cobra.Command) {
		flags := map[string]words{"id": localRuns, "preset": func(*cobra.Command) []string { return spec.Presets() }, "set": specFields,
			"format": func(*cobra.Command) []string { return dataFormats }, "kind": func(*cobra.Command) []string { return []string{tableDPO, tableIntrospection} }, "pairs": localSets, "introspection": localSets, "weights": func(*cobra.Command) []string { return []string{"bf16", "quantized"} }, "model": knownModels}
		if c.Flags().Lookup("weights") != nil || c.Name() == "score" {
			flags["model"] = func(*cobra.Command) []string { return activities.WhichModels() }
		}
		for name, w := range flags {
			if c.Flags().Lookup(name) == nil {
				continue
			}
			after := cobra.ShellCompDirectiveNoFileComp
			switch {
			case name == "set":
				after |= cobra.ShellCompDirectiveNoSpace
			case name == "pairs" || name == "introspection" || name == "model" && c.Flags().Lookup("weights") == nil:
				after = cobra.ShellCompDirectiveDefault
			}
			_ = c.RegisterFlagCompletionFunc(name, func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
				return beginning(w(cmd), typed), after
			}) // fails for a flag that is not there or has one
		}
	})
}

func walk(c *cobra.Command, do func(*cobra.Command)) {
	do(c)
	for _, sub := range c.Commands() {
		walk(sub, do)
	}
}

func beginning(all []string, typed string) []string {
	return slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, typed) })
}

// localRuns are the runs whose record is in the data directory.
func localRuns(cmd *cobra.Command) []string {
	heads, _ := filepath.Glob(filepath.Join(dataDir(cmd), "s3", stack.Bucket, "runs", "*", "HEAD.json")) // a bad pattern completes nothing
	var out []string
	for _, h := range heads {
		out = append(out, filepath.Base(filepath.Dir(h)))
	}
	return out
}

// stageFolder is a data set folder that is named by its stage, not by the user.
var stageFolder = regexp.MustCompile(`-(dpo|introspection)-[0-9a-f]{32}$`)

func localSets(cmd *cobra.Command) []string {
	var out []string
	for _, id := range localRuns(cmd) {
		out = append(out, id+"/"+tableDPO, id+"/"+tableIntrospection)
	}
	imports, _ := filepath.Glob(filepath.Join(dataDir(cmd), "s3", stack.Bucket, "datasets", "*", "__meta", "manifest.json"))
	for _, m := range imports {
		if name := filepath.Base(filepath.Dir(filepath.Dir(m))); !stageFolder.MatchString(name) {
			out = append(out, name)
		}
	}
	return out
}

func characters(*cobra.Command) []string { return slices.Clone(constitution.Builtin()) }

func knownModels(*cobra.Command) []string {
	var out []string
	for _, k := range hub.Known() {
		out = append(out, k.Name)
	}
	return out
}

// specFields are the fields of a spec, ready for a value.
func specFields(*cobra.Command) []string {
	s, err := spec.Resolve(nil)
	if err != nil {
		return nil
	}
	raw, err := s.Full()
	if err != nil {
		return nil
	}
	var tree map[string]any
	if json.Unmarshal(raw, &tree) != nil {
		return nil
	}
	fields := map[string]any{}
	flatten(fields, "", tree)
	out := slices.Sorted(maps.Keys(fields))
	for i := range out {
		out[i] += "="
	}
	return out
}
