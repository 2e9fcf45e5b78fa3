package sample

import (
	"slices"

	"github.com/opencharacter/opencharacter/lm/transformer"
)

// kept is what an ended answer left in the cache.
type kept struct {
	stack  int
	tokens []int32
	seq    *transformer.Sequence
}

// keep takes over the sequence of a row that has ended.
func (l *Live) keep(r *liveRow) {
	s := r.ask.Stack
	tokens := slices.Concat(r.req.Prompt, r.out.Tokens)[:r.seq.Length]
	// What is a beginning of this one adds nothing.
	l.kept = slices.DeleteFunc(l.kept, func(k *kept) bool {
		covered := k.stack == s && len(k.tokens) <= len(tokens) && slices.Equal(k.tokens, tokens[:len(k.tokens)])
		if covered {
			l.caches[s].Free(k.seq)
		}
		return covered
	})
	l.kept = append(l.kept, &kept{s, tokens, r.seq})
	for len(l.kept) > max(0, l.o.Keep) {
		l.forget()
	}
}

// forget frees what was not used for longest.
func (l *Live) forget() {
	k := l.kept[0]
	l.kept = slices.Delete(l.kept, 0, 1)
	l.caches[k.stack].Free(k.seq)
}

// plan lists what the next forward pass of a stack appends: the last token of every row that
// is drawing, and pieces of prompts within the budget. Older rows come first, so the oldest
// always gets on.
func (l *Live) plan(stack int, budget *int) {
	l.chunks, l.rows, l.live = l.chunks[:0], l.rows[:0], l.live[:0]
	for i, r := range l.active {
		begun := r.seq != nil
		if r.ask.Stack != stack || r.out.Finish != "" || !begun && !l.start(i, r, *budget) {
			continue
		}
		tokens, counts := r.piece(*budget)
		if len(tokens) == 0 {
			continue
		}
		if !l.room(i, transformer.Chunk{Seq: r.seq, Tokens: tokens}, counts) {
			if !begun { // what it shares would cost the other a copy
				l.giveBack(r)
			}
			continue
		}
		if counts {
			*budget -= len(tokens)
		}
		r.fed += len(tokens)
		l.chunks = append(l.chunks, transformer.Chunk{Seq: r.seq, Tokens: tokens})
		l.rows, l.live = append(l.rows, &r.row), append(l.live, r)
	}
}

// start gives a row its sequence: a copy of the longest beginning that the cache holds. It
// reports false when the row should wait: for an older one that reads the same tokens now, or
// for the budget.
func (l *Live) start(i int, r *liveRow, budget int) bool {
	if budget == 0 {
		return false
	}
	s := r.ask.Stack
	whole := slices.Concat(r.req.Prompt, r.out.Tokens)
	best, soon, used := 0, 0, -1
	var from *transformer.Sequence
	for k, x := range l.kept {
		if x.stack == s {
			if n := beginning(whole, x.tokens); n > best {
				best, from, used = n, x.seq, k
			}
		}
	}
	for k, a := range l.active {
		if a.ask.Stack != s || a.seq == nil {
			continue
		}
		n := beginning(whole, a.req.Prompt)
		if k < i && a.seq.Length < len(a.req.Prompt) {
			soon = max(soon, n)
		}
		if n == len(a.req.Prompt) {
			n += beginning(whole[n:], a.out.Tokens)
		}
		if n = min(n, a.seq.Length); n > best {
			best, from, used = n, a.seq, -1
		}
	}
	switch {
	case soon >= best+minShared:
		return false
	case best < minShared:
		r.seq = l.caches[s].NewSequence()
	default:
		r.seq = l.caches[s].ForkAt(from, best)
		if used >= 0 { // the last used goes last
			x := l.kept[used]
			l.kept = append(slices.Delete(l.kept, used, used+1), x)
		}
	}
	r.fed = r.seq.Length
	return true
}

// beginning counts the tokens that whole begins with, one of its own left to it.
func beginning(whole, tokens []int32) int {
	n := 0
	for n < len(whole)-1 && n < len(tokens) && whole[n] == tokens[n] {
		n++
	}
	return n
}

// room makes room for one more chunk of the pass, of active row i. What is kept of ended
// answers goes first. Then younger rows give theirs back: to the oldest row always, to others
// only when they are drawing, so that rows do not push each other out before they have begun.
// Rows that read a prompt leave a page to each older one. A row that finds no room waits; an
// older one ends, or takes its memory.
func (l *Live) room(i int, c transformer.Chunk, reading bool) bool {
	reading, stack := reading && i > 0, l.active[i].ask.Stack
	for {
		need := l.need(stack, c)
		for _, x := range l.chunks {
			need += l.need(stack, x)
		}
		if reading {
			need += i
		}
		if l.Pages()+need <= l.o.Pages {
			return true
		}
		if len(l.kept) > 0 {
			l.forget()
			continue
		}
		victim := l.youngest(i)
		if victim == nil || reading {
			return false
		}
		l.giveBack(victim)
	}
}

func (l *Live) need(stack int, c transformer.Chunk) int {
	return l.caches[stack].Need(c.Seq, len(c.Tokens))
}

// youngest is the youngest row behind active row i that holds memory.
func (l *Live) youngest(i int) *liveRow {
	for _, r := range slices.Backward(l.active[i+1:]) {
		if r.seq != nil {
			return r
		}
	}
	return nil
}

// giveBack frees a row's memory; it is read again when there is room.
func (l *Live) giveBack(r *liveRow) {
	l.caches[r.ask.Stack].Free(r.seq)
	r.seq, r.fed = nil, 0
}
