package chat

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ardanlabs/jinja"

	"github.com/opencharacter/opencharacter/testenv/hostile"
)

// FuzzExpression: what the guard lets through is what the bare engine makes of it.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{"s.replace('a', 'b')", "(s ~ 'x').replace('a', s).strip() | replace('b', 'c')", "l | join(', ')", "not s.replace('a','') == 'b'",
		"{'a': s}.a.replace('b', s)", "d.format", "'{}-{0}'.format(s, 1) + d['format']", "s | indent(2, true)", "l[0].replace('a', l[1].replace('b', 'c'))",
		"s.split('b')[0].replace('a', '') if s.replace('a', 'b') else 1", "l | map(attribute='x') | join(attribute='y')", "d | tojson(indent=2)", "s[1:].replace('b', \"'\")"} {
		f.Add(s)
	}
	values := func() map[string]jinja.Value {
		d := jinja.NewDict()
		d.AsDict().Set("format", jinja.NewString("f"))
		d.AsDict().Set("replace", jinja.NewString("r"))
		return map[string]jinja.Value{"s": jinja.NewString("abab\nc"), "l": jinja.NewList([]jinja.Value{jinja.NewString("xa"), jinja.NewInt(7), jinja.NewBool(true)}), "d": d}
	}
	f.Fuzz(func(t *testing.T, expression string) {
		if len(expression) > 200 || strings.ContainsAny(expression, "%#\\\r") || strings.Contains(expression, "range") {
			return // what the rest of the guard changes on purpose
		}
		source := "{{ " + expression + " }}"
		hostile.Bounds{Base: 1 << 30}.Hold(t, len(source), func() {
			g, err := compile(source)
			if err != nil {
				return
			}
			got, err := g.render(values(), 0)
			if err != nil {
				return
			}
			// What the guard let through is small, so the engine may have it too.
			bare, err := jinja.Compile(source)
			if err != nil {
				return // the guard's own reading of brackets is a little wider
			}
			want, err := bare.RenderValues(values())
			if err == nil && got != want {
				t.Errorf("%s gives %q, the engine alone %q", source, got, want)
			}
		})
	})
}

// FuzzTemplateOf: a tokenizer_config.json gives a template or an error.
func FuzzTemplateOf(f *testing.F) {
	f.Add([]byte(`{"chat_template":"a"}`))
	f.Add([]byte(`{"chat_template":[{"name":"tool_use","template":"t"},{"name":"default","template":"d"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		hostile.Bounds{}.Hold(t, len(data), func() {
			if s, err := Template(data); (s == "") != (err != nil) {
				t.Errorf("%q and %v", s, err)
			}
		})
	})
}

// TestManySpecials: a text of nothing but the first byte of thousands of special tokens is looked through in good time.
func TestManySpecials(t *testing.T) {
	f := &Format{special: map[string]bool{}}
	f.heads['<'] = true
	for i := range 6000 {
		s := fmt.Sprintf("<unused%d>", i)
		f.specials, f.special[s] = append(f.specials, s), true
	}
	f.lengths = []int{9, 10, 11, 12}
	text := strings.Repeat("<unused", 1<<17) + "<unused5999><unused6000><unus"
	hostile.Bounds{}.Hold(t, len(text), func() {
		got := f.dangerous(text)
		want := []int{7<<17 + 1, len(text) - 4}
		if !slices.Equal(got, want) {
			t.Errorf("marks at %d, want %d", got, want)
		}
	})
}
