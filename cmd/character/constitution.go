package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/constitution"
)

func constitutionCmd() *cobra.Command {
	c := &cobra.Command{Use: "constitution", Short: "List, show, check and begin constitutions"}
	c.AddCommand(&cobra.Command{Use: "list", Short: "List the built-in characters", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		for _, n := range constitution.Builtin() {
			x, err := constitution.Load(n)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%-14s %s\n", n, x.Description)
		}
		return nil
	}}, &cobra.Command{Use: "show NAME|FILE", Short: "Show traits, questions and the prompts made of them", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		x, err := constitution.Load(args[0])
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		fmt.Fprintf(out, "%s: %s\nsha256 %s\n\n", x.Name, x.Description, x.SHA256)
		for i, t := range x.Traits {
			fmt.Fprintf(out, "%2d. %s\n", i+1, t.Text)
			for _, q := range t.Questions {
				fmt.Fprintf(out, "      ? %s\n", q)
			}
		}
		_, err = fmt.Fprintf(out, "\nTeacher's system prompt (full):\n%s\n\nTeacher's system prompt (short):\n%s\n", x.TeacherSystem(), x.TeacherSystemShort())
		return err
	}}, &cobra.Command{Use: "check FILE", Short: "Check a constitution and say what to mend", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		x, err := constitution.Load(args[0])
		if err != nil {
			return err
		}
		for _, f := range x.Check() {
			fmt.Fprintln(cmd.OutOrStdout(), "note:", f)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d traits, %d examples: usable\n", args[0], len(x.Traits), len(x.Examples))
		return err
	}}, &cobra.Command{Use: "new NAME", Short: "Print a commented template to begin with", Example: "  character constitution new my-character > my-character.yaml", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		_, err := cmd.OutOrStdout().Write(constitution.Template(args[0]))
		return err
	}})
	return c
}
