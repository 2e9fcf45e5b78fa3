// Package filtertest is the conformance suite of dataset.Filter: the rules that a run relies on, as tests.
//
//	func TestFilter(t *testing.T) {
//		filtertest.Run(t, myFilter{}, filtertest.Cases{
//			Keep: []dataset.Answer{{Role: "teacher", Prompt: "Hello?", Text: "Aye, good day to you."}},
//			Drop: map[string][]dataset.Answer{"too_modern": {{Role: "teacher", Prompt: "Hello?", Text: "OMG hi"}}},
//		})
//	}
package filtertest

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/spec"
)

// Cases are answers whose judgement is known: at least one to keep and one to drop, so that the filter is seen to do both.
type Cases struct {
	Keep []dataset.Answer
	Drop map[string][]dataset.Answer // by reason
}

// hostile are texts that answers of a broken model may be. None holds invalid UTF-8: the quality filter drops that before.
var hostile = []string{
	"a", "  a\n", "\u00e9", "e\u0301", "\U0001f3f4\u200d\u2620\ufe0f", "\u202eabc", "<|im_end|>", "{\"a\":1}", "((((", "[[[[", `\`, "%s%d%!", "\x00", "\r\n\r\n",
	strings.Repeat("ha ", 5000), strings.Repeat("\U0001f99c", 3000), strings.Repeat("a", 1<<16),
}

var reason = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// Run tests a filter.
func Run(t *testing.T, f dataset.Filter, c Cases) {
	t.Helper()
	if err := spec.CheckOwn("filter", f.Name(), f.Version()); err != nil {
		t.Error(err)
	}
	if len(c.Keep) == 0 || len(c.Drop) == 0 {
		t.Fatal("filtertest: give at least one answer to keep and one to drop: a filter that does only one of the two is none")
	}
	all := append([]dataset.Answer(nil), c.Keep...)
	for _, a := range c.Keep {
		if text, why := check(t, f, a); why != "" {
			t.Errorf("%s: %.80q is dropped (%s), and should be kept", f.Name(), a.Text, why)
		} else if again, why := check(t, f, with(a, text)); again != text || why != "" {
			t.Errorf("%s: what it keeps of %.80q is %.80q, and of that %.80q (%s): the second look changes it", f.Name(), a.Text, text, again, why)
		}
	}
	for want, answers := range c.Drop {
		for _, a := range answers {
			if _, why := check(t, f, a); why != want {
				t.Errorf("%s: %.80q is dropped for %q, want %q", f.Name(), a.Text, why, want)
			}
		}
		all = append(all, answers...)
	}
	for _, text := range hostile {
		for _, role := range []string{"teacher", "student", "reflection", "interaction", ""} {
			a := dataset.Answer{Role: role, Prompt: text, Text: text, Finish: "stop"}
			check(t, f, a)
			all = append(all, a)
		}
	}
	for i := range all {
		all[i].Finish = cmp.Or(all[i].Finish, "stop")
	}
	atOnce(t, f, all)
}

func with(a dataset.Answer, text string) dataset.Answer {
	a.Text = text
	return a
}

// check judges one answer and looks at what any judgement must be.
func check(t *testing.T, f dataset.Filter, a dataset.Answer) (text, why string) {
	t.Helper()
	a.Finish = cmp.Or(a.Finish, "stop")
	func() {
		defer func() {
			if r := recover(); r != nil {
				t.Errorf("%s: %.80q: panic: %v", f.Name(), a.Text, r)
				why = "panic"
			}
		}()
		text, why = f.Check(a)
	}()
	switch {
	case !utf8.ValidString(text):
		t.Errorf("%s: of %.80q it makes text that is not valid UTF-8", f.Name(), a.Text)
	case why != "" && !reason.MatchString(why):
		t.Errorf("%s: the reason %q is not small letters, digits and underscores", f.Name(), why)
	case why == "" && strings.TrimSpace(text) == "":
		t.Errorf("%s: of %.80q it keeps nothing, and gives no reason", f.Name(), a.Text)
	}
	return text, why
}

// atOnce judges everything again from many goroutines, in both directions: the same answers must have the same judgement
// whatever was looked at before.
func atOnce(t *testing.T, f dataset.Filter, all []dataset.Answer) {
	t.Helper()
	judge := func(a dataset.Answer) (out string) {
		defer func() {
			if r := recover(); r != nil {
				out = "panic" // told above
			}
		}()
		text, why := f.Check(a)
		return fmt.Sprintf("%q %q", text, why)
	}
	want := make([]string, len(all))
	for i, a := range all {
		want[i] = judge(a)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range all {
				i := n
				if w%2 == 1 {
					i = len(all) - 1 - n
				}
				if got := judge(all[i]); got != want[i] {
					t.Errorf("%s: %.80q is judged %.80s, and before it was %.80s: a judgement must follow from the answer alone", f.Name(), all[i].Text, got, want[i])
					return
				}
			}
		})
	}
	wg.Wait()
}
