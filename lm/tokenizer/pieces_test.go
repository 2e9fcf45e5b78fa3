package tokenizer_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

// piecesFile is a small tokenizer.json in Gemma's manner. Among its merges are
// some that join over the start of a word (">" and "▁<") and over other places
// where text is mostly cut.
func piecesFile() map[string]any {
	vocab := map[string]any{}
	var added []any
	put := func(tokens ...string) {
		for _, s := range tokens {
			vocab[s] = len(vocab)
		}
	}
	add := func(special bool, tokens ...string) {
		for _, s := range tokens {
			added = append(added, map[string]any{"id": len(vocab), "content": s, "special": special})
			put(s)
		}
	}
	add(true, "<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
	add(false, "\n", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "<unused0>", "<unused1>", "<unused10>", "<b>")
	for b := range 256 {
		put(fmt.Sprintf("<0x%02X>", b))
	}
	put("▁t", "he", "▁the", "in", "▁a", ">▁<", "▁<", "▁<b", "он", "▁он", "é.", ".▁", "<0", "x0")
	for _, c := range "▁aehintxb<>.0Aонé漢" {
		put(string(c))
	}
	merges := []any{}
	for _, m := range []string{"▁▁ ▁", "▁ ▁▁", "▁ ▁", "▁ t", "h e", "▁t he", "i n", "▁ a", "▁ <", "> ▁<", "▁< b", "о н", "▁ он", "é .", ". ▁", "< 0", "x 0"} {
		left, right, _ := strings.Cut(m, " ")
		merges = append(merges, []any{left, right})
	}
	return map[string]any{
		"added_tokens":  added,
		"normalizer":    map[string]any{"type": "Replace", "pattern": map[string]any{"String": " "}, "content": "▁"},
		"pre_tokenizer": map[string]any{"type": "Split", "pattern": map[string]any{"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
		"post_processor": map[string]any{"type": "TemplateProcessing", "single": []any{
			map[string]any{"SpecialToken": map[string]any{"id": "<bos>"}}, map[string]any{"Sequence": map[string]any{"id": "A"}}}},
		"decoder": map[string]any{"type": "Sequence", "decoders": []any{
			map[string]any{"type": "Replace", "pattern": map[string]any{"String": "▁"}, "content": " "}, map[string]any{"type": "ByteFallback"}, map[string]any{"type": "Fuse"}}},
		"model": map[string]any{"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": merges},
	}
}

func mustJSON(t testing.TB, file map[string]any) *tokenizer.Tokenizer {
	t.Helper()
	data, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.FromJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// spellings is pieces with the vocabulary's own spelling.
func spellings(tok *tokenizer.Tokenizer, ids []int32) string {
	var p []string
	for _, id := range ids {
		p = append(p, tok.Token(id))
	}
	return strings.Join(p, "|")
}

func TestEncodePieces(t *testing.T) {
	tok := mustJSON(t, piecesFile())
	for _, c := range []struct{ text, want, decoded string }{
		{"the the", "t|he|▁the", "the the"},
		{"  the", "▁▁|t|he", "  the"}, // ▁▁ comes before ▁t
		{"   \n\n\n\nin", "▁▁▁|\n\n\n|\n|in", "   \n\n\n\nin"},
		{"a> <bx", "a|>▁<|b|x", "a> <bx"},                      // a merge over the start of a word
		{"> <b> <", ">|▁|<b>|▁<", "> <b> <"},                   // the added token <b> wins over it
		{"a ▁ a", "a|▁▁▁|a", "a   a"},                          // a space in its own spelling
		{"a▁▁ a", "a|▁▁|▁a", "a   a"},                          // the added token ▁▁ is found in the raw text
		{"z漢字é.", "<0x7A>|漢|<0xE5>|<0xAD>|<0x97>|é.", "z漢字é."}, // bytes where the character is missing
		{"<unused10><unused1<unused1>", "<unused10>|<|<0x75>|n|<0x75>|<0x73>|e|<0x64>|<0x31>|<unused1>", "<unused10><unused1<unused1>"},
		{"<bos><0x0A>", "<bos>|<0|x0|A|>", "<bos><0x0A>"}, // a text that spells a byte is not one
		{"\xffa\xe2\x96", "<0xFF>|a|<0xE2>|<0x96>", "\uFFFDa\uFFFD\uFFFD"},
		{"", "", ""},
	} {
		ids := tok.Encode(c.text)
		if got := spellings(tok, ids); got != c.want {
			t.Errorf("Encode(%q) = %q, want %q", c.text, got, c.want)
		}
		if got := tok.Decode(ids); got != c.decoded {
			t.Errorf("Decode of %q gives %q", c.text, got)
		}
		checkRoundTrip(t, tok, ids)
	}
	if got := spellings(tok, tok.EncodeOrdinary("<eos>\n")); got != "<|e|<0x6F>|<0x73>|>|\n" {
		t.Errorf("EncodeOrdinary gives %q", got)
	}
	if bos, ok := tok.BOS(); !ok || tok.Token(bos) != "<bos>" {
		t.Errorf("BOS %d %v", bos, ok)
	}
	if id, ok := tok.ID("▁the"); !ok || string(tok.TokenBytes(id)) != " the" {
		t.Errorf("▁the has the bytes %q", tok.TokenBytes(id))
	}
}

// ids looks spellings up.
func ids(t testing.TB, tok *tokenizer.Tokenizer, list ...string) []int32 {
	t.Helper()
	var ids []int32
	for _, s := range list {
		id, ok := tok.ID(s)
		if !ok {
			t.Fatalf("%q is not in the vocabulary", s)
		}
		ids = append(ids, id)
	}
	return ids
}

// TestDecodePieces: a run of byte entries is UTF-8 as a whole or one U+FFFD a
// byte (tokenizers' ByteFallback), and special tokens do not end it when they
// are left out.
func TestDecodePieces(t *testing.T) {
	tok := mustJSON(t, piecesFile())
	for _, c := range []struct {
		list       []string
		all, plain string
	}{
		{[]string{"a", "<0xE2>", "<0x9C>", "<0x85>", "▁a"}, "a✅ a", "a✅ a"},
		{[]string{"<0xE2>", "<0x9C>", "<0x85>", "<0xFF>", "a"}, "\uFFFD\uFFFD\uFFFD\uFFFDa", "\uFFFD\uFFFD\uFFFD\uFFFDa"},
		{[]string{"<0xE2>", "<0x9C>", "<eos>", "<0x85>"}, "\uFFFD\uFFFD<eos>\uFFFD", "✅"},
		{[]string{"<0xE2>", "a", "<0x9C>", "<0x85>"}, "\uFFFDa\uFFFD\uFFFD", "\uFFFDa\uFFFD\uFFFD"},
		{[]string{"▁▁", "<bos>", "<unused0>"}, "  <bos><unused0>", "  <unused0>"},
	} {
		ids := ids(t, tok, c.list...)
		if got := tok.Decode(ids); got != c.all {
			t.Errorf("Decode(%v) = %q, want %q", c.list, got, c.all)
		}
		if got := tok.DecodeText(ids); got != c.plain {
			t.Errorf("DecodeText(%v) = %q, want %q", c.list, got, c.plain)
		}
		checkRoundTrip(t, tok, ids)
	}
	s := tok.NewStream()
	var got []string
	for _, id := range ids(t, tok, "a", "<0xE2>", "<0x9C>", "<eos>", "<0x85>", "▁a", "<0xE2>") {
		got = append(got, s.Push(id))
	}
	got = append(got, s.Push(-1), s.Push(1<<30), s.Flush(), s.Flush())
	if want := []string{"a", "", "", "", "", "✅ a", "", "", "", "\uFFFD", ""}; !slices.Equal(got, want) {
		t.Errorf("stream gave %q, want %q", got, want)
	}
}

// plainBPE is the algorithm as it is written down: the whole text between
// added tokens is one word, and of all pairs the one of the lowest rank, the
// leftmost first, is merged until none is left.
type plainBPE struct {
	tok   *tokenizer.Tokenizer
	added []string // in order of length, the longest first
	ranks map[[2]string]int
}

func newPlainBPE(tok *tokenizer.Tokenizer, file map[string]any) *plainBPE {
	p := &plainBPE{tok: tok, ranks: map[[2]string]int{}}
	for i, m := range file["model"].(map[string]any)["merges"].([]any) {
		p.ranks[[2]string{m.([]any)[0].(string), m.([]any)[1].(string)}] = i
	}
	for _, a := range file["added_tokens"].([]any) {
		p.added = append(p.added, a.(map[string]any)["content"].(string))
	}
	slices.SortFunc(p.added, func(a, b string) int { return len(b) - len(a) })
	return p
}

func (p *plainBPE) encode(text string) []string {
	var out []string
	start := 0
	for i := 0; i < len(text); {
		k := slices.IndexFunc(p.added, func(a string) bool { return strings.HasPrefix(text[i:], a) })
		if k < 0 {
			i++
			continue
		}
		out = append(append(out, p.merge(text[start:i])...), p.added[k])
		i += len(p.added[k])
		start = i
	}
	return append(out, p.merge(text[start:])...)
}

func (p *plainBPE) merge(text string) []string {
	var sy []string
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		char := strings.ReplaceAll(text[:n], " ", "▁")
		if id, ok := p.tok.ID(char); ok && !p.tok.IsSpecial(id) && (r != utf8.RuneError || n > 1) {
			sy = append(sy, char)
		} else {
			for k := range n {
				sy = append(sy, fmt.Sprintf("<0x%02X>", text[k]))
			}
		}
		text = text[n:]
	}
	for {
		at, best := -1, math.MaxInt
		for i := 0; i+1 < len(sy); i++ {
			if rank, ok := p.ranks[[2]string{sy[i], sy[i+1]}]; ok && rank < best {
				at, best = i, rank
			}
		}
		if at < 0 {
			return sy
		}
		sy = slices.Replace(sy, at, at+2, sy[at]+sy[at+1])
	}
}

// FuzzPieces: cutting the text changes nothing, and decoding gives it back.
func FuzzPieces(f *testing.F) {
	for _, s := range []string{"", "the the", "  the> <b> <", ">▁<he", "\xe2\x96\x81", "\xe2\x96 \x81▁", "о нон .▁.  \n\n\n\n", "<unused1<unused10><bos>", "é.▁é. <0x0A>"} {
		f.Add(s)
	}
	file := piecesFile()
	tok := mustJSON(f, file)
	plain := newPlainBPE(tok, file)
	meta := mustGGUF(f, piecesMeta(f, file, false))
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 2000 { // plainBPE is quadratic
			return
		}
		got := tok.Encode(s)
		if want := ids(t, tok, plain.encode(s)...); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", s, spellings(tok, got), spellings(tok, want))
		}
		if fromMeta := meta.Encode(s); !slices.Equal(got, fromMeta) {
			t.Errorf("%q: the GGUF form gives %q, not %q", s, spellings(meta, fromMeta), spellings(tok, got))
		}
		for _, ids := range [][]int32{got, tok.EncodeOrdinary(s)} {
			checkRoundTrip(t, tok, ids)
			var b strings.Builder
			for _, id := range ids {
				b.Write(tok.TokenBytes(id))
			}
			if want := strings.ReplaceAll(s, "▁", " "); b.String() != want {
				t.Errorf("%q came back as %q", s, b.String())
			}
		}
		for _, id := range tok.EncodeOrdinary(s) {
			if tok.IsSpecial(id) {
				t.Errorf("EncodeOrdinary(%q) made the special token %d", s, id)
			}
		}
	})
}

