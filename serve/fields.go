package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// value is one field of a request. Its methods return what it holds, or the 400 that says what
// it should hold.
type value struct {
	name string
	raw  json.RawMessage
}

// object reads a JSON object; fields that are null are left out.
func object(name string, raw []byte) (map[string]value, *apiError) {
	if !utf8.Valid(raw) {
		return nil, bad(name, "", "The request is not UTF-8.")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
		if name == "" {
			name = "The body"
		}
		why := ""
		if err != nil {
			why = ": " + err.Error()
		}
		return nil, bad("", "invalid_json", "%s is not a JSON object%.200s.", name, why)
	}
	out := make(map[string]value, len(fields))
	for k, v := range fields {
		if string(v) != "null" {
			out[k] = value{k, v}
		}
	}
	return out, nil
}

func (v value) want(what string) *apiError {
	return bad(v.name, "", "%.100s must be %s, not %s.", v.name, what, v.shown())
}

// shown is the value, shortened.
func (v value) shown() string {
	const most = 60
	s := string(v.raw)
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "..."
	}
	return s
}

func (v value) text() (string, *apiError) {
	var s *string
	if json.Unmarshal(v.raw, &s) != nil || s == nil {
		return "", v.want("a string")
	}
	return *s, nil
}

func (v value) yes() (bool, *apiError) {
	var b *bool
	if json.Unmarshal(v.raw, &b) != nil || b == nil {
		return false, v.want("true or false")
	}
	return *b, nil
}

func (v value) number(from, to float64) (float64, *apiError) {
	var f *float64
	if json.Unmarshal(v.raw, &f) != nil || f == nil || !(*f >= from && *f <= to) {
		return 0, v.want(fmt.Sprintf("a number from %v to %v", from, to))
	}
	return *f, nil
}

func (v value) integer(from, to int64) (int64, *apiError) {
	var n *int64
	if json.Unmarshal(v.raw, &n) != nil || n == nil || *n < from || *n > to {
		return 0, v.want(fmt.Sprintf("a whole number from %d to %d", from, to))
	}
	return *n, nil
}

// texts reads a string or a list of strings.
func (v value) texts(most int) ([]string, *apiError) {
	var many []*string
	if json.Unmarshal(v.raw, &many) == nil && many != nil {
		if len(many) > most {
			return nil, v.want(fmt.Sprintf("a string or a list of at most %d", most))
		}
		out := make([]string, len(many))
		for i, s := range many {
			if s == nil {
				return nil, v.want("a string or a list of strings")
			}
			out[i] = *s
		}
		return out, nil
	}
	var one *string
	if json.Unmarshal(v.raw, &one) != nil || one == nil {
		return nil, v.want("a string or a list of strings")
	}
	return []string{*one}, nil
}

// empty says that the value asks for nothing: {}, [], "", 0 or false.
func (v value) empty() bool {
	var b bytes.Buffer
	if json.Compact(&b, v.raw) != nil {
		return false
	}
	switch b.String() {
	case "{}", "[]", `""`, "0", "0.0", "-0", "-0.0", "false":
		return true
	}
	return false
}

// is says that the value is one of these strings.
func (v value) is(words ...string) bool {
	s, err := v.text()
	if err != nil {
		return false
	}
	for _, w := range words {
		if s == w {
			return true
		}
	}
	return false
}
