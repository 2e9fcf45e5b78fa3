package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Headline says in plain words what the held-out figures mean.
type Headline struct {
	Verdict, Class string   // one sentence; good, fair, poor or none
	Sentences      []string // what it means
	Rows           []heldOutRow
}

type heldOutRow struct {
	Model           string
	Character, Gain float64
	Plain, Price    float64
	HasGain         bool
	HasPlain        bool
}

// headline compares the models. Gains are differences of mean log-probs a
// token; exp(gain) is how many times as likely a token of the answer became.
func headline(h HeldOut) Headline {
	if h.Rows == 0 {
		return Headline{Class: "none", Verdict: "The held-out gain was not measured.", Sentences: []string{"There were no recorded answers in character to hold out, or the run has not come that far. Judge by the answers."}}
	}
	prompt, dpo, final := h.BaseWithConstitution-h.Base, h.DPO-h.Base, h.Final-h.Base
	var out Headline
	out.Rows = []heldOutRow{
		{Model: "base", Character: h.Base, Plain: h.PriceBase, HasPlain: h.PriceBase != 0},
		{Model: "base with the constitution in its prompt", Character: h.BaseWithConstitution, Gain: prompt, HasGain: true},
		{Model: "base with the teacher's prompt, example turns included", Character: h.BaseWithTeacher, Gain: h.BaseWithTeacher - h.Base, HasGain: true},
		{Model: "after DPO, no constitution", Character: h.DPO, Gain: dpo, HasGain: true, Plain: h.PriceDPO, Price: h.PriceDPO - h.PriceBase, HasPlain: h.PriceBase != 0},
		{Model: "final, no constitution", Character: h.Final, Gain: final, HasGain: true, Plain: h.PriceFinal, Price: h.PriceFinal - h.PriceBase, HasPlain: h.PriceBase != 0},
	}
	if h.BaseWithTeacher == 0 || h.BaseWithTeacher == h.BaseWithConstitution {
		out.Rows = slices.Delete(out.Rows, 2, 3)
	}
	share := h.Index // of what the prompt gains, that the final model has without it
	if prompt > 0 {
		share = final / prompt
	}
	switch {
	case math.IsNaN(share) || math.IsNaN(final):
		out.Class, out.Verdict = "poor", "The held-out figures are not numbers; the final model is broken."
		return out
	case final <= 0:
		out.Class, out.Verdict = "poor", "The character did not take: the final model finds unseen answers in character no more likely than the base model does."
	case share >= 0.9:
		out.Class, out.Verdict = "good", "The character took: without any prompt the model is as much in character as the base model is with its constitution."
	case share >= 0.5:
		out.Class, out.Verdict = "fair", "The character took in part: less than the constitution in the prompt would give."
	default:
		out.Class, out.Verdict = "poor", "The character took only faintly."
	}
	out.Sentences = append(out.Sentences, fmt.Sprintf("Held-out gain %s a token: on %d answers in character that were never trained on, the final model gives each token on average %s times the probability that the base model gives it, with no constitution in the prompt.",
		signed(final), h.Rows, times(final)))
	if prompt > 0 {
		out.Sentences = append(out.Sentences, fmt.Sprintf("The constitution in the prompt gains the base model %s. The internalisation index compares the two: %s.", signed(prompt), number(h.Index)))
	}
	if dpo > 0 {
		out.Sentences = append(out.Sentences, fmt.Sprintf("DPO gained %s; after the introspection stage %s of that is there.", signed(dpo), percent(final/dpo)))
	}
	if h.PriceBase != 0 {
		out.Sentences = append(out.Sentences, fmt.Sprintf("The price: the base model's own plain answers changed by %s a token (%s times as likely).", signed(h.PriceFinal-h.PriceBase), times(h.PriceFinal-h.PriceBase)))
	}
	return out
}

// times shows exp(d), a ratio of probabilities.
func times(d float64) string { return strconv.FormatFloat(math.Exp(d), 'g', 3, 64) }

// number shows three decimals, fewer for large values.
func number(x float64) string {
	if math.Abs(x) < 0.0005 {
		x = 0 // no "-0.000"
	}
	if math.Abs(x) >= 1000 {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'f', 3, 64)
}

// signed shows +0.490 or -0.120.
func signed(x float64) string { return fmt.Sprintf("%+.3f", x) }

func percent(x float64) string { return fmt.Sprintf("%.0f %%", 100*x) }

// clock shows seconds as 42 s, 3 min 20 s or 2 h 5 min.
func clock(s float64) string {
	n := int64(math.Round(s))
	switch {
	case math.IsNaN(s) || s <= 0:
		return ""
	case n < 60:
		return fmt.Sprintf("%d s", max(n, 1))
	case n < 3600:
		return fmt.Sprintf("%d min %d s", n/60, n%60)
	}
	return fmt.Sprintf("%d h %d min", n/3600, n%3600/60)
}

// reasons lists drop counts, the largest first.
func reasons(m map[string]int64) string {
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	slices.SortFunc(names, func(a, b string) int {
		if m[a] != m[b] {
			return int(m[b] - m[a])
		}
		return strings.Compare(a, b)
	})
	for i, k := range names {
		names[i] = fmt.Sprintf("%s %d", strings.ReplaceAll(k, "_", " "), m[k])
	}
	return strings.Join(names, ", ")
}

// counts says in a sentence what each stage with drops lost.
func counts(stages []Stage) []string {
	var out []string
	for _, s := range stages {
		var dropped int64
		for _, n := range s.Dropped {
			dropped += n
		}
		if made := s.Kept + dropped; dropped > 0 && made > 0 {
			out = append(out, fmt.Sprintf("%s: %d of %d rows were kept (%s).", s.Name, s.Kept, made, percent(float64(s.Kept)/float64(made))))
		}
	}
	return out
}
