package spec

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/reference/spec.md instead of comparing with it")

// TestReference: docs/reference/spec.md says of every field what its comment here says, and its value in every preset.
// `make docs` writes it.
func TestReference(t *testing.T) {
	path := filepath.Join("..", "docs", "reference", "spec.md")
	want := reference(t)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil || string(have) != want {
		t.Errorf("docs/reference/spec.md is not what the code says (%v): make docs writes it again", err)
	}
}

func reference(t *testing.T) string {
	t.Helper()
	comments := fieldComments(t)
	var presets []map[string]any
	for _, name := range Presets() {
		s, ok := preset(name)
		if !ok {
			t.Fatal(name)
		}
		raw, err := s.Full()
		if err != nil {
			t.Fatal(err)
		}
		var tree map[string]any
		if err := json.Unmarshal(raw, &tree); err != nil {
			t.Fatal(err)
		}
		presets = append(presets, tree)
	}
	var b strings.Builder
	b.WriteString("# Every field of a spec\n\nMade of the code by `make docs`: change `spec/spec.go` or `spec/presets.go`, not this page.\n\n" +
		"A spec is the JSON that starts a run; on the command line `--set FIELD=VALUE` sets one field. Every field is optional: one that is left out has the\n" +
		"preset's value, which stands in the last three columns. `\"\"` is empty. Unknown fields are refused.\n\n")
	fmt.Fprintf(&b, "| field | type | meaning | %s |\n|---|---|---|---|---|---|\n", strings.Join(Presets(), " | "))
	rows := 0
	var walk func(prefix string, typ reflect.Type, values []map[string]any)
	walk = func(prefix string, typ reflect.Type, values []map[string]any) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			doc := comments[typ.Name()+"."+f.Name]
			if doc == "" {
				t.Errorf("%s.%s has no comment that says what it means", typ.Name(), f.Name)
			}
			if f.Type.Kind() == reflect.Struct {
				fmt.Fprintf(&b, "| **`%s`** | group | %s | | | |\n", prefix+name, doc)
				var inner []map[string]any
				for _, v := range values {
					m, _ := v[name].(map[string]any)
					inner = append(inner, m)
				}
				walk(prefix+name+".", f.Type, inner)
				continue
			}
			rows++
			fmt.Fprintf(&b, "| `%s` | %s | %s |", prefix+name, typeName(f.Type), doc)
			for _, v := range values {
				fmt.Fprintf(&b, " %s |", valueText(t, v[name]))
			}
			b.WriteString("\n")
		}
	}
	walk("", reflect.TypeFor[Spec](), presets)
	if rows < 80 {
		t.Errorf("%d fields: the walk does not see them all", rows)
	}
	return b.String()
}

// fieldComments reads the comments of this package's structs: "Type.Field" to one line.
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), "spec.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	ast.Inspect(tree, func(n ast.Node) bool {
		s, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if st, ok := s.Type.(*ast.StructType); ok {
			for _, f := range st.Fields.List {
				for _, name := range f.Names {
					out[s.Name.Name+"."+name.Name] = sentence(name.Name, f.Doc.Text())
				}
			}
		}
		return true
	})
	return out
}

// sentence is a Go comment for people who know no Go: without the field's own name at its beginning.
func sentence(name, doc string) string {
	doc = strings.Join(strings.Fields(doc), " ")
	for _, begin := range []string{name + " is ", name + " says ", name + " are ", name + " "} {
		if rest, ok := strings.CutPrefix(doc, begin); ok {
			doc = rest
			break
		}
	}
	doc = strings.NewReplacer("|", "\\|", "<", "&lt;").Replace(doc)
	return strings.TrimSuffix(doc, ".")
}

func typeName(typ reflect.Type) string {
	switch typ.Kind() {
	case reflect.Slice:
		return "list of texts"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "number"
	}
	return "whole number"
}

func valueText(t *testing.T, v any) string {
	t.Helper()
	if list, ok := v.([]any); ok && len(list) > 4 {
		return fmt.Sprintf("%d texts", len(list))
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return "`" + string(b) + "`"
}
