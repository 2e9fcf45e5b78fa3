package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/tensor"
)

// versionInfo is what `version --json` prints.
type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"` // with "+changes" when the tree had any
	Time     string `json:"time,omitempty"`   // of the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Kernels  string `json:"kernels"` // bits of a run depend on it
	Temporal string `json:"temporal_server"`
	SDK      string `json:"temporal_sdk"`
	UI       string `json:"temporal_ui"`
}

func versionCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print version, commit and kernels",
		Long:    "Print this program's version and commit, the kernels chosen for this CPU, and the Temporal releases inside.",
		Example: "  character version\n  character version --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := readVersion()
			if asJSON {
				return printJSON(cmd.OutOrStdout(), v)
			}
			return v.print(cmd.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func readVersion() versionInfo {
	v := versionInfo{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Kernels: tensor.Variant()}
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if b.Main.Version != "" {
		v.Version = b.Main.Version
	}
	for _, s := range b.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value + v.Commit
		case "vcs.modified":
			if s.Value == "true" {
				v.Commit += "+changes"
			}
		case "vcs.time":
			v.Time = s.Value
		}
	}
	for _, d := range b.Deps {
		switch d.Path {
		case "go.temporal.io/server":
			v.Temporal = d.Version
		case "go.temporal.io/sdk":
			v.SDK = d.Version
		case "github.com/temporalio/ui-server/v2":
			v.UI = d.Version
		}
	}
	return v
}

func (v versionInfo) print(out io.Writer) error {
	commit := ""
	if v.Commit != "" {
		commit = ", commit " + v.Commit
	}
	_, err := fmt.Fprintf(out, "character %s%s\n  kernels   %s\n  built     %s %s\n  Temporal  server %s, UI %s, SDK %s\n",
		v.Version, commit, v.Kernels, v.Go, v.Platform, v.Temporal, v.UI, v.SDK)
	return err
}
