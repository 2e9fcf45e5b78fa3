package dataset

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
)

// Lengths describes numbers: of characters, of tokens, of turns.
type Lengths struct {
	Count  int     `json:"count"`
	Min    int     `json:"min"`
	Median int     `json:"median"`
	Mean   float64 `json:"mean"`
	P95    int     `json:"p95"` // 95 of 100 are not longer
	Max    int     `json:"max"`
	Sum    int     `json:"sum"`
}

// LengthsOf describes values; none give zeros. It does not change values.
func LengthsOf(values []int) Lengths {
	if len(values) == 0 {
		return Lengths{}
	}
	v := slices.Sorted(slices.Values(values))
	l := Lengths{Count: len(v), Min: v[0], Median: v[len(v)/2], P95: v[(len(v)*95+99)/100-1], Max: v[len(v)-1]}
	for _, x := range v {
		l.Sum += x
	}
	l.Mean = float64(l.Sum) / float64(len(v))
	return l
}

// Column is what Summary says of one text of the rows.
type Column struct {
	Name   string  `json:"name"`
	Chars  Lengths `json:"chars"`
	Tokens Lengths `json:"tokens"` // of the rows that say; imported and recorded texts do not
	// Repeated counts the rows whose text an earlier row has, letter case and white space apart.
	Repeated int `json:"repeated"`
}

// Summary describes the rows of a data set.
type Summary struct {
	Rows    int      `json:"rows"`
	Columns []Column `json:"columns"`
	// Repeated counts the rows that say all that an earlier row says.
	Repeated int `json:"repeated"`
}

// tally collects one column.
type tally struct {
	name          string
	chars, tokens []int
	seen          map[string]bool
	repeated      int
}

func (t *tally) add(text string, tokens int) {
	t.chars = append(t.chars, utf8.RuneCountInString(text))
	if tokens > 0 {
		t.tokens = append(t.tokens, tokens)
	}
	if t.seen == nil {
		t.seen = map[string]bool{}
	}
	key := strings.ToLower(strings.Join(strings.Fields(text), " "))
	if t.seen[key] {
		t.repeated++
	}
	t.seen[key] = true
}

func (t *tally) column() Column {
	return Column{Name: t.name, Chars: LengthsOf(t.chars), Tokens: LengthsOf(t.tokens), Repeated: t.repeated}
}

// SummarizePairs describes preference pairs.
func SummarizePairs(rows []Pair) Summary {
	prompt, chosen, rejected, all := tally{name: "prompt"}, tally{name: "chosen"}, tally{name: "rejected"}, tally{}
	for _, r := range rows {
		p, c, j := Spoken(r.Prompt), Spoken(r.Chosen), Spoken(r.Rejected)
		prompt.add(p, 0)
		chosen.add(c, r.ChosenTokens)
		rejected.add(j, r.RejectedTokens)
		all.add(p+"\x00"+c+"\x00"+j, 0)
	}
	return Summary{Rows: len(rows), Columns: []Column{prompt.column(), chosen.column(), rejected.column()}, Repeated: all.repeated}
}

// SummarizeConversations describes introspection rows: what the character says, by kind, and the turns.
func SummarizeConversations(rows []Conversation) Summary {
	kinds := map[string]*tally{}
	var order []string
	all := tally{}
	for _, r := range rows {
		t := kinds[r.Kind]
		if t == nil {
			t = &tally{name: r.Kind}
			kinds[r.Kind], order = t, append(order, r.Kind)
		}
		var said []Message
		for _, m := range r.Messages {
			if m.Role != "system" && (r.Kind != "reflection" || m.Role == "assistant") {
				said = append(said, m)
			}
		}
		t.add(Spoken(said), r.Tokens)
		all.add(Spoken(r.Messages), 0)
	}
	s := Summary{Rows: len(rows), Repeated: all.repeated, Columns: []Column{}}
	for _, k := range order {
		s.Columns = append(s.Columns, kinds[k].column())
	}
	return s
}

// Spoken is the text of messages, one after the other.
func Spoken(msgs []Message) string {
	parts := make([]string, len(msgs))
	for i, m := range msgs {
		parts[i] = m.Content
	}
	return strings.Join(parts, "\n")
}

// Columns are the names of a row type's columns in Parquet, in their order.
func Columns[T any]() []string {
	var out []string
	for _, f := range parquet.SchemaOf(new(T)).Fields() {
		out = append(out, f.Name())
	}
	return out
}
