package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/lm/hub"
)

func modelCmd() *cobra.Command {
	c := &cobra.Command{Use: "model", Short: "Get and look at models", Long: "Models are kept in the user's cache folder, outside any project; --models DIR (or CHARACTER_MODELS) changes it.",
		Example: "  character model ls\n  character model pull smollm2-135m-instruct"}
	var asJSON bool
	ls := &cobra.Command{Use: "ls", Short: "List the models on this machine", Long: "List the models that are here, and the known ones that can be had.",
		Example: "  character model ls\n  character model ls --json", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return listModels(cmd, asJSON)
		}}
	ls.Flags().BoolVar(&asJSON, "json", false, `print {"models":[...],"not_here":[...]} for scripts`)
	c.AddCommand(ls, &cobra.Command{Use: "pull NAME", Short: "Get a known model", Long: "Fetch a known model and check it against its pinned sha256. `character model ls` names those that are known.", Example: "  character model pull smollm2-135m-instruct", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return pull(cmd.Context(), cmd, args[0])
	}}, &cobra.Command{Use: "inspect NAME|PATH", Short: "Describe a model file or folder", Long: "Print a model's architecture, sizes, tokenizer and chat template as JSON. No weights are read.",
		Example: "  character model inspect smollm2-135m-instruct\n  character model inspect ~/models/qwen3-0.6b", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			m, err := hub.Resolve(args[0], hubOptions(cmd))
			if err != nil {
				return err
			}
			info, err := hub.Inspect(m.Path)
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), map[string]any{"name": m.Name, "path": m.Path, "sha256": m.SHA256, "size": m.Size, "info": info})
		}})
	return c
}

func listModels(cmd *cobra.Command, asJSON bool) error {
	have, err := hub.List(hubOptions(cmd))
	if err != nil {
		return err
	}
	here := map[string]bool{}
	for _, m := range have {
		here[m.Name] = true
	}
	missing := []string{}
	for _, k := range hub.Known() {
		if !here[k.Name] {
			missing = append(missing, k.Name)
		}
	}
	out := cmd.OutOrStdout()
	if asJSON {
		type model struct {
			Name   string `json:"name"`
			Path   string `json:"path"`
			Bytes  int64  `json:"bytes"`
			SHA256 string `json:"sha256"`
		}
		models := []model{}
		for _, m := range have {
			models = append(models, model{m.Name, m.Path, m.Size, m.SHA256})
		}
		return printJSON(out, map[string]any{"models": models, "not_here": missing})
	}
	for _, m := range have {
		fmt.Fprintf(out, "%-28s %8.1f MB  sha256 %s\n  %s\n", m.Name, float64(m.Size)/1e6, m.SHA256, m.Path)
	}
	for _, name := range missing {
		fmt.Fprintf(out, "%-28s not here; get it: character model pull %s\n", name, name)
	}
	return nil
}

func pull(ctx context.Context, cmd *cobra.Command, name string) error {
	o := hubOptions(cmd)
	out := cmd.OutOrStdout()
	last := -1
	o.Progress = func(_ string, done, total int64) {
		if total > 0 && int(done*10/total) != last {
			last = int(done * 10 / total)
			fmt.Fprintf(out, "  %3d %%  %.1f of %.1f MB\n", done*100/total, float64(done)/1e6, float64(total)/1e6)
		}
	}
	fmt.Fprintf(out, "Getting %s ...\n", name)
	m, err := hub.Pull(ctx, name, o)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s is at %s\n  sha256 %s (as pinned)\n", name, m.Path, m.SHA256)
	return err
}

// ensureModel checks that the model is here, getting a known one that is not.
func ensureModel(ctx context.Context, cmd *cobra.Command, nameOrPath string) error {
	_, err := hub.Resolve(nameOrPath, hubOptions(cmd))
	if err == nil || !hub.IsKnown(nameOrPath) {
		return err
	}
	return pull(ctx, cmd, nameOrPath)
}
