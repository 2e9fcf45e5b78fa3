package chat

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// FuzzNew: a template is refused or works, in bounded time, whatever it is.
func FuzzNew(f *testing.F) {
	for _, s := range []string{chatML, turns, always, thinker, dated, "", "{% raw %}{% endraw %}", "{{ messages[0].content[::-1] }}",
		"{% for m in messages %}{{ m.content | tojson }}{% else %}{% endfor %}", "{%- macro x(a='<|im_end|>') -%}{{ a }}{%- endmacro -%}{{ x() }}",
		"{% set ns = namespace(a=[]) %}{% set ns.a = ns.a + messages %}{{ ns.a | length }}", "{# {{ #}{{ '{#' }}", "{{ {'a': [1, (2)]} }}",
		"{% set x %}{% if messages %}a{% endif %}{% endset %}{{ x ~ '<|im_end|>' }}", "{%for m in messages%}{%if m.role=='assistant'%}{{m.content+'<|im_end|>'}}{%endif%}{%endfor%}", "{{ 'a' if x is defined else raise_exception('b') }}"} {
		f.Add(s)
	}
	tok := bytesOnly(f)
	f.Fuzz(func(t *testing.T, template string) {
		if len(template) > 4096 { // long ones only take longer
			return
		}
		start := time.Now()
		format, err := New(tok, template)
		if err == nil {
			msgs := conv("a<|im_end|>", "b", "c", "d<|im_end|>")
			ids, mask, err := format.Encode(msgs)
			if err == nil {
				checkPrefixes(t, format, msgs, ids, mask)
			}
			format.Prompt(msgs)
		} else if !strings.HasPrefix(err.Error(), "chat: ") {
			t.Errorf("error %q does not name the package", err)
		}
		if d := time.Since(start); d > 4*maxTime {
			t.Errorf("took %v", d)
		}
	})
}

// FuzzEncode: no contents break the promises of the package. One input tries one template: rendering is what takes the time.
func FuzzEncode(f *testing.F) {
	tok := bytesOnly(f)
	formats := []*Format{gemmaFormat(f)}
	for _, s := range []string{chatML, turns, always, thinker} {
		format, err := New(tok, s)
		if err != nil {
			f.Fatal(err)
		}
		formats = append(formats, format)
	}
	specials := make([]int, len(formats)) // of a conversation without any in its contents
	for i, format := range formats {
		plain, err := format.EncodeTurns(conv("x", "y", "z", "y"))
		if err != nil {
			f.Fatal(err)
		}
		specials[i] = specialCount(format, plain)
		f.Add(uint8(i), "hello", "there", "again")
		f.Add(uint8(i), "<|im_end|>", "<|im_start|>", "<")
		f.Add(uint8(i), "\xff<|im", "\n\n", "</think>")
		f.Add(uint8(i), "", " ", "\U000F0000<|eot_id|>")
		f.Add(uint8(i), "<end_of_", "turn>\n<start_of_turn>model\n", "▁<bos>▁\n")
	}
	f.Fuzz(func(t *testing.T, which uint8, a, b, c string) {
		i := int(which) % len(formats)
		format := formats[i]
		msgs := conv(a, b, c, b)
		rows, err := format.EncodeTurns(msgs)
		if err != nil {
			if i < 4 && !strings.Contains(err.Error(), "changes what") {
				t.Errorf("template %d: %v", i, err)
			}
			return
		}
		if ids, mask, err := format.Encode(msgs); err == nil {
			checkPrefixes(t, format, msgs, ids, mask)
		} else if !errors.Is(err, ErrRewritten) {
			t.Error(err)
		}
		// The same with the last text as the system's.
		if system := append([]Message{{"system", c}}, conv(a, b)...); i == 0 {
			if ids, mask, err := format.Encode(system); err == nil {
				checkPrefixes(t, format, system, ids, mask)
			} else if !strings.Contains(err.Error(), "changes what") {
				t.Errorf("system: %v", err)
			}
		}
		if i < 4 && specialCount(format, rows) != specials[i] {
			t.Errorf("template %d: contents changed the number of special tokens", i)
		}
	})
}

func specialCount(f *Format, rows []Row) (n int) {
	for _, r := range rows {
		for _, id := range r.IDs {
			if f.tok.IsSpecial(id) {
				n++
			}
		}
	}
	return n
}
