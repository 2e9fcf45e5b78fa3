package chat

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/ardanlabs/jinja"
)

// Calls that make a long text out of short ones: x.replace(a, b), x.format(a), x | replace(a, b), x | join(s) and
// x | indent(n). One of them in a chain of itself would fill the memory before its result could be seen, so the rewritten
// template calls the functions of this file instead, which know the size of a result before they make it. What they
// make is what the engine makes.

var (
	growingMethod = regexp.MustCompile(`\.\s*(replace|format)\b\s*(\(?)`)
	growingFilter = regexp.MustCompile(`\|\s*(replace|join|indent)\b`)
	jsonIndent    = regexp.MustCompile(`\bindent\s*=`)
	smallIndent   = regexp.MustCompile(`\bindent\s*=\s*[0-9]{1,2}\s*[,)]`)
)

// mask is body with the contents of its string literals blotted out, byte for byte.
func mask(body string) string {
	return literal.ReplaceAllStringFunc(body, func(s string) string { return s[:1] + strings.Repeat("q", len(s)-2) + s[:1] })
}

// bound rewrites the growing calls of a tag.
func (g guardNames) bound(body string) (string, error) {
	code := mask(body)
	if strings.Contains(code, "__filter_") { // the engine's own names for its filters
		return "", errors.New("a name with __filter_ is not allowed")
	}
	if len(jsonIndent.FindAllString(code, -1)) != len(smallIndent.FindAllString(code, -1)) {
		return "", errors.New("indent must be a number of at most two digits")
	}
	before := make(map[int]string) // what goes in before a byte
	instead := make(map[int]string)
	until := make(map[int]int) // where to go on after what stands instead
	for _, m := range growingFilter.FindAllStringSubmatchIndex(code, -1) {
		before[m[2]] = g.prefix
	}
	for _, m := range growingMethod.FindAllStringSubmatchIndex(code, -1) {
		name := code[m[2]:m[3]]
		start := primary(code, m[0])
		if start == m[0] {
			return "", fmt.Errorf("what .%s belongs to cannot be found", name)
		}
		if m[4] == m[5] { // no call: a field of that name, or a function to be kept
			before[start] = g.prefix + "field(" + before[start]
			instead[m[0]], until[m[0]] = ", '"+name+"')", m[3]
			continue
		}
		before[start] = g.prefix + name + "(" + before[start] // the last call of a chain is the outermost
		instead[m[0]], until[m[0]] = ", ", m[5]
		if rest := strings.TrimLeft(code[m[5]:], spaces); strings.HasPrefix(rest, ")") {
			instead[m[0]] = ""
		}
	}
	var b strings.Builder
	for i := 0; i < len(body); {
		b.WriteString(before[i])
		if to, ok := until[i]; ok {
			b.WriteString(instead[i])
			i = to
			continue
		}
		b.WriteByte(body[i])
		i++
	}
	return b.String(), nil
}

// primary returns where the operand begins that ends before code[end]: a name, text or bracket with all fields, calls
// and indices that follow it. It returns end when there is none.
func primary(code string, end int) int {
	word := func(c byte) bool {
		return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
	}
	at := end
	for {
		i := len(strings.TrimRight(code[:at], spaces))
		if i == 0 {
			return at
		}
		switch c := code[i-1]; {
		case c == '\'' || c == '"':
			return strings.LastIndexByte(code[:i-1], c)
		case c == ')' || c == ']' || c == '}':
			open, ok := opening(code, i-1)
			if !ok {
				return end
			}
			at = open
			// What stands right before it is what is called or indexed.
			if k := len(strings.TrimRight(code[:open], spaces)); c == '}' || k == 0 || !word(code[k-1]) && strings.IndexByte(")]'\"", code[k-1]) < 0 || keyword(code[:k]) {
				return at
			}
		case word(c):
			k := i
			for k > 0 && word(code[k-1]) {
				k--
			}
			if at < end && keyword(code[:i]) {
				return at
			}
			at = k
			dot := len(strings.TrimRight(code[:k], spaces))
			if dot == 0 || code[dot-1] != '.' {
				return at
			}
			at = dot - 1
		default:
			return at
		}
	}
}

var keywords = regexp.MustCompile(`(?:^|\W)(?:and|or|not|in|is|if|elif|else|for|set|recursive|with|call|filter|include)$`)

// keyword reports whether code ends with a word that is no operand.
func keyword(code string) bool { return keywords.MatchString(code) }

// opening returns the place of the bracket that code[at] closes.
func opening(code string, at int) (int, bool) {
	depth := 0
	for i := at; i >= 0; i-- {
		switch code[i] {
		case ')', ']', '}':
			depth++
		case '(', '[', '{':
			if depth--; depth == 0 {
				return i, true
			}
		}
	}
	return 0, false
}

var errLarge = errors.New("a value is too large")

// shown is a value as the engine prints it.
func shown(v jinja.Value) string {
	switch {
	case v.IsUndefined(), v.IsNone(), v.IsCallable():
		return ""
	case v.IsBool():
		if v.AsBool() {
			return "True"
		}
		return "False"
	case v.IsFloat():
		return fmt.Sprintf("%g", v.AsFloat())
	case v.IsInt():
		return fmt.Sprint(v.AsInt())
	case v.IsString():
		return v.AsString()
	}
	return v.String()
}

