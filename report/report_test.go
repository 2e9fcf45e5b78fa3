package report_test

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/report"
)

// sample is a run as a small model would give it.
func sample() report.Data {
	d := report.Data{
		ID: "captain-1", Name: "captain", State: "completed", Description: "An old sea captain.",
		Model:    []report.Fact{{"name", "smollm2-135m-instruct"}, {"sha256", strings.Repeat("ab", 32)}},
		Teacher:  []report.Fact{{"kind", "local"}},
		Versions: []report.Fact{{"kernel variant", "avx512"}},
		Links:    []report.Link{{"Temporal", "http://127.0.0.1:8233/run"}, {"bad", "javascript:alert(1)"}},
		Warnings: []string{"accuracy is 1.0 from step 20 on: possible overfitting"},
		HeldOut:  report.HeldOut{Rows: 24, Base: -4.449, BaseWithConstitution: -3.967, DPO: -3.959, Final: -3.97, Index: 1.02, PriceBase: -1.44, PriceDPO: -2.242, PriceFinal: -2.2},
		Answers:  []report.Answer{{"Hello!", "Hello! How can I help you?", "Arr, matey!", "Ahoy, <b>me hearty</b>!"}},
		Stages: []report.Stage{
			{Name: "preferences", State: "done", Done: 128, Total: 128, Kept: 96, Dropped: map[string]int64{"unfinished": 30, "too_short_answer": 2}, Seconds: 83.4},
			{Name: "dpo", State: "done", Done: 48, Total: 48, Seconds: 3725, Note: "reused"},
		},
		DPO:          map[string][]report.Point{"loss": nil, "accuracy": nil, "margin": nil, "chosen_reward": nil, "rejected_reward": nil, "grad_norm": nil},
		SFT:          map[string][]report.Point{"loss": {{1, 2.5}, {2, 2.1}}, "perplexity": {{1, 12.2}, {2, 8.2}}},
		Pairs:        []report.Pair{{"Why?", "Arr, because!", "Because."}},
		Reflections:  []report.Sample{{"Who are you?", "I be Grimjack.\nAye."}},
		Interactions: []report.Conversation{{"Hello there.", []report.Turn{{"A", "Ahoy!"}, {"B", "Aye!"}}}},
		Spec:         []byte(`{"preset":"demo","seed":1}`),
	}
	for i := range int64(48) {
		x := float64(i)
		d.DPO["loss"] = append(d.DPO["loss"], report.Point{Step: i + 1, Value: math.Ln2*math.Exp(-x/12) + 0.02*math.Sin(x)})
		d.DPO["accuracy"] = append(d.DPO["accuracy"], report.Point{Step: i + 1, Value: 1 - 0.5*math.Exp(-x/6)})
		d.DPO["margin"] = append(d.DPO["margin"], report.Point{Step: i + 1, Value: x / 5})
		d.DPO["chosen_reward"] = append(d.DPO["chosen_reward"], report.Point{Step: i + 1, Value: x / 9})
		d.DPO["rejected_reward"] = append(d.DPO["rejected_reward"], report.Point{Step: i + 1, Value: -x / 11})
		d.DPO["grad_norm"] = append(d.DPO["grad_norm"], report.Point{Step: i + 1, Value: 3 + math.Cos(x)})
	}
	return d
}

