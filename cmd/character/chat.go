package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/sample"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

func chatCmd() *cobra.Command {
	var f modelFlags
	var s samplingFlags
	c := &cobra.Command{
		Use:     "chat --id ID",
		Short:   "Talk to a run's base, dpo or character model",
		Long:    "Talk to one of a run's models; no constitution is in the prompt. Empty line or Ctrl-D ends, /new begins a new conversation.",
		Example: "  character chat --id captain\n  character chat --id captain --model base --temperature 0",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.in = "-"
			if err := f.check(); err != nil {
				return err
			}
			e, err := open(cmd)
			if err != nil {
				return err
			}
			defer e.close()
			m, stack, err := f.load(cmd, e)
			if err != nil {
				return err
			}
			return talk(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), m, stack, s, f.which+"> ")
		},
	}
	c.Flags().StringVar(&f.id, "id", "", "the run")
	c.Flags().StringVar(&f.which, "model", activities.WhichCharacter, "base, dpo or character")
	s.add(c, .3, 256)
	return c
}

func talk(ctx context.Context, in io.Reader, out io.Writer, m *activities.Loaded, stack []*transformer.Adapter, s samplingFlags, name string) error {
	var msgs []chat.Message
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, 1<<20)
	for turn := uint64(0); ; turn++ {
		fmt.Fprint(out, "you> ")
		if !sc.Scan() {
			fmt.Fprintln(out)
			return sc.Err()
		}
		line := strings.TrimSpace(sc.Text())
		switch line {
		case "":
			return nil
		case "/new":
			msgs = nil
			continue
		}
		msgs = append(msgs, chat.Message{Role: "user", Content: line})
		ids, err := m.Chat.Prompt(msgs)
		if err != nil {
			return err
		}
		fmt.Fprint(out, name)
		st := m.Tokens.NewStream()
		// Ctrl-C ends the answer, not the conversation.
		actx, stop := signal.NotifyContext(ctx, os.Interrupt)
		var answer string
		err = sample.Generate(actx, m.Model, stack, []sample.Request{{Key: turn, Prompt: ids, Params: s.params(m)}},
			sample.Options{Decode: m.Tokens.DecodeText, OnToken: func(_ int, t int32) { fmt.Fprint(out, st.Push(t)) }},
			func(_ int, r sample.Result) error {
				answer = m.Tokens.DecodeText(r.Tokens)
				if r.Finish == "context" {
					answer += "\n(the model's context is full: /new begins a new conversation)"
				}
				return nil
			})
		stop()
		fmt.Fprintln(out)
		if err != nil && actx.Err() == nil {
			return err
		}
		msgs = append(msgs, chat.Message{Role: "assistant", Content: answer})
	}
}
