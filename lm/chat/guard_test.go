package chat

import (
	"strings"
	"testing"

	"github.com/ardanlabs/jinja"
)

// TestHostileTemplates: every one of these would use up memory, time or the
// stack in the bare engine; each ends in an error, most by a count and not by the clock.
func TestHostileTemplates(t *testing.T) {
	tok := bytesOnly(t)
	nest := func(n int, open, body, end string) string {
		return strings.Repeat(open, n) + body + strings.Repeat(end, n)
	}
	for name, c := range map[string]struct{ src, want string }{
		"range":           {`{% for i in range(99999999) %}x{% endfor %}`, "digits"},
		"computed range":  {`{% for i in range(9999999 - 1) %}x{% endfor %}`, "range is longer"},
		"range overflow":  {`{{ range(0 - 9999999, 9999999, 1) }}`, "range is longer"},
		"loops in loops":  {nest(5, `{% for i in range(1000) %}`, "x", `{% endfor %}`), "steps"},
		"quiet loops":     {nest(5, `{% for i in range(1000) %}`, "", `{% endfor %}`), "steps"},
		"doubling":        {`{% set s = 'x' %}` + strings.Repeat(`{% set s = s ~ s %}`, 60), "too large"},
		"doubling in ns":  {`{% set n = namespace(s='xxxx') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}`, "too large"},
		"doubling a list": {`{% set s = [1] %}` + strings.Repeat(`{% set s = s + s %}`, 60), "too large"},
		"doubling block":  {`{% set s = 'xx' %}` + strings.Repeat(`{% set s %}{{ s }}{{ s }}{% endset %}`, 60), "too large"},
		"big output":      {`{% set s = 'x' %}` + strings.Repeat(`{% set s = s ~ s %}`, 19) + `{% for i in range(9999) %}{{ s }}{% endfor %}`, "too large"},
		"big text":        {`{% for i in range(99999) %}` + strings.Repeat("x", 9999) + `{% endfor %}`, "too large"},
		"repeat":          {`{{ 'x' * 999999 * 999999 }}`, "operator *"},
		"self":            {`{% set n = namespace(a=1) %}{% set n.a = n %}{{ n }}`, "contains itself"},
		"append":          {`{% set l = [] %}{% set _ = l.append(l) %}{{ l }}`, "in place"},
		"update":          {`{% set d = dict() %}{{ d . update(d) }}`, "in place"},
		"macro":           {`{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}`, "deep"},
		"two macros":      {`{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}`, ""},
		"caller":          {`{% macro f() %}{% call f() %}x{% endcall %}{{ caller() }}{% endmacro %}{{ f() }}`, "deep"},
		"brackets":        {`{{ ` + nest(9999, "(", "1", ")") + ` }}`, "nested"},
		"not not":         {`{{ ` + strings.Repeat("not ", 15000) + `1 }}`, ""},
		"minus":           {`{{ ` + strings.Repeat("- ", 30000) + `1 }}`, ""},
		"ifs":             {nest(9000, `{% if 1 %}`, "x", `{% endif %}`), ""},
		"long tag":        {`{{ '` + strings.Repeat("x", maxTag+10) + `' }}`, "longer"},
		"joins":           {`{% set s = 'x' %}{{ s` + strings.Repeat(" ~ s", 999) + ` }}`, "joins"},
		"guard names":     {`{% set guard_step = 1 %}{% set guard_x_value = 2 %}` + nest(5, `{% for i in range(1000) %}`, "", `{% endfor %}`), "steps"},
		"replace":         {`{% set s = 'aaaaaaaaaaaaaaaa' %}{{ s` + strings.Repeat(`.replace('a', s)`, 20) + ` }}`, "too large"},
		"replace nothing": {`{{ messages[0]['content'].replace('', 'x' ~ messages | string).replace('', messages | string) | replace('', messages | string) }}`, "too large"},
		"replace filter":  {`{% set s = 'aaaaaaaaaaaaaaaa' %}{{ s` + strings.Repeat(` | replace('a', s)`, 20) + ` }}`, "too large"},
		"replace, kept":   {`{% set f = 'a'.replace %}{{ f('a', 'b') }}{% set f = ('a').format %}{{ f('b') }}`, "must be called where it is named"},
		"engine's filter": {`{{ __filter_replace('a', 'a', 'b') }}`, "__filter_"},
		"join":            {`{{ range(99999) | join(range(99999) | join('x')) }}`, "too large"},
		"indent":          {`{{ (range(9999) | join('\n')) | indent(1000000) }}`, "too large"},
		"json":            {`{{ messages | tojson(indent=9999999) }}`, "two digits"},
		"json, computed":  {`{{ messages | tojson(indent=9999 ~ 999) }}`, "two digits"},
		"format":          {`{% set s = '{0}{1}{2}{3}{4}{5}{6}{7}{8}{9}' %}{{ (s ~ s).format(s ~ s, s ~ s, s ~ s, s ~ s, s ~ s, s ~ s, s ~ s, s ~ s, s ~ s, s ~ s) }}`, "too large"},
		"raise":           {`{{ raise_exception('no way') }}`, "no way"},
		"division":        {`{{ 1 / 0 }}{{ 1 % 0 }}{{ 1 // 0 }}`, ""},
		"slice":           {`{{ 'abc'[9999999:-9999999:-1] }}{{ [1][::0] }}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(tok, c.src)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %.300v, want one with %q", err, c.want)
			}
		})
	}
}

// TestWhitespace: what Python's jinja2 3.1.6 makes of templates with
// trim_blocks and lstrip_blocks.
func TestWhitespace(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"a\n", "a"},
		{"a\n\n", "a\n"},
		{"a\r\nb\rc", "a\nb\nc"},
		{"{% if true %}\nx\n{% endif %}\ny", "x\ny"},
		{"{% if true %}{{ 'a' }}\nb{% endif %}", "a\nb"},
		{"{% if true %} {{ 'a' }} {% endif %} b", " a  b"},
		{"  {% if true %}x{% endif %}", "x"},
		{"  {%+ if true %}x{% endif %}", "  x"},
		{"{% if true +%}\nx{% endif %}", "\nx"},
		{"a  {% if true %}x{% endif %}", "a  x"},
		{"a\n  {{ 'v' }}\n  {# c #}\n  b", "a\n  v\n  b"},
		{"a \n {{- 'v' -}} \n b", "avb"},
		{"a {#- c -#} b", "ab"},
		{"{% for i in [1, 2] -%}\n  {{ i }}\n{% endfor %}", "1\n2\n"},
		{"{% raw %}{{ x }} {% y %}'\\'{% endraw %}z", "{{ x }} {% y %}'\\'z"},
		{"a {%- raw -%} b {%- endraw -%} c", "abc"},
		{`{{ "q'\"\n\t\\" }}'\n"`, "q'\"\n\t\\'\\n\""},
		{`{{ '\u00e9\x41' }}`, "éA"},
		{"{{ {'a': {'b': 1}}['a']['b'] }}", "1"},
		{"{{ '}}' }}{% set x = '%}' %}{{ x }}", "}}%}"},
		{"{% generation %}x{% endgeneration %}", "x"},
		{`{% set s = 'a-b' %}{{ s.replace('-', '+') }}{{ 'x' + s.replace( '-' , '(' ).replace('a', ')') }}`, "a+bx)(b"},
		{`{{ [' a.b ', 'c'][0].strip().replace('.', '').upper().split('B')[0] }}{{ ('a' ~ 'b').replace('b', 'c' | replace('c', 'd')) }}`, "Aad"},
		{`{% set m = {'format': 'f', 'k': {'replace': 'r'}} %}{{ m.format }}{{ m.k.replace }}{{ m['k'].replace is defined }}{{ '{}-{1}'.format('a', 'b') }}`, "frTruea-b"},
		{`{% if not 'ab'.replace('a', '') == 'b' or 'x' in 'y'.replace('y', 'x') %}in{% endif %}{{ 'a' if ('b').replace('b', '') else 'c' }}`, "inc"},
		{`{{ [1, 'b', true] | join(', ') }}{{ ['a', 'b'] | join }}{{ 'aXbXc' | replace('X', '.', 1) }}{{ 'a\nb' | indent(2) }}{{ 'a\nb' | indent(width=1, first=true) }}`, "1, b, Trueaba.bXca\n  b a\n b"},
		{`{{ 'a.replace(b)' }}{{ "x'.replace('" }}{{ 'x'.replace("'", '"') }}{{ {'a': 'b'}.a.replace('b', 'c') }}`, "a.replace(b)x'.replace('xc"},
		{"{% macro m(a, b='z') %}{{ a }}{{ b }}{% endmacro %}{{ m('1') }}{{ m('1', b='2') }}", "1z12"},
		{"{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "02"},
		{"{% set x %}in{% endset %}{{ x }}{% set n = namespace(v=1) %}{% for i in [1] %}{% set n.v = 2 %}{% endfor %}{{ n.v }}", "in2"},
	} {
		g, err := compile(c.src)
		if err != nil {
			t.Errorf("%q: %v", c.src, err)
			continue
		}
		got, err := g.render(map[string]jinja.Value{}, 0)
		if err != nil || got != c.want {
			t.Errorf("%q gives %q, want %q (%v)", c.src, got, c.want, err)
		}
	}
}
