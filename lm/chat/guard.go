package chat

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/ardanlabs/jinja"
)

// A chat template is a program that comes with a model, and the engine has no
// limits of its own. The template is therefore rewritten (lex.go) to call the
// functions below while it runs. They bound the steps and the time of loops,
// the depth of macros, the size of every value that is assigned and of all
// output; brackets, tags and the whole source are bounded before. What changes
// a list or dict in place is refused, as in Hugging Face's sandbox, so values
// cannot contain themselves. Calls that make long texts out of short ones are
// replaced by bounded ones (grow.go). What is left to one expression by itself is
// to name the same value again and again, as often as its length allows: at the
// worst maxTag/2 values of maxValue, some hundred megabytes.
const (
	maxSource   = 256 << 10 // bytes of a template; real ones have 1 to 30 KB
	maxTag      = 16 << 10  // bytes of one tag; real ones have some hundred
	maxBrackets = 64
	maxJoins    = 256 // operators + and ~ in one tag
	maxSteps    = 200_000
	maxDepth    = 100      // macros inside macros
	maxRange    = 100_000  // as in Jinja's sandbox
	maxValue    = 64 << 10 // bytes of one value, on top of twice the conversation
	itemSize    = 64       // bytes that an item of a list or dict counts for, on top of its own
	messageSize = 256      // bytes that a message counts for, on top of its text
	maxOutput   = 4 << 20  // bytes of all outputs, on top of eight times the conversation
	maxTime     = 10 * time.Second
)

// guardNames are the names under which a template finds the guard's functions;
// they do not occur in its source.
type guardNames struct {
	step, enter, leave, value, output string
	prefix                            string // of the functions in grow.go
}

// guarded is a compiled template.
type guarded struct {
	tmpl  *jinja.Template
	names guardNames
}

func compile(source string) (g *guarded, err error) {
	if strings.TrimSpace(source) == "" {
		return nil, errors.New("is empty; use an instruct model, or a chat_template.jinja file")
	}
	if len(source) > maxSource {
		return nil, fmt.Errorf("has %d bytes, more than the limit of %d", len(source), maxSource)
	}
	p := "guard_"
	for strings.Contains(source, p) {
		p += "x_"
	}
	g = &guarded{names: guardNames{p + "step", p + "enter", p + "leave", p + "value", p + "output", p}}
	safe, err := rewrite(source, g.names)
	if err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil {
			g, err = nil, fmt.Errorf("cannot be compiled: %v", r)
		}
	}()
	if g.tmpl, err = jinja.Compile(safe); err != nil {
		return nil, err
	}
	return g, nil
}

var (
	inPlace    = regexp.MustCompile(`\.\s*(append|extend|insert|pop|popitem|remove|clear|update|setdefault|sort|reverse|add|discard)\s*\(`)
	longNumber = regexp.MustCompile(`[0-9]{8,}`)
	repeat     = regexp.MustCompile(`(^|[^*])\*([^*]|$)`)
	literal    = regexp.MustCompile(`(?s)'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"`)
)

// forbid refuses in a tag what the limits could not hold at run time.
func forbid(body string) error {
	code := literal.ReplaceAllString(body, "''")
	if m := inPlace.FindStringSubmatch(code); m != nil {
		return fmt.Errorf(".%s() changes a value in place, which chat templates may not do", m[1])
	}
	if longNumber.MatchString(code) {
		return errors.New("a number has more than seven digits")
	}
	if repeat.MatchString(code) {
		return errors.New("the operator * is not supported")
	}
	if n := strings.Count(code, "~") + strings.Count(code, "+"); n > maxJoins {
		return fmt.Errorf("one tag joins %d values, more than the limit of %d", n, maxJoins)
	}
	return nil
}

// refusal is the template's own raise_exception.
type refusal struct{ message string }

func (r *refusal) Error() string { return r.message }

