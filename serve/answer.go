package serve

import (
	"strings"
	"unicode/utf8"

	"github.com/opencharacter/opencharacter/lm/sample"
	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

// said is a token of an answer with where its text begins.
type said struct {
	sample.Token
	at   int // bytes of the answer before it
	from int // characters
}

// answer is one choice as it grows: tokens go in, text comes out as soon as it is certain,
// which it is not while it may be the beginning of a stop text or half a character.
type answer struct {
	decode *tokenizer.Stream
	stops  []string
	keep   bool // the tokens, for log-probs

	count   int    // tokens so far
	letters int    // characters so far
	sure    int    // bytes of text that were passed on to out
	pending string // text after that
	held    []said // tokens that are not in ready

	out   strings.Builder // text to hand out
	ready []said          // and its tokens
	taken int             // tokens when the text was last handed out

	finish string // "" while it goes on
	err    error
}

// push adds a token; false: a stop text is complete.
func (a *answer) push(t sample.Token) bool {
	a.count++
	if a.keep {
		a.held = append(a.held, said{t, a.sure + len(a.pending), a.letters})
	}
	text := a.decode.Push(t.ID)
	a.pending += text
	a.letters += utf8.RuneCountInString(text)
	if a.cut() {
		return false
	}
	a.pass(len(a.pending) - a.mayStop())
	return true
}

// cut ends the text before the first stop text in it.
func (a *answer) cut() bool {
	at := -1
	for _, s := range a.stops {
		if k := strings.Index(a.pending, s); k >= 0 && (at < 0 || k < at) {
			at = k
		}
	}
	if at < 0 {
		return false
	}
	a.pending = a.pending[:at]
	for len(a.held) > 0 && a.held[len(a.held)-1].at >= a.sure+at {
		a.held = a.held[:len(a.held)-1]
	}
	a.pass(at)
	return true
}

// mayStop is the length of the longest end of pending that a stop text begins with.
func (a *answer) mayStop() int {
	most := 0
	for _, s := range a.stops {
		for n := min(len(s)-1, len(a.pending)); n > most; n-- {
			if strings.HasSuffix(a.pending, s[:n]) {
				most = n
			}
		}
	}
	return most
}

// pass hands out n bytes of pending, with the tokens that begin before their end.
func (a *answer) pass(n int) {
	a.out.WriteString(a.pending[:n])
	a.sure += n
	a.pending = a.pending[n:]
	k := 0
	for k < len(a.held) && (a.held[k].at < a.sure || a.pending == "") {
		k++
	}
	a.ready = append(a.ready, a.held[:k]...)
	a.held = a.held[k:]
}

// end is called once, when no token comes any more.
func (a *answer) end(finish string, err error) {
	if a.finish != "" || a.err != nil {
		return
	}
	// An answer that was cut in the middle of a character ends before it; one that ended by
	// itself there shows that it did.
	if finish != sample.FinishLength {
		a.pending += a.decode.Flush()
	}
	if !a.cut() {
		a.pass(len(a.pending))
	}
	if finish == sample.FinishContext {
		finish = sample.FinishLength
	}
	a.finish, a.err = finish, err
}

// waiting counts the tokens whose text was not handed out yet.
func (a *answer) waiting() int { return a.count - a.taken }

// take hands out the text that is certain, with its tokens.
func (a *answer) take() (string, []said) {
	text, tokens := a.out.String(), a.ready
	a.out.Reset()
	a.ready, a.taken = nil, a.count
	return text, tokens
}
