// Package report renders one self-contained HTML page about a training run:
// what the character sounds like, what the training gained and cost, curves,
// counts and samples. The page has inline styles and inline SVG, no scripts and
// no outside resources, follows the reader's light or dark setting and fits a
// phone.
//
// The package knows nothing of runs, stores or models: the caller fills Data.
// Render is a pure function of it; the same Data gives the same bytes. Start at
// Data and Render; the page itself is page.html.
package report

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
)

// Data is everything the page shows. Each part may be empty; the page then says
// that it is not there yet, or leaves the section out.
type Data struct {
	ID, Name, State string // run id, character, "completed", "running", ...
	Description     string // the constitution's sentence about the character
	Model, Teacher  []Fact // identity: name, file, hash, kernel variant, ...
	Versions        []Fact
	Links           []Link
	Warnings        []string

	HeldOut HeldOut
	Answers []Answer // the check prompts, answered with no constitution
	// Measured are values of evaluations of the program's own.
	Measured []Measurement

	Stages []Stage
	// DPO and SFT are curves by metric name. Known names get titles and common
	// panels: loss, accuracy, margin, chosen_reward, rejected_reward, perplexity.
	// Others (grad_norm, lr, ...) follow in alphabetical order.
	DPO, SFT map[string][]Point

	Pairs        []Pair
	Reflections  []Sample
	Interactions []Conversation

	Spec []byte // resolved spec, JSON
	// Adjusted is what was changed in the spec while the run went.
	Adjusted []Adjusted
}

// Adjusted is one field of the spec that an update changed.
type Adjusted struct{ Key, From, To, At, By, Counts string }

// Fact is one line of a name-value list.
type Fact struct{ Name, Value string }

// Link is shown as an anchor when its URL is http, https or relative; the
// template replaces any other scheme.
type Link struct{ Text, URL string }

// HeldOut holds mean log-probs a token (natural logarithm). Rows == 0 means
// that nothing was measured.
type HeldOut struct {
	Rows int // recorded answers in character that were never trained on
	// Of these answers: under the base model, the base with the constitution in
	// its prompt, the model after DPO and the final model (no constitution).
	Base, BaseWithConstitution, DPO, Final float64
	// BaseWithTeacher is the base with all that a local teacher had before it,
	// example turns included; 0 = not measured.
	BaseWithTeacher float64
	// Index is the internalisation index as the run defines it.
	Index float64
	// Of the base model's own plain answers: what the character costs.
	PriceBase, PriceDPO, PriceFinal float64
}

// Measurement is one value of the three models, as text; "" where it was not measured.
type Measurement struct{ Name, Base, DPO, Character string }

// Answer is one prompt answered by the three models without a constitution.
type Answer struct{ Prompt, Base, DPO, Character string }

// Stage counts one stage's rows or steps.
type Stage struct {
	Name, State string
	Done, Total int64
	Kept        int64
	Dropped     map[string]int64 // by reason
	Seconds     float64
	// Note says anything else, such as "reused".
	Note string
}

// Point is one value of a curve.
type Point struct {
	Step  int64
	Value float64
}

// Pair is a sample of the preference data.
type Pair struct{ Prompt, Chosen, Rejected string }

// Sample is a sample reflection.
type Sample struct{ Prompt, Text string }

// Conversation is a sample interaction.
type Conversation struct {
	Title string
	Turns []Turn
}

// Turn is one message of a conversation.
type Turn struct{ Speaker, Text string }

//go:embed page.html
var pageText string

//go:embed live.js
var liveScript string

// Live makes the page one that a server shows while a run goes on: it refreshes itself and lets its rows be browsed.
type Live struct {
	// Base is the path of this page; BASE/rows answers with rows.
	Base string
	// Nonce is what the answer's Content-Security-Policy allows scripts by.
	Nonce string
}

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"num": number, "signed": signed, "clock": clock, "percent": percent, "reasons": reasons, "odd": func(i int) bool { return i%2 == 1 }, "script": func() template.JS { return template.JS(liveScript) }, //nolint:gosec // our own file
}).Parse(pageText))

type view struct {
	Data
	Headline
	DPOPanels, SFTPanels []panel
	SpecText             string
	Counts               []string
	Live                 *Live
}

// Render writes the page. It fails only when a plot cannot be drawn or w fails.
func Render(w io.Writer, d Data) error { return render(w, d, nil) }

// RenderLive writes the same page for a server to show while the run goes on.
func RenderLive(w io.Writer, d Data, l Live) error { return render(w, d, &l) }

func render(w io.Writer, d Data, l *Live) error {
	v := view{Live: l, Data: d, Headline: headline(d.HeldOut), SpecText: indent(d.Spec), Counts: counts(d.Stages)}
	var err error
	if v.DPOPanels, err = panels(dpoPanels, d.DPO); err != nil {
		return fmt.Errorf("report: DPO curves: %w", err)
	}
	if v.SFTPanels, err = panels(sftPanels, d.SFT); err != nil {
		return fmt.Errorf("report: SFT curves: %w", err)
	}
	var b bytes.Buffer
	if err := page.Execute(&b, v); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("report: write the page: %w", err)
	}
	return nil
}

// indent returns JSON with two spaces a level; what is not JSON is shown as it
// is.
func indent(data []byte) string {
	var b bytes.Buffer
	if json.Indent(&b, data, "", "  ") != nil {
		return string(data)
	}
	return b.String()
}
