package constitution_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

// TestLimits: at each limit a file is read, one step further it is refused in good time, with its line.
func TestLimits(t *testing.T) {
	nest := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	maps := func(n int) string {
		var b strings.Builder
		b.WriteString("name: a\ntraits:\n- I sail.\ntags:\n")
		for i := range n {
			fmt.Fprintf(&b, "%s- x:\n", strings.Repeat(" ", 2*i))
		}
		return b.String()
	}
	bomb := "name: a\ntraits: [I sail.]\na0: &a0 [x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		bomb += fmt.Sprintf("a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i+1, i+1, i, i, i, i, i, i, i, i, i)
	}
	for name, c := range map[string]struct{ file, text, want string }{
		"JSON as deep as may be": {"a.json", `{"name":"a","traits":["I sail."],"tags":` + nest(63) + `}`, "list"}, // read, and then not a list of texts
		"JSON nested":            {"a.json", `{"name":"a","traits":["I sail."],"tags":` + nest(66) + `}`, "nested too deep"},
		"JSON nested for ever":   {"a.json", strings.Repeat("[", 1<<19), "nested too deep"},
		"YAML nested":            {"a.yaml", "name: a\ntraits: [I sail.]\ntags: " + nest(66), "nested too deep"},
		"YAML maps":              {"a.yaml", maps(300), "nested too deep"},
		"YAML marks":             {"a.yaml", strings.Repeat("- ", 70) + "x", "nested too deep"},
		"YAML aliases":           {"a.yaml", bomb, "line 3"},
		"YAML long line":         {"a.yaml", "name: a\ntraits: [" + strings.Repeat("x, ", 12_000) + "]", "longer than"},
		"YAML anchors":           {"a.yaml", strings.Repeat("- &a x\n", 1001), "anchors"},
		"large":                  {"a.txt", strings.Repeat("I sail. ", constitution.MaxFileBytes/8+1), "the limit is"},
		"traits":                 {"a.txt", strings.Repeat("I sail.\n\n", constitution.MaxTraits+1), "the limit is 100"},
		"fields": {"a.json", `{` + strings.Repeat(`"name":1,`, 1) + func() string {
			var b strings.Builder
			for i := range 300 {
				fmt.Fprintf(&b, "%q:1,", fmt.Sprint("f", i))
			}
			return b.String()
		}() + `"x":1}`, "limit 256"},
	} {
		hostile.Bounds{Base: 64 << 20, PerByte: 4000}.Hold(t, len(c.text), func() {
			_, err := constitution.Parse([]byte(c.text), c.file)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
		})
	}
	rows := strings.Repeat("{}\n", constitution.MaxRecordedBytes/3+1)
	if _, err := constitution.ParseRecorded([]byte(rows), "a.jsonl"); err == nil || !strings.Contains(err.Error(), "the limit is") {
		t.Errorf("recorded answers: %v", err)
	}
}
