package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
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
	var compare bool
	c := &cobra.Command{
		Use:   "chat ID",
		Short: "Talk to a run's base, dpo or character model",
		Long: `Talk to one of a run's models; no constitution is in the prompt. With --compare all three answer every message, with
the same seed: side by side on a terminal of 90 columns or more, else one below the other. Each remembers what it said
itself.

An empty line or Ctrl-D ends, Ctrl-C ends an answer. On a terminal the arrow keys bring earlier lines back. Lines that
begin with a slash are for the program: /help lists them.

Without a terminal the lines of standard input are the messages, and answers are printed plainly.`,
		Example: `  character chat captain
  character chat captain --compare
  character chat captain --model base --temperature 0
  echo "What do you think about rain?" | character chat captain --compare --seed 7`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.in = "-"
			if err := f.named(args); err != nil {
				return err
			}
			if compare && cmd.Flags().Changed("model") {
				return usage(errors.New("--compare asks all of the run's models: leave --model out"))
			}
			if err := s.check(); err != nil {
				return err
			}
			e, err := open(cmd)
			if err != nil {
				return err
			}
			defer e.close()
			t := &conversation{screen: screenOf(cmd.OutOrStdout()), out: cmd.OutOrStdout(), s: s}
			if err := t.load(cmd, e, f, compare); err != nil {
				return err
			}
			return t.talk(cmd.Context(), cmd.InOrStdin())
		},
	}
	c.Flags().StringVar(&f.id, "id", "", "the run, if it is not the argument")
	c.Flags().StringVar(&f.which, "model", activities.WhichCharacter, "base, dpo or character")
	c.Flags().BoolVar(&compare, "compare", false, "base, dpo and character answer side by side")
	f.addWeights(c)
	s.add(c, .3, 256)
	return c
}

// speaker is one of a run's models in a conversation.
type speaker struct {
	name  string
	stack []*transformer.Adapter
	msgs  []chat.Message // without the system prompt
}

// conversation is what has been said, by one model or by several that are compared.
type conversation struct {
	m        *activities.Loaded
	speakers []*speaker
	system   string
	s        samplingFlags
	out      io.Writer
	screen   screen
}

// load opens the model, which all speakers share, and their adapters.
func (t *conversation) load(cmd *cobra.Command, e *env, f modelFlags, compare bool) error {
	if compare {
		f.which = activities.WhichBase
	}
	m, stack, r, err := f.load(cmd, e)
	if err != nil {
		return err
	}
	t.m, t.speakers = m, []*speaker{{name: f.which, stack: stack}}
	if !compare {
		return nil
	}
	for _, which := range []string{activities.WhichDPO, activities.WhichCharacter} {
		refs, err := r.Stack(which)
		if err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "character: %s is left out: %v\n", which, err)
			continue
		}
		next := &speaker{name: which, stack: append([]*transformer.Adapter{}, stack...)}
		for _, ref := range refs[len(stack):] {
			a, err := activities.ReadAdapter(cmd.Context(), e.store, m.Model, ref)
			if err != nil {
				return err
			}
			next.stack = append(next.stack, a)
		}
		stack = next.stack
		t.speakers = append(t.speakers, next)
	}
	return nil
}

// talk is the conversation. Ctrl-C ends an answer that is being given, and the conversation when none is.
func (t *conversation) talk(ctx context.Context, in io.Reader) error {
	// The program's own context ends at the first Ctrl-C, which would end all later answers too.
	ctx = context.WithoutCancel(ctx)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(stop)
	ask := newAsker(in, t.out)
	for {
		line, err := ask.next("you> ", stop)
		if errors.Is(err, io.EOF) {
			fmt.Fprintln(t.out)
			return nil
		}
		if err != nil {
			return err
		}
		do, word, rest := command(line)
		switch {
		case do == sayIt && rest == "", do == quit:
			return nil
		case do != sayIt:
			if err := t.command(do, word, rest); err != nil {
				fmt.Fprintf(t.out, "(%v)\n", err)
			}
			continue
		}
		sig, err := t.answer(ctx, stop, rest)
		if err != nil || sig == syscall.SIGTERM {
			return err
		}
	}
}

// request lays out what a speaker is asked. The draws of an answer follow from the seed and from how much was said before.
func (t *conversation) request(s *speaker, line string) (sample.Request, error) {
	msgs := append([]chat.Message{}, s.msgs...)
	if t.system != "" {
		msgs = append([]chat.Message{{Role: "system", Content: t.system}}, msgs...)
	}
	ids, err := t.m.Chat.Prompt(append(msgs, chat.Message{Role: "user", Content: line}))
	return sample.Request{Key: uint64(len(s.msgs) / 2), Prompt: ids, Params: t.s.params(t.m)}, err
}

// answer lets all speakers answer a line, and shows it.
func (t *conversation) answer(ctx context.Context, stop <-chan os.Signal, line string) (os.Signal, error) {
	reqs := make([]sample.Request, len(t.speakers))
	for i, s := range t.speakers {
		var err error
		if reqs[i], err = t.request(s, line); err != nil { // as a template that takes no system prompt
			fmt.Fprintf(t.out, "(%v)\n", err)
			return nil, nil
		}
	}
	if len(t.speakers) > 1 && t.screen.wide() {
		return t.sideBySide(ctx, stop, line, reqs)
	}
	for i, s := range t.speakers {
		fmt.Fprint(t.out, s.name+"> ")
		answer, finish, sig, err := say(ctx, stop, t.m, s.stack, reqs[i], func(text string) { fmt.Fprint(t.out, t.screen.safe(text)) })
		fmt.Fprintln(t.out)
		if err != nil || sig == syscall.SIGTERM {
			return sig, err
		}
		t.said(s, line, answer, finish)
	}
	return nil, nil
}

// said keeps a turn.
func (t *conversation) said(s *speaker, line, answer, finish string) {
	if finish == sample.FinishContext {
		fmt.Fprintf(t.out, "(%s: the model's context is full: /reset begins a new conversation)\n", s.name)
	}
	s.msgs = append(s.msgs, chat.Message{Role: "user", Content: line}, chat.Message{Role: "assistant", Content: answer})
}

// say streams one answer until it ends or a signal ends it; what was said until then counts.
func say(ctx context.Context, stop <-chan os.Signal, m *activities.Loaded, stack []*transformer.Adapter, r sample.Request, show func(text string)) (answer, finish string, sig os.Signal, err error) {
	ctx, heard, over := listen(ctx, stop)
	answer, finish, err = stream(ctx, m, stack, r, show)
	over()
	if sig = <-heard; sig != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	return answer, finish, sig, err
}

// listen gives a context that ends at a signal, the signal that ended it (nil: none), and a function to stop listening.
func listen(ctx context.Context, stop <-chan os.Signal) (context.Context, <-chan os.Signal, func()) {
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
	return ctx, heard, cancel
}

// stream draws one answer and shows its text as it comes.
func stream(ctx context.Context, m *activities.Loaded, stack []*transformer.Adapter, r sample.Request, show func(text string)) (answer, finish string, err error) {
	var tokens []int32
	st := m.Tokens.NewStream()
	err = sample.Generate(ctx, m.Model, stack, []sample.Request{r},
		sample.Options{OnToken: func(_ int, t int32) {
			tokens = append(tokens, t)
			show(st.Push(t))
		}},
		func(_ int, r sample.Result) error {
			tokens, finish = r.Tokens, r.Finish
			return nil
		})
	show(st.Flush())
	return m.Tokens.DecodeText(tokens), finish, err
}
