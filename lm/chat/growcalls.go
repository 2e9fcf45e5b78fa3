package chat

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ardanlabs/jinja"
)

// What the calls of grow.go do. Each knows the size of its result before it makes it.

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
