package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/lm/hub"
)

func modelCmd() *cobra.Command {
	c := &cobra.Command{Use: "model", Short: "Get and look at models", Long: "Models are kept in the user's cache folder, outside any project; --models DIR (or CHARACTER_MODELS) changes it."}
	c.AddCommand(&cobra.Command{Use: "pull NAME", Short: "Get a known model", Example: "  character model pull smollm2-135m-instruct", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return pull(cmd.Context(), cmd, args[0])
	}}, &cobra.Command{Use: "ls", Short: "List the models on this machine", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		have, err := hub.List(hubOptions(cmd))
		if err != nil {
			return err
		}
		here := map[string]bool{}
		for _, m := range have {
			here[m.Name] = true
			fmt.Fprintf(cmd.OutOrStdout(), "%-28s %8.1f MB  sha256 %s\n  %s\n", m.Name, float64(m.Size)/1e6, m.SHA256, m.Path)
		}
		for _, k := range hub.Known() {
			if !here[k.Name] {
				fmt.Fprintf(cmd.OutOrStdout(), "%-28s not here; get it: character model pull %s\n", k.Name, k.Name)
			}
		}
		return nil
	}}, &cobra.Command{Use: "inspect NAME|PATH", Short: "Describe a model file or folder", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
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
