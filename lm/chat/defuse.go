package chat

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Control tokens inside messages.
//
// A template is free to look at a message: to trim it, to cut a thinking block
// out of it. So messages are not replaced by placeholders. Instead, each piece
// of a message that spells a special token, or could be the beginning of one
// that the template's text completes, gets a mark: a rune that occurs nowhere
// else, put in after the first rune of the piece. In the rendered text all
// special tokens that are found are then the template's own. The marks are
// taken out again when the text between them is encoded, with special tokens
// not recognised. A message without such pieces is passed unchanged.

// defuse returns the messages with marks and the mark in use ("" when no
// message needed one).
func (f *Format) defuse(msgs []Message) ([]Message, string) {
	var at [][]int
	any := false
	for _, m := range msgs {
		p := f.dangerous(m.Content)
		any = any || len(p) > 0
		at = append(at, p)
	}
	if !any {
		return msgs, ""
	}
	mark := f.unusedRune(msgs)
	marked := make([]Message, len(msgs))
	for i, m := range msgs {
		var b strings.Builder
		last := 0
		for _, p := range at[i] {
			b.WriteString(m.Content[last:p])
			b.WriteString(mark)
			last = p
		}
		b.WriteString(m.Content[last:])
		marked[i] = Message{m.Role, b.String()}
	}
	return marked, mark
}

// dangerous returns the places where a mark must go, ascending.
func (f *Format) dangerous(s string) []int {
	var at []int
	// The text may lose white space at its end before it meets the template's.
	end := len(strings.TrimRightFunc(s, unicode.IsSpace))
	for i := 0; i < len(s); i++ {
		if !f.heads[s[i]] {
			continue
		}
		if rest := s[i:]; f.beginsSpecial(rest) || f.mayBegin(rest) || i < end && f.mayBegin(s[i:end]) {
			_, n := utf8.DecodeRuneInString(rest)
			at = append(at, i+n)
		}
	}
	return at
}

// beginsSpecial reports whether s begins with a special token. Its cost does not grow with their number: Gemma has
// thousands, and a text of nothing but their first byte must not take minutes.
func (f *Format) beginsSpecial(s string) bool {
	for _, n := range f.lengths {
		if n > len(s) {
			return false
		}
		if f.special[s[:n]] {
			return true
		}
	}
	return false
}

// mayBegin reports whether a special token begins with s, the end of a text.
func (f *Format) mayBegin(s string) bool {
	if n := len(f.lengths); n == 0 || len(s) > f.lengths[n-1] {
		return false
	}
	return slices.ContainsFunc(f.specials, func(special string) bool { return strings.HasPrefix(special, s) })
}

// unusedRune returns a private-use rune that is in no message and not in the
// template.
func (f *Format) unusedRune(msgs []Message) string {
	used := map[rune]bool{}
	for _, s := range append([]Message{{Content: f.source}}, msgs...) {
		for _, r := range s.Content {
			if r >= 0xF0000 {
				used[r] = true
			}
		}
	}
	r := rune(0xF0000)
	for used[r] { // a text would need 131,000 different ones to use them up
		r++
	}
	return string(r)
}

// encode returns the ids of rendered text: special tokens by id, the text
// between them without its marks and without recognising any.
func (f *Format) encode(text, mark string) []int32 {
	var ids []int32
	for {
		id, start, end, ok := f.tok.FindSpecial(text)
		if !ok {
			return append(ids, f.tok.EncodeOrdinary(unmark(text, mark))...)
		}
		ids = append(ids, f.tok.EncodeOrdinary(unmark(text[:start], mark))...)
		ids = append(ids, id)
		text = text[end:]
	}
}

func unmark(text, mark string) string {
	if mark == "" {
		return text
	}
	return strings.ReplaceAll(text, mark, "")
}
