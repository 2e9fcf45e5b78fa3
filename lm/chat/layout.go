package chat

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// ErrRewritten is returned by Encode when the template writes earlier
// assistant turns differently once the conversation has gone on, so that no
// single row can hold all of them as they were sampled. Qwen3's template does
// so: it drops the (empty) thinking block of all turns but the last.
// EncodeTurns lays such conversations out in several rows.
var ErrRewritten = errors.New("the template rewrites earlier assistant turns")

// Row is a training row. Mask is as long as IDs and true where the model is to
// learn: the tokens of assistant turns and of their end-of-turn tokens.
type Row struct {
	IDs  []int32
	Mask []bool
}

// walker lays a conversation out turn by turn.
type walker struct {
	f    *Format
	mark string
	text string // rendered text that ids stand for
	row  Row
}

func (w *walker) add(ids []int32, mask bool) {
	w.row.IDs = append(w.row.IDs, ids...)
	for range ids {
		w.row.Mask = append(w.row.Mask, mask)
	}
}

// to goes on to text, or begins anew when text does not begin with what is
// laid out; restarted reports that.
func (w *walker) to(text string) (restarted bool) {
	if !strings.HasPrefix(text, w.text) {
		restarted = true
		w.reset()
	}
	w.add(w.f.encode(text[len(w.text):], w.mark), false)
	w.text = text
	return restarted
}

func (w *walker) reset() { w.text, w.row = "", Row{} }

// turn adds assistant turn k, whose prompt has just been laid out: the text
// that the template puts after the prompt, up to the end-of-turn token.
func (w *walker) turn(msgs []Message, k int, content string) error {
	if len(w.row.IDs) == 0 {
		return fmt.Errorf("chat: message %d: the template writes nothing before the assistant's turn", k)
	}
	after, err := w.f.render(msgs[:k+1], false)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(after, w.text) {
		return fmt.Errorf("chat: message %d: the template does not write the assistant's turn after its own generation prompt; "+
			"if the message holds a thinking block, use Options.EnableThinking, otherwise this template cannot be trained on", k)
	}
	tail := after[len(w.text):]
	id, start, end, ok := w.f.tok.FindSpecial(tail)
	if !ok {
		return fmt.Errorf("chat: message %d: the template puts no special token after the assistant's turn", k)
	}
	said := unmark(tail[:start], w.mark)
	// The template may trim the message or open it with an empty thinking
	// block; it may not lose any of it.
	if !strings.HasSuffix(noSpace(said), noSpace(content)) {
		return fmt.Errorf("chat: message %d: the template changes what the assistant says from %.60q to %.60q", k, content, said)
	}
	w.add(w.f.tok.EncodeOrdinary(said), true)
	w.add([]int32{id}, true)
	w.text += tail[:end]
	return nil
}

func noSpace(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
}

// Prompt returns the ids of a conversation with the opening of the assistant's
// next turn, ready for sampling. Assistant turns that came before are laid out
// with the very ids they were sampled with, wherever the template writes them
// unchanged; a history that the template rewrites is encoded as it writes it.
func (f *Format) Prompt(msgs []Message) ([]int32, error) {
	if err := check(msgs); err != nil {
		return nil, err
	}
	marked, mark := f.defuse(msgs)
	w := &walker{f: f, mark: mark}
	for k, m := range msgs {
		if m.Role != "assistant" || k == 0 {
			continue
		}
		// A turn that cannot be laid out as sampled is history all the same:
		// forget the exact layout and go on with the template's text.
		before, err := f.render(marked[:k], true)
		if err != nil {
			w.reset()
			continue
		}
		w.to(before)
		if err := w.turn(marked, k, m.Content); err != nil {
			w.reset()
		}
	}
	text, err := f.render(marked, true)
	if err != nil {
		return nil, err
	}
	if w.to(text); len(w.row.IDs) == 0 {
		return nil, errors.New("chat: the template writes nothing for this conversation")
	}
	return w.row.IDs, nil
}

// Encode returns the training row of a conversation: ids and a mask that is
// true for every token of every assistant turn and for its end-of-turn token,
// false for all else. Each turn is encoded as sampling sees it, apart from
// what stands before it: Prompt(msgs[:k]) is a prefix of ids for each
// assistant turn k. It returns an error rather than a wrong mask: for a
// conversation without an assistant turn or with one at its very beginning,
// for a template that changes what was said, and ErrRewritten.
func (f *Format) Encode(msgs []Message) (ids []int32, mask []bool, err error) {
	rows, err := f.EncodeTurns(msgs)
	if err != nil {
		return nil, nil, err
	}
	if len(rows) > 1 {
		return nil, nil, fmt.Errorf("chat: %w, so this conversation takes %d rows; use EncodeTurns", ErrRewritten, len(rows))
	}
	return rows[0].IDs, rows[0].Mask, nil
}

// EncodeTurns is Encode for every template: a new row is begun whenever the
// template rewrites the turns that are laid out already. The new row shows
// them as history, as Prompt does, and its mask covers later turns only, so
// every assistant turn is learned exactly once and as it would be sampled.
func (f *Format) EncodeTurns(msgs []Message) ([]Row, error) {
	if err := check(msgs); err != nil {
		return nil, err
	}
	if msgs[0].Role == "assistant" {
		return nil, errors.New("chat: the conversation begins with an assistant turn; put the user's message before it")
	}
	marked, mark := f.defuse(msgs)
	w := &walker{f: f, mark: mark}
	var rows []Row
	for k, m := range msgs {
		if m.Role != "assistant" {
			continue
		}
		before, err := f.render(marked[:k], true)
		if err != nil {
			return nil, err
		}
		if done := w.row; w.to(before) && len(done.IDs) > 0 {
			rows = append(rows, done)
		}
		if err := w.turn(marked, k, m.Content); err != nil {
			return nil, err
		}
	}
	if !slices.Contains(w.row.Mask, true) {
		return nil, errors.New("chat: the conversation has no assistant turn, so there is nothing to learn")
	}
	// What the template writes after the last turn, usually a newline.
	whole, err := f.render(marked, false)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(whole, w.text) {
		w.to(whole)
	}
	return append(rows, w.row), nil
}