// render runs the template; size is the length of the conversation in bytes.
func (g *guarded) render(data map[string]jinja.Value, size int) (text string, err error) {
	r := &run{values: maxValue + 2*size, output: maxOutput + 8*size, end: time.Now().Add(maxTime)}
	add := func(name string, fn func(args []jinja.Value) (jinja.Value, error)) {
		data[name] = jinja.NewCallable(name, func(args []jinja.Value, _ map[string]jinja.Value) (jinja.Value, error) { return fn(args) })
	}
	none := jinja.NewString("")
	add(g.names.step, func([]jinja.Value) (jinja.Value, error) { return none, r.step(1) })
	add(g.names.enter, func([]jinja.Value) (jinja.Value, error) { r.depth++; return none, r.step(1) })
	add(g.names.leave, func([]jinja.Value) (jinja.Value, error) { r.depth--; return none, nil })
	add(g.names.value, func(args []jinja.Value) (jinja.Value, error) { return none, r.value(args) })
	add(g.names.output, r.print)
	add(g.names.prefix+"format", r.format)
	add(g.names.prefix+"field", r.field)
	for name, fn := range map[string]func([]jinja.Value, map[string]jinja.Value) (jinja.Value, error){
		"replace": r.replace, "join": r.join, "indent": r.indent,
	} {
		data[g.names.prefix+name] = jinja.NewCallable(name, fn)
	}
	add("range", bounded)
	add("raise_exception", func(args []jinja.Value) (jinja.Value, error) {
		m := "raise_exception"
		if len(args) > 0 && args[0].IsString() {
			m = args[0].AsString()
		}
		return none, &refusal{m}
	})
	defer func() {
		if p := recover(); p != nil {
			text, err = "", fmt.Errorf("chat: the model's template failed: %v", p)
		}
	}()
	text, err = g.tmpl.RenderValues(data)
	var no *refusal
	switch {
	case errors.As(err, &no):
		return "", fmt.Errorf("chat: the model's template refuses this conversation: %w", no)
	case err != nil:
		return "", fmt.Errorf("chat: the model's template failed: %w", err)
	}
	return text, nil
}

// run is what one rendering has used up.
type run struct {
	steps, depth   int
	values, output int // what is still allowed
	end            time.Time
}

func (r *run) step(n int) error {
	if r.steps += n; r.steps > maxSteps {
		return fmt.Errorf("it ran for more than %d steps", maxSteps)
	}
	if r.depth > maxDepth {
		return fmt.Errorf("macros call each other more than %d deep", maxDepth)
	}
	if time.Now().After(r.end) {
		return fmt.Errorf("it ran for more than %v", maxTime)
	}
	return nil
}

// value checks what a variable holds after an assignment.
func (r *run) value(args []jinja.Value) error {
	if err := r.step(1); err != nil {
		return err
	}
	left := r.values
	for _, v := range args {
		if err := measure(v, &left, 32); err != nil {
			return err
		}
	}
	return nil
}

// measure walks over a value and counts its bytes and items.
func measure(v jinja.Value, left *int, depth int) error {
	if depth == 0 {
		return errors.New("a value is nested too deep, or contains itself")
	}
	*left--
	switch {
	case v.IsString():
		*left -= len(v.AsString())
	case v.IsInt():
		if n := v.AsInt(); n > 1<<32 || n < -1<<32 {
			return errors.New("a number is too large")
		}
	case v.IsList():
		*left -= itemSize * v.AsList().Len()
		for _, e := range v.AsList().Items {
			if err := measure(e, left, depth-1); err != nil {
				return err
			}
		}
	case v.IsDict():
		for _, k := range v.AsDict().Keys {
			*left -= itemSize + len(k)
			if err := measure(v.AsDict().Data[k], left, depth-1); err != nil {
				return err
			}
		}
	}
	if *left < 0 {
		return errors.New("a value is too large")
	}
	return nil
}

// print counts an output and passes it on. A list prints as long as it is.
func (r *run) print(args []jinja.Value) (jinja.Value, error) {
	if len(args) != 1 {
		return jinja.Undefined(), errors.New("an output tag does not hold one expression")
	}
	if err := r.step(0); err != nil {
		return jinja.Undefined(), err
	}
	if err := measure(args[0], &r.output, 32); err != nil {
		return jinja.Undefined(), fmt.Errorf("output: %w", err)
	}
	return args[0], nil
}

// bounded is range with the limit of Jinja's sandbox.
func bounded(args []jinja.Value) (jinja.Value, error) {
	at := []int64{0, 0, 1}
	for i, a := range args {
		if len(args) > 3 || !a.IsInt() {
			return jinja.Undefined(), errors.New("range takes one to three whole numbers")
		}
		if n := a.AsInt(); n > 1<<40 || n < -1<<40 {
			return jinja.Undefined(), errors.New("range: a number is too large")
		}
		at[i] = a.AsInt()
	}
	if len(args) == 1 {
		at[0], at[1] = 0, at[0]
	}
	if len(args) == 0 || at[2] == 0 {
		return jinja.Undefined(), errors.New("range takes one to three whole numbers, the last of them not 0")
	}
	var items []jinja.Value
	for i := at[0]; at[2] > 0 && i < at[1] || at[2] < 0 && i > at[1]; i += at[2] {
		if len(items) == maxRange {
			return jinja.Undefined(), fmt.Errorf("range is longer than %d", maxRange)
		}
		items = append(items, jinja.NewInt(i))
	}
	return jinja.NewList(items), nil
}