func render(t *testing.T, d report.Data) string {
	t.Helper()
	var b bytes.Buffer
	if err := report.Render(&b, d); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestRender(t *testing.T) {
	got := render(t, sample())
	if file := os.Getenv("CHARACTER_REPORT_OUT"); file != "" { // for a look with a browser
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{
		"<h1>captain</h1>", "Run captain-1 · completed", `<a href="http://127.0.0.1:8233/run">Temporal</a>`,
		`class="verdict good"`, "The character took",
		"Held-out gain &#43;0.479 a token: on 24 answers", "1.61 times the probability",
		"internalisation index compares the two: 1.020", "98 % of that is there", "changed by -0.760",
		"Ahoy, &lt;b&gt;me hearty&lt;/b&gt;!",
		"Loss 0.693 → ", "Accuracy 0.500 → ", "Margin 0.000 → 9.400; Chosen reward", "Grad norm", "Perplexity 12.200 → 8.200",
		"128 of 128", "unfinished 30, too short answer 2", "1 min 23 s", "1 h 2 min", "reused",
		"preferences: 96 of 128 rows were kept (75 %).",
		"Arr, because!", "I be Grimjack.", "Aye!", "avx512",
		"&#34;preset&#34;: &#34;demo&#34;", "possible overfitting",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, never := range []string{"<script", "<b>me hearty", "javascript:alert", "<?xml", "<link", "@import", "url(", `fill:#000000`} {
		if strings.Contains(got, never) {
			t.Errorf("the page holds %q", never)
		}
	}
	order := []string{"Does it sound", "Answers with no", ">Curves<", ">Counts<", "Samples of", "What was run"}
	for i := 1; i < len(order); i++ {
		if strings.Index(got, order[i-1]) > strings.Index(got, order[i]) {
			t.Errorf("%q must stand before %q", order[i-1], order[i])
		}
	}
	if n := strings.Count(got, "<svg role="); n != 6 {
		t.Errorf("%d plots, want 6", n)
	}
}

// The plots must be well-formed, or a browser shows none of the page after them.
func TestPlotsAreWellFormed(t *testing.T) {
	got := render(t, sample())
	for rest := got; ; {
		i := strings.Index(rest, "<svg role=")
		if i < 0 {
			return
		}
		end := strings.Index(rest[i:], "</svg>")
		if end < 0 {
			t.Fatal("a plot has no end")
		}
		svg := rest[i : i+end+len("</svg>")]
		dec := xml.NewDecoder(strings.NewReader(svg))
		for {
			if _, err := dec.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("plot: %v", err)
			}
		}
		rest = rest[i+end:]
	}
}

func TestRenderIsDeterministic(t *testing.T) {
	first := render(t, sample())
	for range 5 {
		if render(t, sample()) != first {
			t.Fatal("the same data gave another page")
		}
	}
}

func TestRenderEmpty(t *testing.T) {
	got := render(t, report.Data{})
	for _, want := range []string{"Character training", "No run id · state unknown", "was not measured", "No answers yet", "No training steps yet", "No stages yet", "No spec"} {
		if !strings.Contains(got, want) {
			t.Errorf("the empty page lacks %q", want)
		}
	}
	if strings.Contains(got, "Samples of the data") || strings.Contains(got, "<svg") || strings.Contains(got, "NaN") {
		t.Error("the empty page shows samples, plots or NaN")
	}
}

func TestEscaping(t *testing.T) {
	const evil = `"><script>alert(1)</script>`
	d := report.Data{
		ID: evil, Name: evil, State: evil, Description: evil, Model: []report.Fact{{evil, evil}}, Warnings: []string{evil},
		Answers: []report.Answer{{evil, evil, evil, evil}}, Stages: []report.Stage{{Name: evil, State: evil, Kept: 1, Dropped: map[string]int64{evil: 1}, Note: evil}},
		DPO: map[string][]report.Point{evil: {{1, 1}, {2, 3}}, "margin": {{1, 1}}}, Pairs: []report.Pair{{evil, evil, evil}},
		Reflections: []report.Sample{{evil, evil}}, Interactions: []report.Conversation{{evil, []report.Turn{{evil, evil}}}},
		Links: []report.Link{{evil, evil}}, Spec: []byte(evil),
	}
	if got := render(t, d); strings.Contains(got, "<script") {
		t.Error("a script came through")
	}
}

func TestVerdicts(t *testing.T) {
	for _, tc := range []struct {
		name string
		h    report.HeldOut
		want string
	}{
		{"teacher", report.HeldOut{Rows: 24, Base: -4, BaseWithConstitution: -3, BaseWithTeacher: -2.5, DPO: -3.4, Final: -3.4, Index: 0.6}, "example turns included"},
		{"part", report.HeldOut{Rows: 24, Base: -4, BaseWithConstitution: -3, DPO: -3.4, Final: -3.4, Index: 0.6}, "took in part"},
		{"faint", report.HeldOut{Rows: 24, Base: -4, BaseWithConstitution: -3, DPO: -3.8, Final: -3.9, Index: 0.1}, "only faintly"},
		{"none", report.HeldOut{Rows: 24, Base: -4, BaseWithConstitution: -3, DPO: -4, Final: -4.2, Index: -0.2}, "did not take"},
		{"broken", report.HeldOut{Rows: 24, Base: -4, Final: math.NaN()}, "not numbers"},
	} {
		if got := render(t, report.Data{HeldOut: tc.h}); !strings.Contains(got, tc.want) {
			t.Errorf("%s: the page lacks %q", tc.name, tc.want)
		}
	}
}

// Curves of broken runs must neither fail nor hang the report.
func FuzzCurves(f *testing.F) {
	add := func(values ...float64) {
		var b []byte
		for _, v := range values {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
		f.Add(b)
	}
	add(1)
	add(0, 0, 0)
	add(math.NaN(), math.Inf(1), 2)
	add(1e30, -1e30, 1e-300)
	add(1, 1+1e-15, 1-1e-15)
	add(math.MaxFloat64, math.SmallestNonzeroFloat64)
	f.Fuzz(func(t *testing.T, data []byte) {
		var pts []report.Point
		for i := 0; i+8 <= len(data) && i < 800; i += 8 {
			bits := binary.LittleEndian.Uint64(data[i:])
			pts = append(pts, report.Point{Step: int64(bits >> 7), Value: math.Float64frombits(bits)})
		}
		if err := report.Render(io.Discard, report.Data{DPO: map[string][]report.Point{"loss": pts}}); err != nil {
			t.Fatal(err)
		}
	})
}
