package tokenizer_test

import (
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"

	"github.com/opencharacter/opencharacter/lm/tokenizer"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

// FuzzFromJSON: a file is refused with an error or gives a tokenizer that works.
func FuzzFromJSON(f *testing.F) {
	good, err := json.Marshal(jsonFile())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"\u0120":3},"merges":[["a","b"]]},` +
		`"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"added_tokens":[{"id":4,"content":"é","normalized":true}]}`))
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":0},"merges":[[["a"]]]}}`))
	if good, err = json.Marshal(piecesFile()); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a" : 99999999999},"merges":["a"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var tok *tokenizer.Tokenizer
		var err error
		// The word cache and the matcher are there whatever the file says.
		hostile.Bounds{Base: 4 << 20, PerByte: 400}.Hold(t, len(data), func() { tok, err = tokenizer.FromJSON(data) })
		if err != nil {
			if !strings.HasPrefix(err.Error(), "tokenizer: ") {
				t.Errorf("error %q does not name the package", err)
			}
			return
		}
		ids := tok.Encode("ab <|end|> é 12\n" + string(data[:min(len(data), 200)]))
		for _, id := range ids {
			if tok.Token(id) == "" {
				t.Errorf("id %d is not in the vocabulary", id)
			}
		}
		checkRoundTrip(t, tok, ids)
		tok.Hash()
	})
}

// FuzzRoundTrip: no byte is lost, no special token comes out of plain text,
// whatever the text.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range []string{"", "hello <|end|> world", "<|start|><|end|>more<think>", "\xff\xfe", "e\u0301 \u1112\u1161\u11ab",
		" \n\r\n\t  x", "'s'LL'ſ", "½12345٣", "a\u0301\u0323" + strings.Repeat("\u0300", 40), "<|end|"} {
		f.Add(s)
	}
	all := map[string]*tokenizer.Tokenizer{}
	for _, pre := range []string{"gpt-2", "smollm", "qwen2", "llama-bpe"} {
		all[pre] = mustGGUF(f, tiny(pre))
	}
	f.Fuzz(func(t *testing.T, s string) {
		for pre, tok := range all {
			want := s
			if pre == "qwen2" {
				if tooManyMarks(s) {
					continue
				}
				want = tokenizer.JudgeNFC(s)
			}
			for _, encode := range []func(string) []int32{tok.Encode, tok.EncodeOrdinary} {
				ids := encode(s)
				var b strings.Builder
				for _, id := range ids {
					b.Write(tok.TokenBytes(id))
				}
				// A special token splits the text before it is normalised.
				if got := b.String(); got != want && (pre != "qwen2" || tokenizer.JudgeNFC(got) != want) {
					t.Errorf("%s: %q came back as %q", pre, s, got)
				}
				checkRoundTrip(t, tok, ids)
			}
			for _, id := range tok.EncodeOrdinary(s) {
				if tok.IsSpecial(id) {
					t.Errorf("%s: EncodeOrdinary(%q) made the special token %d", pre, s, id)
				}
			}
		}
	})
}

// tooManyMarks: x/text, used as the judge here, is not plain NFC for these.
func tooManyMarks(s string) bool {
	run := 0
	for _, r := range norm.NFD.String(s) {
		if r == '\u034F' || norm.NFD.PropertiesString(string(r)).CCC() != 0 {
			if run++; run >= 30 {
				return true
			}
		} else {
			run = 0
		}
	}
	return false
}
