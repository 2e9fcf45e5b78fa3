package activities

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/report"
	"github.com/opencharacter/opencharacter/store"
)

// samples is how many rows of each kind the report shows.
const samples = 8

// ReportData gathers what the report shows of a run, finished or not.
func ReportData(ctx context.Context, s *store.Store, r Record, p Plan) (report.Data, error) {
	c, err := getConstitution(ctx, s, p)
	if err != nil {
		return report.Data{}, err
	}
	d := report.Data{ID: r.ID, Name: p.Name, State: r.State, Description: c.Description, Warnings: r.Warnings, Spec: mustJSON(p.Spec)}
	d.Model = []report.Fact{{Name: "student", Value: p.Model.Name}, {Name: "sha256", Value: p.Model.SHA256}, {Name: "architecture", Value: p.Model.Architecture}, {Name: "kernels", Value: p.Variant}}
	d.Teacher = []report.Fact{{Name: "teacher", Value: p.Spec.Teacher}}
	switch p.Spec.Teacher {
	case "local":
		d.Teacher = append(d.Teacher, report.Fact{Name: "model", Value: p.Teacher.Name}, report.Fact{Name: "sha256", Value: p.Teacher.SHA256})
	case "openai":
		d.Teacher = append(d.Teacher, report.Fact{Name: "model", Value: p.Spec.TeacherOptions.Model}, report.Fact{Name: "endpoint", Value: p.Spec.TeacherOptions.BaseURL})
	}
	for _, x := range p.Own {
		to := &d.Versions
		if x.Kind == ownTeacher {
			to = &d.Teacher
		}
		*to = append(*to, report.Fact{Name: "own " + x.Kind, Value: x.Name + " " + x.Version})
	}
	for _, a := range r.Adjusted {
		d.Adjusted = append(d.Adjusted, report.Adjusted{Key: a.Key, From: string(a.From), To: string(a.To), At: a.At.UTC().Format(time.RFC3339), By: a.By, Counts: a.Counts})
	}
	for _, kind := range []string{KindPreferences, KindDPO, KindIntrospection, KindSFT, KindEvaluation} {
		st, ok := r.Stage(kind)
		if !ok {
			d.Stages = append(d.Stages, report.Stage{Name: kind, State: "not done"})
			continue
		}
		x := report.Stage{Name: kind, State: "completed", Done: st.Kept, Total: st.Kept, Kept: st.Kept, Dropped: st.Dropped}
		switch kind {
		case KindPreferences:
			d.Pairs, err = pairSamples(ctx, s, st)
		case KindDPO:
			d.DPO, err = curves(ctx, s, st)
		case KindSFT:
			d.SFT, err = curves(ctx, s, st)
		case KindIntrospection:
			d.Reflections, d.Interactions, err = introspectionSamples(ctx, s, st)
		case KindEvaluation:
			err = evaluated(ctx, s, st, &d)
		}
		if err == nil && st.Timings != nil {
			x.Seconds, err = seconds(ctx, s, *st.Timings)
		}
		if err != nil {
			return d, fmt.Errorf("report: stage %s: %w", kind, err)
		}
		d.Stages = append(d.Stages, x)
	}
	return d, nil
}

// curves reads a training's metrics as points by name.
func curves(ctx context.Context, s *store.Store, st Stage) (map[string][]report.Point, error) {
	if st.Metrics == nil {
		return map[string][]report.Point{}, nil
	}
	b, err := s.Get(ctx, *st.Metrics)
	if err != nil {
		return nil, err
	}
	return points(b)
}

// seconds adds up a training's step times.
func seconds(ctx context.Context, s *store.Store, r store.Ref) (total float64, err error) {
	b, err := s.Get(ctx, r)
	if err != nil {
		return 0, err
	}
	return total, eachLine(b, func(row map[string]any) {
		v, _ := row["seconds"].(float64)
		total += v
	})
}

func eachLine(b []byte, do func(map[string]any)) error {
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		var row map[string]any
		if err := json.Unmarshal(sc.Bytes(), &row); err != nil {
			return err
		}
		do(row)
	}
	return sc.Err()
}

func pairSamples(ctx context.Context, s *store.Store, st Stage) ([]report.Pair, error) {
	rows, err := dataset.ReadParts[dataset.Pair](ctx, s, st.Parts)
	var out []report.Pair
	for _, r := range rows[:min(samples, len(rows))] {
		out = append(out, report.Pair{Prompt: text(r.Prompt), Chosen: text(r.Chosen), Rejected: text(r.Rejected)})
	}
	return out, err
}

func text(msgs []dataset.Message) string {
	var parts []string
	for _, m := range msgs {
		parts = append(parts, m.Content)
	}
	return strings.Join(parts, "\n")
}

func introspectionSamples(ctx context.Context, s *store.Store, st Stage) (refl []report.Sample, talks []report.Conversation, err error) {
	rows, err := dataset.ReadParts[dataset.Conversation](ctx, s, st.Parts)
	for _, r := range rows {
		switch {
		case r.Kind == "reflection" && len(refl) < samples:
			refl = append(refl, report.Sample{Prompt: r.PromptText, Text: r.Messages[len(r.Messages)-1].Content})
		case r.Kind == "interaction" && len(talks) < samples/2:
			c := report.Conversation{Title: r.ID}
			for _, m := range r.Messages {
				if m.Role == "system" {
					continue
				}
				who := "second speaker"
				if m.Role == "assistant" {
					who = "first speaker"
				}
				c.Turns = append(c.Turns, report.Turn{Speaker: who, Text: m.Content})
			}
			talks = append(talks, c)
		}
	}
	return refl, talks, err
}

// measurements are the values of own evaluations, model beside model.
func measurements(m [3]Measured) (out []report.Measurement) {
	for _, name := range slices.Sorted(maps.Keys(m[0].Own)) {
		for _, value := range slices.Sorted(maps.Keys(m[0].Own[name])) {
			row := report.Measurement{Name: name + ": " + value}
			for i, to := range []*string{&row.Base, &row.DPO, &row.Character} {
				if x, ok := m[i].Own[name][value]; ok {
					*to = strconv.FormatFloat(x, 'g', 4, 64)
				}
			}
			out = append(out, row)
		}
	}
	return out
}

// evaluated fills in the three models' answers and the held-out gain.
func evaluated(ctx context.Context, s *store.Store, st Stage, d *report.Data) error {
	var m [3]Measured
	for i, r := range st.Parts {
		if i == len(m) {
			break
		}
		var err error
		if m[i], err = getJSON[Measured](ctx, s, r); err != nil {
			return err
		}
	}
	for i, a := range m[0].Answers {
		row := report.Answer{Prompt: a.Prompt, Base: a.Response}
		if i < len(m[1].Answers) {
			row.DPO = m[1].Answers[i].Response
		}
		if i < len(m[2].Answers) {
			row.Character = m[2].Answers[i].Response
		}
		d.Answers = append(d.Answers, row)
	}
	d.Measured = measurements(m)
	v := st.Values
	d.HeldOut = report.HeldOut{Rows: m[0].HeldOutRows, Base: m[0].HeldOut, BaseWithConstitution: m[0].WithConstitution, BaseWithTeacher: m[0].WithTeacher, DPO: m[1].HeldOut, Final: m[2].HeldOut,
		Index: v["index_character"], PriceBase: m[0].Plain, PriceDPO: m[1].Plain, PriceFinal: m[2].Plain}
	return nil
}
