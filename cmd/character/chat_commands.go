package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/opencharacter/opencharacter/cmd/internal/columns"
	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/sample"
)

// chatCommand is what a line of a conversation is.
type chatCommand int

const (
	sayIt chatCommand = iota
	reset
	setSystem
	setSeed
	save
	help
	quit
	notKnown
)

var chatCommands = map[string]chatCommand{"/reset": reset, "/new": reset, "/system": setSystem, "/seed": setSeed, "/save": save, "/help": help, "/?": help, "/quit": quit, "/exit": quit, "/bye": quit}

const chatHelp = `/reset         begin a new conversation (also /new); the system prompt stays
/system TEXT   set a system prompt from here on; without TEXT remove it
/seed N        draw the next answers with seed N; without N show the seed
/save FILE     write the conversation to a new file: one JSON line {"model", "messages"} a model
/help          this list
/quit          end, like an empty line or Ctrl-D
A message that begins with a slash: put a space before it.`

// command takes a line apart. Only a slash in the first column is a command.
func command(line string) (do chatCommand, word, rest string) {
	if !strings.HasPrefix(line, "/") {
		return sayIt, "", strings.TrimSpace(line)
	}
	word, rest, _ = strings.Cut(strings.TrimSpace(line), " ")
	do, ok := chatCommands[word]
	if !ok {
		do = notKnown
	}
	return do, word, strings.TrimSpace(rest)
}

// command obeys; its error is for the user, and the conversation goes on.
func (t *conversation) command(do chatCommand, word, rest string) error {
	if rest != "" && (do == reset || do == help) {
		return fmt.Errorf("%s takes nothing after it", word)
	}
	say := func(format string, a ...any) { fmt.Fprintf(t.out, "("+format+")\n", a...) }
	switch do {
	case reset:
		for _, s := range t.speakers {
			s.msgs = nil
		}
		say("a new conversation")
	case setSystem:
		t.system = rest
		if rest == "" {
			say("no system prompt")
		} else {
			say("the system prompt is set")
		}
	case setSeed:
		if rest != "" {
			n, err := strconv.ParseUint(rest, 10, 64)
			if err != nil {
				return fmt.Errorf("/seed %s: want a whole number from 0 on, such as /seed 7", rest)
			}
			t.s.seed = n
		}
		say("seed %d", t.s.seed)
	case save:
		if rest == "" {
			return errors.New("/save needs a file's name, such as /save talk.jsonl")
		}
		if err := t.save(rest); err != nil {
			return err
		}
		say("written to %s", rest)
	case help:
		fmt.Fprintln(t.out, chatHelp)
	default:
		return fmt.Errorf("there is no %s; /help lists what there is, and a space before the slash sends it as a message", word)
	}
	return nil
}

// savedTalk is a line of /save; `character generate --in` reads it.
type savedTalk struct {
	Model    string         `json:"model"`
	Seed     uint64         `json:"seed"`
	Messages []chat.Message `json:"messages"`
}

func (t *conversation) save(path string) error {
	var rows []savedTalk
	for _, s := range t.speakers {
		if len(s.msgs) == 0 {
			return errors.New("nothing has been said yet, so there is nothing to save")
		}
		row := savedTalk{Model: s.name, Seed: t.s.seed}
		if t.system != "" {
			row.Messages = append(row.Messages, chat.Message{Role: "system", Content: t.system})
		}
		row.Messages = append(row.Messages, s.msgs...)
		rows = append(rows, row)
	}
	b, err := jsonLines(rows)
	if err != nil {
		return err
	}
	return writeNew(path, b)
}

// sideBySide lets all speakers answer at once, each in its column. What one draws does not depend on the others.
func (t *conversation) sideBySide(ctx context.Context, stop <-chan os.Signal, line string, reqs []sample.Request) (os.Signal, error) {
	names := make([]string, len(t.speakers))
	for i, s := range t.speakers {
		names[i] = s.name
	}
	live := columns.NewLive(t.out, t.screen.width, t.screen.height, names...)
	ctx, heard, over := listen(ctx, stop)
	answers, finishes := make([]string, len(reqs)), make([]string, len(reqs))
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	for i, s := range t.speakers {
		g.Go(func() (err error) {
			answers[i], finishes[i], err = stream(ctx, t.m, s.stack, reqs[i], func(text string) {
				mu.Lock()
				defer mu.Unlock()
				live.Push(i, text)
			})
			mu.Lock()
			defer mu.Unlock()
			live.Done(i)
			return err
		})
	}
	err := g.Wait()
	over()
	sig := <-heard
	if sig != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	if err != nil {
		return sig, err
	}
	for i, s := range t.speakers {
		t.said(s, line, answers[i], finishes[i])
	}
	return sig, nil
}
