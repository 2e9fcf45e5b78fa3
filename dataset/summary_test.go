package dataset_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencharacter/opencharacter/dataset"
)

func TestLengthsOf(t *testing.T) {
	t.Parallel()
	if got := dataset.LengthsOf(nil); got != (dataset.Lengths{}) {
		t.Errorf("of nothing: %+v", got)
	}
	values := []int{9, 1, 5}
	if diff := cmp.Diff(dataset.Lengths{Count: 3, Min: 1, Median: 5, Mean: 5, P95: 9, Max: 9, Sum: 15}, dataset.LengthsOf(values)); diff != "" {
		t.Error(diff)
	}
	if values[0] != 9 {
		t.Error("the values were sorted in place")
	}
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = 100 - i
	}
	if got := dataset.LengthsOf(hundred); got.P95 != 95 || got.Min != 1 || got.Max != 100 {
		t.Errorf("of 1 to 100: %+v", got)
	}
}

func TestSummaries(t *testing.T) {
	t.Parallel()
	pair := func(p, c, r string, tokens int) dataset.Pair {
		return dataset.Pair{Prompt: say("user", p), Chosen: say("assistant", c), Rejected: say("assistant", r), ChosenTokens: tokens}
	}
	s := dataset.SummarizePairs([]dataset.Pair{pair("Hello?", "Ahoy!", "Hi.", 3), pair("hello? ", "Ahoj, žé!", "Hi.", 0), pair("Hello?", "Ahoy!", "Hi.", 5)})
	if s.Rows != 3 || s.Repeated != 1 || len(s.Columns) != 3 {
		t.Fatalf("%+v", s)
	}
	if c := s.Columns[1]; c.Name != "chosen" || c.Chars.Max != 9 || c.Tokens.Count != 2 || c.Tokens.Sum != 8 || c.Repeated != 1 {
		t.Errorf("chosen: %+v", c)
	}
	if c := s.Columns[0]; c.Repeated != 2 || c.Tokens.Count != 0 {
		t.Errorf("prompt: %+v", c)
	}
	v := dataset.SummarizeConversations([]dataset.Conversation{
		{Kind: "reflection", Tokens: 4, Messages: []dataset.Message{{Role: "user", Content: "Who?"}, {Role: "assistant", Content: "Me."}}},
		{Kind: "interaction", Tokens: 9, Messages: []dataset.Message{{Role: "system", Content: "free"}, {Role: "user", Content: "a"}, {Role: "assistant", Content: "b"}}},
	})
	if v.Rows != 2 || len(v.Columns) != 2 || v.Columns[0].Chars.Max != 3 || v.Columns[1].Chars.Max != 3 || v.Columns[1].Tokens.Sum != 9 {
		t.Errorf("%+v", v)
	}
	if none := dataset.SummarizeConversations(nil); none.Rows != 0 || none.Columns == nil {
		t.Errorf("no rows: %+v", none)
	}
}