// field is x.name without a call. A text has functions of these names, but none that can be kept for later.
func (r *run) field(args []jinja.Value) (jinja.Value, error) {
	if len(args) != 2 || !args[1].IsString() {
		return jinja.Undefined(), errors.New("a field is of one value")
	}
	name := args[1].AsString()
	if args[0].IsDict() {
		v, ok := args[0].AsDict().Get(name)
		if !ok {
			v = jinja.Undefined()
		}
		return v, nil
	}
	if !args[0].IsString() {
		return jinja.Undefined(), nil
	}
	return jinja.NewCallable("str."+name, func([]jinja.Value, map[string]jinja.Value) (jinja.Value, error) {
		return jinja.Undefined(), fmt.Errorf("%s must be called where it is named", name)
	}), nil
}

// texts shows some values, which together must be within the limit.
func (r *run) texts(args []jinja.Value) ([]string, error) {
	left := r.values
	out := make([]string, len(args))
	for i, v := range args {
		if err := measure(v, &left, 32); err != nil {
			return nil, err
		}
		out[i] = shown(v)
	}
	return out, nil
}

func number(v jinja.Value) (int, error) {
	if !v.IsInt() || v.AsInt() > 1<<20 || v.AsInt() < -1<<20 {
		return 0, errors.New("a whole number is expected")
	}
	return int(v.AsInt()), nil
}

// replace is x.replace(old, new[, count]) and the filter of that name.
func (r *run) replace(args []jinja.Value, named map[string]jinja.Value) (jinja.Value, error) {
	if len(args) < 3 || len(args) > 4 {
		return jinja.Undefined(), errors.New("replace takes a text, what to look for and what to put there")
	}
	t, err := r.texts(args[:3])
	if err != nil {
		return jinja.Undefined(), err
	}
	count := -1
	if c, ok := named["count"]; ok {
		args = append(args[:3:3], c)
	}
	if len(args) == 4 {
		if count, err = number(args[3]); err != nil {
			return jinja.Undefined(), fmt.Errorf("replace: %w", err)
		}
	}
	n := strings.Count(t[0], t[1])
	if count >= 0 {
		n = min(n, count)
	}
	if len(t[0])+n*(len(t[2])-len(t[1])) > r.values {
		return jinja.Undefined(), fmt.Errorf("replace: %w", errLarge)
	}
	return jinja.NewString(strings.Replace(t[0], t[1], t[2], count)), nil
}

// join is the filter of that name.
func (r *run) join(args []jinja.Value, named map[string]jinja.Value) (jinja.Value, error) {
	if len(args) == 0 || len(args) > 2 {
		return jinja.Undefined(), errors.New("join takes a list and what to put between")
	}
	rest := args[1:]
	if d, ok := named["d"]; ok {
		rest = []jinja.Value{d}
	}
	between := ""
	if len(rest) > 0 {
		t, err := r.texts(rest)
		if err != nil {
			return jinja.Undefined(), err
		}
		between = t[0]
	}
	if !args[0].IsList() {
		t, err := r.texts(args[:1])
		if err != nil {
			return jinja.Undefined(), err
		}
		return jinja.NewString(t[0]), nil
	}
	items := args[0].AsList().Items
	if field, ok := named["attribute"]; ok {
		items = append([]jinja.Value(nil), items...)
		for i, v := range items {
			if v.IsDict() {
				if f, ok := v.AsDict().Get(shown(field)); ok {
					items[i] = f
				}
			}
		}
	}
	t, err := r.texts(items)
	if err != nil {
		return jinja.Undefined(), err
	}
	size := max(0, len(t)-1) * len(between)
	for _, s := range t {
		size += len(s)
	}
	if size > r.values {
		return jinja.Undefined(), fmt.Errorf("join: %w", errLarge)
	}
	return jinja.NewString(strings.Join(t, between)), nil
}

// indent is the filter of that name.
func (r *run) indent(args []jinja.Value, named map[string]jinja.Value) (jinja.Value, error) {
	if len(args) == 0 {
		return jinja.NewString(""), nil
	}
	t, err := r.texts(args[:1])
	if err != nil {
		return jinja.Undefined(), err
	}
	width, first := 4, false
	if w, ok := named["width"]; ok {
		args = append([]jinja.Value{args[0], w}, args[min(2, len(args)):]...)
	}
	if len(args) > 1 {
		if width, err = number(args[1]); err != nil || width < 0 {
			return jinja.Undefined(), errors.New("indent takes a whole number of spaces")
		}
	}
	if len(args) > 2 {
		first = args[2].IsTruthy()
	}
	if f, ok := named["first"]; ok {
		first = f.IsTruthy()
	}
	lines := strings.Split(t[0], "\n")
	if len(t[0])+len(lines)*width > r.values {
		return jinja.Undefined(), fmt.Errorf("indent: %w", errLarge)
	}
	pad := strings.Repeat(" ", width)
	for i, line := range lines {
		if line != "" && (i > 0 || first) {
			lines[i] = pad + line
		}
	}
	return jinja.NewString(strings.Join(lines, "\n")), nil
}

// format is x.format(a, b).
func (r *run) format(args []jinja.Value) (jinja.Value, error) {
	t, err := r.texts(args)
	if err != nil || len(t) == 0 {
		return jinja.Undefined(), err
	}
	out := t[0]
	for i, s := range t[1:] {
		place := fmt.Sprintf("{%d}", i)
		if len(out)+(1+strings.Count(out, place))*len(s) > r.values {
			return jinja.Undefined(), fmt.Errorf("format: %w", errLarge)
		}
		out = strings.Replace(strings.ReplaceAll(out, place, s), "{}", s, 1)
	}
	return jinja.NewString(out), nil
}
