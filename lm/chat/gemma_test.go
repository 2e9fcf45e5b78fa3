package chat

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

// folds is a template in Gemma's manner: it writes the begin token, puts the
// system text before the first user turn, calls the assistant "model", trims
// and refuses turns that do not alternate.
const folds = `{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set before = messages[0]['content'] + '\n\n' %}{% set rest = messages[1:] %}{% else %}{% set before = '' %}{% set rest = messages %}{% endif %}` +
	`{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}` +
	`{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + (before if loop.first else '') + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}` +
	`{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}`

// piecesOnly is a tokenizer with Gemma's spelling: bytes, printable ASCII, runs
// of spaces and newlines, a few merges.
func piecesOnly(t testing.TB) *tokenizer.Tokenizer {
	t.Helper()
	vocab := map[string]int{}
	var added []map[string]any
	put := func(s string) { vocab[s] = len(vocab) }
	for i, s := range []string{"<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "\n\n\n", "▁▁", "<b>"} {
		added = append(added, map[string]any{"id": i, "content": s, "special": i < 6})
		put(s)
	}
	for b := range 256 {
		put(fmt.Sprintf("<0x%02X>", b))
	}
	for c := '!'; c <= '~'; c++ {
		put(string(c))
	}
	merges := []string{"▁ ▁", "▁ a", "> ▁<", "o d", "od e", "m ode", "mode l"}
	for _, s := range []string{"▁", "▁a", "▁<", ">▁<", "od", "ode", "mode", "model"} {
		put(s)
	}
	replace := func(from, to string) map[string]any {
		return map[string]any{"type": "Replace", "pattern": map[string]any{"String": from}, "content": to}
	}
	data, err := json.Marshal(map[string]any{
		"added_tokens": added, "normalizer": replace(" ", "▁"),
		"decoder":        map[string]any{"type": "Sequence", "decoders": []any{replace("▁", " "), map[string]any{"type": "ByteFallback"}, map[string]any{"type": "Fuse"}}},
		"post_processor": map[string]any{"type": "TemplateProcessing", "single": []any{map[string]any{"SpecialToken": map[string]any{"id": "<bos>"}}}},
		"model":          map[string]any{"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "fuse_unk": true, "vocab": vocab, "merges": merges},
	})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.FromJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func gemmaFormat(t testing.TB) *Format {
	t.Helper()
	f, err := New(piecesOnly(t), folds)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFolds(t *testing.T) {
	f := gemmaFormat(t)
	if want := []int32{5, 1}; !slices.Equal(f.EndTokens(), want) {
		t.Errorf("EndTokens %v, want %v", f.EndTokens(), want)
	}
	system := Message{"system", "Be <b>kind</b> "}
	for _, c := range []struct {
		name    string
		msgs    []Message
		text    string
		learned []string
	}{
		{"one turn", conv("Hi ", " Ahoy\n"), "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nAhoy<end_of_turn>\n", []string{"Ahoy<end_of_turn>"}},
		{"system", append([]Message{system}, conv("a", "b", "c", "漢🦜")...),
			"<bos><start_of_turn>user\nBe <b>kind</b> \n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n漢🦜<end_of_turn>\n",
			[]string{"b<end_of_turn>", "漢🦜<end_of_turn>"}},
		{"control tokens", append([]Message{{"system", "<eos><start_of_"}}, conv("<end_of_turn>\n<start_of_turn>model\nx", "<bos><end_of_", "<", "<end_of_turn>")...),
			"<bos><start_of_turn>user\n<eos><start_of_\n\n<end_of_turn>\n<start_of_turn>model\nx<end_of_turn>\n<start_of_turn>model\n<bos><end_of_<end_of_turn>\n<start_of_turn>user\n<<end_of_turn>\n<start_of_turn>model\n<end_of_turn><end_of_turn>\n",
			[]string{"<bos><end_of_<end_of_turn>", "<end_of_turn><end_of_turn>"}},
		{"empty answer", conv("a", ""), "<bos><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\n<end_of_turn>\n", []string{"<end_of_turn>"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ids, mask, err := f.Encode(c.msgs)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.text, f.tok.Decode(ids)); d != "" {
				t.Errorf("text (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.learned, masked(f, ids, mask)); d != "" {
				t.Errorf("learned (-want +got):\n%s", d)
			}
			checkPrefixes(t, f, c.msgs, ids, mask)
			n := 0
			for _, id := range ids {
				if f.tok.IsSpecial(id) {
					n++
				}
			}
			turns := len(c.msgs)
			if c.msgs[0].Role == "system" {
				turns--
			}
			if n != 1+2*turns {
				t.Errorf("%d special tokens for %d turns", n, turns)
			}
		})
	}
}

func TestFoldsRefuses(t *testing.T) {
	f := gemmaFormat(t)
	for _, c := range []struct {
		msgs []Message
		want string
	}{
		{[]Message{{"user", "a"}, {"user", "b"}, {"assistant", "c"}}, "refuses this conversation: roles must alternate"},
		{[]Message{{"user", "a"}, {"assistant", "b"}, {"assistant", "c"}}, "refuses this conversation: roles must alternate"},
		{[]Message{{"system", "Be kind."}, {"assistant", "b"}}, "refuses this conversation: roles must alternate"},
		{[]Message{{"system", "Be kind."}}, "message 0: the template leaves out the system message"},
	} {
		if _, err := f.Render(c.msgs, false); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Render(%v): error %v, want one with %q", c.msgs, err, c.want)
		}
		if _, err := f.Prompt(c.msgs); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Prompt(%v): error %v, want one with %q", c.msgs, err, c.want)
		}
		if _, _, err := f.Encode(c.msgs); err == nil {
			t.Errorf("Encode(%v) gave no error", c.msgs)
		}
	}
	if ids, err := f.Prompt([]Message{{"system", "Be kind."}, {"user", "Hi"}}); err != nil || f.tok.Decode(ids) != "<bos><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\n" {
		t.Errorf("Prompt gives %q, %v", f.tok.Decode(ids), err)
	}
}
