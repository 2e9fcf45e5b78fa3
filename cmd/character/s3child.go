package main

import (
	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/testenv/s3server"
)

// s3ChildCmd is the embedded S3 server's process, which `character up` starts and keeps alive.
func s3ChildCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "_s3",
		Hidden: true,
		Args:   cobra.ArbitraryArgs,
		RunE:   func(_ *cobra.Command, args []string) error { return s3server.ServeChild(args) },
	}
}
