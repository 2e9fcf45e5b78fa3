package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
)

// historyCmd prints a workflow's history as JSON. Recorded histories of released workflows are replayed by a test, so
// that a change that would break running runs is found before it is deployed.
func historyCmd() *cobra.Command {
	return &cobra.Command{Use: "_history WORKFLOW-ID [RUN-ID]", Hidden: true, Args: cobra.RangeArgs(1, 2), RunE: func(cmd *cobra.Command, args []string) error {
		e, err := open(cmd)
		if err != nil {
			return err
		}
		defer e.close()
		var h history.History
		run := "" // the newest: a workflow that went on in a new history has several
		if len(args) == 2 {
			run = args[1]
		}
		it := e.client.GetWorkflowHistory(cmd.Context(), args[0], run, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for it.HasNext() {
			ev, err := it.Next()
			if err != nil {
				return fmt.Errorf("history of %s: %w", args[0], err)
			}
			h.Events = append(h.Events, ev)
		}
		b, err := temporalproto.CustomJSONMarshalOptions{Indent: " "}.Marshal(&h)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", b)
		return err
	}}
}
