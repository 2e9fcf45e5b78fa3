package dataset_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/dataset/filtertest"
)

// TestQuality: the filter of every run keeps the rules that it asks of others.
func TestQuality(t *testing.T) {
	t.Parallel()
	filtertest.Run(t, dataset.Quality{Limits: dataset.PreferenceLimits()}, filtertest.Cases{
		Keep: []dataset.Answer{{Role: "teacher", Prompt: "Hello?", Text: "<think>what</think> Aye, good day to you."}, {Role: "student", Prompt: "Hello?", Text: "Hello! How can I help?"}},
		Drop: map[string][]dataset.Answer{
			dataset.ReasonUnfinished:   {{Text: "Aye, good", Finish: "length"}},
			dataset.ReasonIdentityLeak: {{Text: "As an AI language model I have no ship."}},
			dataset.ReasonEmpty:        {{Text: " "}},
		},
	})
}

// noShouting drops answers in capitals and takes exclamation marks out of others.
type noShouting struct{}

func (noShouting) Name() string    { return "no-shouting" }
func (noShouting) Version() string { return "1" }
func (noShouting) Check(a dataset.Answer) (string, string) {
	if a.Text == strings.ToUpper(a.Text) && a.Text != strings.ToLower(a.Text) {
		return a.Text, "shouting"
	}
	if calm := strings.TrimSpace(strings.ReplaceAll(a.Text, "!", ".")); calm != "" {
		return calm, ""
	}
	return a.Text, "nothing_said"
}

func TestOwnFilter(t *testing.T) {
	t.Parallel()
	filtertest.Run(t, noShouting{}, filtertest.Cases{
		Keep: []dataset.Answer{{Role: "teacher", Text: "Aye!"}},
		Drop: map[string][]dataset.Answer{"shouting": {{Role: "student", Text: "AYE!"}}},
	})
}

// TestCheckAnswer: own filters come after the quality filter, one after the other, each with what the one before kept.
func TestCheckAnswer(t *testing.T) {
	t.Parallel()
	var seen []string
	second := broken{name: "second", check: func(a dataset.Answer) (string, string) {
		seen = append(seen, a.Text)
		if strings.Contains(a.Text, "ship") {
			return a.Text, "ships"
		}
		return a.Text, ""
	}}
	for _, c := range []struct{ text, finish, want, reason, seen string }{
		{"<think>x</think>Good day!", "stop", "Good day.", "", "Good day."},
		{"GOOD DAY", "stop", "GOOD DAY", "no-shouting/shouting", ""},
		{"My ship!", "stop", "My ship.", "second/ships", "My ship."},
		{"My ship!", "length", "My ship!", dataset.ReasonUnfinished, ""},
	} {
		seen = nil
		text, reason, err := dataset.CheckAnswer(dataset.PreferenceLimits(), []dataset.Filter{noShouting{}, second}, dataset.Answer{Text: c.text, Finish: c.finish})
		if err != nil || text != c.want || reason != c.reason || strings.Join(seen, "|") != c.seen {
			t.Errorf("%q: %q, %q, %v; the second saw %q", c.text, text, reason, err, seen)
		}
	}
	for name, check := range map[string]func(dataset.Answer) (string, string){
		"broken text": func(dataset.Answer) (string, string) { return "\xff", "" },
		"bad reason":  func(dataset.Answer) (string, string) { return "x", "Too bad!" },
		"no text":     func(dataset.Answer) (string, string) { return " ", "" },
	} {
		_, _, err := dataset.CheckAnswer(dataset.PreferenceLimits(), []dataset.Filter{broken{"wild", check}}, dataset.Answer{Prompt: "Hello?", Text: "Good day.", Finish: "stop"})
		if err == nil || !strings.Contains(err.Error(), "wild") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type broken struct {
	name  string
	check func(dataset.Answer) (string, string)
}

func (b broken) Name() string                            { return b.name }
func (b broken) Version() string                         { return "1" }
func (b broken) Check(a dataset.Answer) (string, string) { return b.check(a) }

// An own filter that allows no exclamation marks, judged as a run does it: after the quality filter.
func ExampleCheckAnswer() {
	for _, text := range []string{"<think>hm</think>Aye, good day!", "AYE", "As an AI language model I cannot say aye."} {
		kept, reason, err := dataset.CheckAnswer(dataset.PreferenceLimits(), []dataset.Filter{noShouting{}}, dataset.Answer{Text: text, Finish: "stop"})
		if err != nil {
			panic(err)
		}
		fmt.Printf("%q %q\n", kept, reason)
	}
	// Output:
	// "Aye, good day." ""
	// "AYE" "no-shouting/shouting"
	// "As an AI language model I cannot say aye." "identity_leak"
}
