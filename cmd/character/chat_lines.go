package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/opencharacter/opencharacter/cmd/internal/columns"
)

// wideEnough is the width in cells from which models are compared side by side.
const wideEnough = 90

// screen is the terminal that is written to; the zero value is none.
type screen struct {
	terminal      bool
	width, height int
}

func screenOf(out io.Writer) screen {
	f, ok := out.(*os.File)
	if !ok || !isTerminal(f) {
		return screen{}
	}
	s := screen{terminal: true, width: 80, height: 24}
	if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
		s.width, s.height = w, h
	}
	return s
}

func (s screen) wide() bool { return s.terminal && s.width >= wideEnough }

// safe keeps a model's text from moving a terminal's cursor; a file gets it as it is.
func (s screen) safe(text string) string {
	if s.terminal {
		return columns.Plain(text)
	}
	return text
}

// asker reads what the user types.
type asker interface {
	// next shows the prompt and returns the next line. A signal and the end of the input give io.EOF.
	next(prompt string, stop <-chan os.Signal) (string, error)
}

func newAsker(in io.Reader, out io.Writer) asker {
	from, a := in.(*os.File)
	to, b := out.(*os.File)
	if a && b && isTerminal(from) && isTerminal(to) {
		rw := struct {
			io.Reader
			io.Writer
		}{from, to}
		return &keyboard{in: from, out: to, t: term.NewTerminal(rw, "")}
	}
	lines, failed := readLines(in)
	return &plainLines{out: out, lines: lines, failed: failed}
}

// plainLines are those of a file, a pipe or a terminal on one side only.
type plainLines struct {
	out    io.Writer
	lines  <-chan string
	failed <-chan error
}

func (p *plainLines) next(prompt string, stop <-chan os.Signal) (string, error) {
	fmt.Fprint(p.out, prompt)
	select {
	case <-stop:
		return "", io.EOF
	case l, ok := <-p.lines:
		if ok {
			return l, nil
		}
		if err := <-p.failed; err != nil {
			return "", fmt.Errorf("read a line: %w; a message can have 1 MiB", err)
		}
		return "", io.EOF
	}
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

// keyboard is a terminal with line editing and a history on the arrow keys. It is raw only while a line is typed, so that
// Ctrl-C is a signal while a model answers.
type keyboard struct {
	in, out *os.File
	t       *term.Terminal
}

func (k *keyboard) next(prompt string, stop <-chan os.Signal) (string, error) {
	old, err := term.MakeRaw(int(k.in.Fd()))
	if err != nil {
		return "", fmt.Errorf("read the keyboard: %w; give the messages through a pipe", err)
	}
	defer func() { _ = term.Restore(int(k.in.Fd()), old) }() // it worked a moment ago
	if s := screenOf(k.out); s.terminal {
		_ = k.t.SetSize(s.width, s.height) // fails never with these
	}
	k.t.SetPrompt(prompt)
	type typed struct {
		line string
		err  error
	}
	got := make(chan typed, 1)
	go func() {
		l, err := k.t.ReadLine()
		got <- typed{l, err}
	}()
	select {
	case <-stop:
		return "", io.EOF
	case x := <-got:
		if errors.Is(x.err, term.ErrPasteIndicator) {
			x.err = nil
		}
		return strings.TrimRight(x.line, "\r\n"), x.err
	}
}
