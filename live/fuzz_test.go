package live

import (
	"net/url"
	"testing"

	"github.com/opencharacter/opencharacter/activities"
)

// FuzzQuestion: any query is refused, or answered with a page that is within the rows.
func FuzzQuestion(f *testing.F) {
	f.Add("kind=pairs&drop=%3Dchosen: too_short&q=rain&page=1&size=2")
	f.Add("kind=reflections&drop=kept&page=99999999999999999999")
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		ask, err := parse(v)
		if err != nil {
			return
		}
		x := &table{}
		x.Rows = []activities.Row{{ID: "a", Prompt: "Rain?"}, {ID: "b", Drop: "chosen: too_short"}, {ID: "c", Text: "x"}}
		a := x.answer(ask)
		if a.Matching > a.Total || len(a.Rows) > ask.size || a.Matching > 0 && len(a.Rows) == 0 {
			t.Errorf("%q: %+v", raw, a)
		}
	})
}
