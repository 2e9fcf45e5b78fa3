package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

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
		Long:    "Talk to one of a run's models; no constitution is in the prompt. Empty line or Ctrl-D ends, Ctrl-C ends an answer, /new begins a new conversation.",
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
	f.addWeights(c)
	s.add(c, .3, 256)
	return c
}

// talk is the conversation. Ctrl-C ends an answer that is being given, and the conversation when none is.
func talk(ctx context.Context, in io.Reader, out io.Writer, m *activities.Loaded, stack []*transformer.Adapter, s samplingFlags, name string) error {
	// The program's own context ends at the first Ctrl-C, which would end all later answers too.
	ctx = context.WithoutCancel(ctx)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(stop)
	lines, failed := readLines(in)
	var msgs []chat.Message
	for turn := uint64(0); ; turn++ {
		fmt.Fprint(out, "you> ")
		var line string
		select {
		case <-stop:
			fmt.Fprintln(out)
			return nil
		case l, ok := <-lines:
			if !ok {
				fmt.Fprintln(out)
				return <-failed
			}
			line = strings.TrimSpace(l)
		}
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
		answer, finish, sig, err := say(ctx, stop, out, m, stack, sample.Request{Key: turn, Prompt: ids, Params: s.params(m)})
		fmt.Fprintln(out)
		if err != nil || sig == syscall.SIGTERM {
			return err
		}
		if finish == sample.FinishContext {
			fmt.Fprintln(out, "(the model's context is full: /new begins a new conversation)")
		}
		msgs = append(msgs, chat.Message{Role: "assistant", Content: answer})
	}
}

// say streams one answer until it ends or a signal ends it; what was said until then counts.
func say(ctx context.Context, stop <-chan os.Signal, out io.Writer, m *activities.Loaded, stack []*transformer.Adapter, r sample.Request) (answer, finish string, sig os.Signal, err error) {
	ctx, cancel := context.WithCancel(ctx)
	heard := make(chan os.Signal, 1)
	go func() {
		select {
		case s := <-stop:
			heard <- s
			cancel()
		case <-ctx.Done():
		}
		close(heard)
	}()
	var tokens []int32
	st := m.Tokens.NewStream()
	err = sample.Generate(ctx, m.Model, stack, []sample.Request{r},
		sample.Options{OnToken: func(_ int, t int32) {
			tokens = append(tokens, t)
			fmt.Fprint(out, st.Push(t))
		}},
		func(_ int, r sample.Result) error {
			tokens, finish = r.Tokens, r.Finish
			return nil
		})
	fmt.Fprint(out, st.Flush())
	cancel()
	if sig = <-heard; sig != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	return m.Tokens.DecodeText(tokens), finish, sig, err
}

// readLines reads in the background, so that a signal is heard while nobody types.
func readLines(in io.Reader) (<-chan string, <-chan error) {
	lines, failed := make(chan string), make(chan error, 1)
	go func() {
		sc := bufio.NewScanner(in)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			lines <- sc.Text()
		}
		failed <- sc.Err()
		close(lines)
	}()
	return lines, failed
}
