package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/cmd/internal/telemetry"
)

// observed are the flags of commands that live long: how they are watched.
type observed struct {
	metrics telemetry.Metrics
	logs    telemetry.Logs
}

func (o *observed) register(c *cobra.Command) {
	o.metrics.Register(c.Flags())
	o.logs.Register(c.Flags())
}

func (o observed) check() error {
	if err := o.metrics.Check(); err != nil {
		return usage(err)
	}
	if err := o.logs.Check(); err != nil {
		return usage(err)
	}
	return nil
}

// start checks the flags, begins to log and to count. With --log-format json all that the command says is logged.
func (o observed) start(cmd *cobra.Command) (*telemetry.Running, error) {
	if err := o.startLogs(cmd); err != nil {
		return nil, err
	}
	return o.metrics.Start("character")
}

func (o observed) startLogs(cmd *cobra.Command) error {
	if err := o.check(); err != nil {
		return err
	}
	logger, err := o.logs.Start(cmd.ErrOrStderr())
	if err != nil || !o.logs.JSON() {
		return err
	}
	root := cmd.Root()
	root.SetOut(telemetry.Lines(logger, slog.LevelInfo))
	root.SetErr(telemetry.Lines(logger, slog.LevelWarn))
	lastWords = func(err error) { logger.Error(err.Error()) }
	return nil
}

// args hand the flags of logging on to another process of ours.
func (o observed) args() []string {
	args := []string{"--log-format", o.logs.Format}
	if o.logs.Level != "" {
		args = append(args, "--log-level", o.logs.Level)
	}
	if o.metrics.Address != "" {
		args = append(args, "--metrics-address", o.metrics.Address)
	}
	if o.metrics.Remote {
		args = append(args, "--metrics-remote")
	}
	return args
}
