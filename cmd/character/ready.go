package main

import (
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/cmd/internal/telemetry"
)

func readyCmd() *cobra.Command {
	var address string
	c := &cobra.Command{
		Use:   "ready",
		Short: "Ask a worker whether it can work",
		Long: `Ask a process that was started with --metrics-address whether it can work: it serves, and Temporal and the bucket answer it.
Exit code 0 says yes; otherwise one line says why not. It is made for the health checks of containers, which have no
other program that could ask.`,
		Example: "  character worker --metrics-address 127.0.0.1:9464\n  character ready --address 127.0.0.1:9464",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, _, err := net.SplitHostPort(address); err != nil {
				return usage(fmt.Errorf("--address %q: want HOST:PORT, such as 127.0.0.1:9464", address))
			}
			if err := telemetry.Ask(cmd.Context(), address); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "ready")
			return err
		},
	}
	c.Flags().StringVar(&address, "address", "127.0.0.1:9464", "the process's --metrics-address")
	return c
}