func TestBadPieces(t *testing.T) {
	model := func(f map[string]any) map[string]any { return f["model"].(map[string]any) }
	vocab := func(f map[string]any) map[string]any { return model(f)["vocab"].(map[string]any) }
	add := func(f map[string]any, content string, more ...string) {
		a := map[string]any{"id": 500, "content": content}
		for _, m := range more {
			a[m] = true
		}
		f["added_tokens"] = append(f["added_tokens"].([]any), a)
	}
	for _, c := range []struct {
		name, want string
		bend       func(f map[string]any)
	}{
		{"no normalizer", "byte_fallback", func(f map[string]any) { delete(f, "normalizer") }},
		{"prefix", "normalizer is", func(f map[string]any) {
			f["normalizer"] = map[string]any{"type": "Sequence", "normalizers": []any{map[string]any{"type": "Prepend", "prepend": "▁"}, f["normalizer"]}}
		}},
		{"other blank", "normalizer is", func(f map[string]any) { f["normalizer"].(map[string]any)["content"] = "_" }},
		{"normalizer no object", "normalizer", func(f map[string]any) { f["normalizer"] = 5 }},
		{"pre-tokenizer", "pre_tokenizer is", func(f map[string]any) { f["pre_tokenizer"] = map[string]any{"type": "Metaspace"} }},
		{"pattern", "pre_tokenizer is", func(f map[string]any) {
			f["pre_tokenizer"].(map[string]any)["pattern"] = map[string]any{"Regex": " "}
		}},
		{"no decoder", "decoder is", func(f map[string]any) { delete(f, "decoder") }},
		{"decoder", "decoder is", func(f map[string]any) {
			d := f["decoder"].(map[string]any)
			d["decoders"] = append(d["decoders"].([]any), map[string]any{"type": "Strip"})
		}},
		{"ignore_merges", "ignore_merges", func(f map[string]any) { model(f)["ignore_merges"] = true }},
		{"no byte", "<0x41>", func(f map[string]any) {
			vocab(f)["<0x+1>"] = vocab(f)["<0x41>"]
			delete(vocab(f), "A")
			delete(vocab(f), "<0x41>")
		}},
		{"no blank", "spelling of a space", func(f map[string]any) {
			vocab(f)["▂"] = vocab(f)["▁"]
			delete(vocab(f), "▁")
		}},
		{"special by merge", "not safe", func(f map[string]any) {
			add(f, "▁the", "special")
			f["added_tokens"].([]any)[15].(map[string]any)["id"] = vocab(f)["▁the"]
		}},
		{"normalized with a space", "not supported", func(f map[string]any) { add(f, "a b", "normalized") }},
		{"normalized with a blank", "not supported", func(f map[string]any) { add(f, "a▁b", "normalized") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := piecesFile()
			c.bend(f)
			data, err := json.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = tokenizer.FromJSON(data); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	// A byte may be missing where the character itself is there (older Gemmas lack <0x09>).
	f := piecesFile()
	vocab(f)["▂"] = vocab(f)["<0x0A>"]
	delete(vocab(f), "<0x0A>")
	if tok := mustJSON(t, f); tok.Decode(tok.Encode("a\n")) != "a\n" {
		t.Error("a newline is lost")
	}
	// Added tokens that are looked for in normalised text come second.
	f = piecesFile()
	add(f, "the", "normalized")
	if tok := mustJSON(t, f); spellings(tok, tok.Encode("the the\n")) != "the|▁|the|\n" {
		t.Errorf("normalized added token: %q", spellings(tok, tok.Encode("the the\n")))
	}
}
