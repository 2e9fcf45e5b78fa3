// Command character trains a character into a language model, on this machine or against a cluster.
//
// Each command is one file. This package alone reads the environment, and hands what it finds down as values.
// Start reading at main, then up.go (everything on one machine) or run.go (one run).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/cmd/internal/telemetry"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

func main() { os.Exit(execute()) }

func execute() int {
	// The first Ctrl-C asks a command to end in order, the second ends it. For a second they count as one: timeout(1)
	// and others signal the process and then its group.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() {
		time.Sleep(time.Second)
		stop()
	})

	if dir := os.Getenv("CHARACTER_HEAP_PROFILES"); dir != "" {
		go heapProfiles(ctx, dir, os.Args[1:])
	}
	telemetry.Quiet()
	err := rootCmd().ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	lastWords(err)
	if isUsage(err) {
		return exitUsage
	}
	return exitFailure
}

// lastWords says why the program ends. A command that logs in JSON says it so.
var lastWords = func(err error) { fmt.Fprintln(os.Stderr, "character:", err) }

func rootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "character",
		Short: "Train a character into a language model",
		Long: `character turns a constitution (a character written as first-person traits) into a language model whose
character is the default: nothing about it is left in the prompt.

It makes preference pairs and trains on them (DPO), lets the model reflect on itself and trains on that (SFT), then
measures and exports. All of it is a Temporal workflow: it survives Ctrl-C, kill -9 and a reboot, and you can watch
and pause it from the command line or in the Temporal UI.

The first three commands:

  character run captain              train the built-in captain on a small model (minutes on two cores)
  character chat --id captain        talk to it
  character up                       start everything and leave it running: Temporal with its UI, S3, a worker

Everything is kept under one data directory, --data.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := ""
			if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
				hint = fmt.Sprintf(" Did you mean %s?", strings.Join(s, " or "))
			}
			return usage(fmt.Errorf("there is no command %q.%s `character --help` lists them", args[0], hint))
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	f := root.PersistentFlags()
	f.String("data", envOr("CHARACTER_DATA", ".character"), "data directory of the local stack (CHARACTER_DATA)")
	f.String("models", os.Getenv("CHARACTER_MODELS"), "directory of models (CHARACTER_MODELS; empty: the user's cache)")
	addConnectFlags(f)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w; `%s --help` explains", err, cmd.CommandPath()))
	})
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Train a character:"},
		&cobra.Group{ID: "use", Title: "Use what was trained:"},
		&cobra.Group{ID: "machine", Title: "The machinery:"},
	)
	addGroup(root, "run", runCmd(), planCmd(), statusCmd(), pauseCmd(), resumeCmd(), adjustCmd(), finishEarlyCmd(), cancelCmd(), runsCmd(), constitutionCmd())
	addGroup(root, "use", chatCmd(), serveCmd(), dataCmd(), generateCmd(), scoreCmd(), exportCmd())
	addGroup(root, "machine", upCmd(), workerCmd(), readyCmd(), codecCmd(), modelCmd(), doctorCmd(), repairCmd(), gcCmd(), completionCmd(), versionCmd())
	root.AddCommand(s3ChildCmd(), historyCmd())
	checkArgs(root)
	addCompletion(root)
	return root
}

func addGroup(root *cobra.Command, id string, cmds ...*cobra.Command) {
	for _, c := range cmds {
		c.GroupID = id
		root.AddCommand(c)
	}
}

// checkArgs makes wrong arguments of every command a usage error.
func checkArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil && !isUsage(err) {
				return usage(fmt.Errorf("%w; `%s --help` explains", err, cmd.CommandPath()))
			} else if err != nil {
				return err
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		checkArgs(c)
	}
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// usage marks err as a mistake on the command line: exit code 2.
func usage(err error) error { return usageError{err} }

func isUsage(err error) bool {
	var u usageError
	return errors.As(err, &u) || strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "required flag")
}

func envOr(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}
