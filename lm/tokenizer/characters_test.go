package tokenizer

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// strange makes a byte-level vocabulary no training would: merges of characters, of their parts and over their edges,
// with ranks in any order, some of them listed twice, and some bytes missing.
func strange(t testing.TB, seed uint64, pattern split) (*Tokenizer, []mergeText) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	src := source{bos: -1, eos: -1, rules: rules{split: pattern, ignoreMerges: seed%4 == 3}}
	have := map[string]bool{}
	add := func(bytes string) {
		if have[bytes] = true; bytes != "" {
			src.tokens = append(src.tokens, string(appendSpelling(nil, bytes)))
		}
	}
	for b := range 256 {
		if seed%5 != 4 || rng.IntN(100) > 2 {
			add(string([]byte{byte(b)}))
		}
	}
	sample := strangeText(rng, 40)
	for range 400 {
		n := 2 + rng.IntN(7)
		i := rng.IntN(len(sample) - n)
		cut := i + 1 + rng.IntN(n-1)
		left, right, both := sample[i:cut], sample[cut:i+n], sample[i:i+n]
		if !have[left] || !have[right] {
			continue
		}
		if !have[both] {
			add(both)
		}
		src.merges = append(src.merges, mergeText{string(appendSpelling(nil, left)), string(appendSpelling(nil, right))})
	}
	switch seed % 3 { // 0: as in training
	case 1:
		rng.Shuffle(len(src.merges), func(i, j int) { src.merges[i], src.merges[j] = src.merges[j], src.merges[i] })
	case 2: // a few out of order
		for range 10 {
			if n := len(src.merges); n > 1 {
				i, j := rng.IntN(n), rng.IntN(n)
				src.merges[i], src.merges[j] = src.merges[j], src.merges[i]
			}
		}
	}
	tok, err := build(src)
	if err != nil {
		t.Fatal(err)
	}
	return tok, src.merges
}

// strangeText is characters that share bytes, and a few broken ones.
func strangeText(rng *rand.Rand, n int) string {
	all := []string{" ", "a", "b", "é", "ê", "ë", "а", "б", "р", "你", "佡", "好", "妾", "ก", "า", "한", "\u0301", "😀", "😁", "🦀", "𐀀", "\xe4", "\xa0", "\xf0\x9f"}
	var b strings.Builder
	few := all[:5+rng.IntN(len(all)-5)]
	for range n {
		b.WriteString(few[rng.IntN(len(few))])
	}
	return b.String()
}

// plainBPE is BPE as it is defined, on spellings: the ids of one word.
func plainBPE(tok *Tokenizer, merges []mergeText, word string) (ids []int32) {
	if tok.rules.ignoreMerges {
		if id, ok := tok.vocab[string(appendSpelling(nil, word))]; ok {
			return []int32{id}
		}
	}
	ranks := map[mergeText]int{}
	for i, m := range merges {
		ranks[m] = i
	}
	var sy []string
	for i := range len(word) {
		if s := string(appendSpelling(nil, word[i:i+1])); tok.byteID[word[i]] >= 0 {
			sy = append(sy, s)
		}
	}
	for {
		best, at := len(merges), -1
		for i := 1; i < len(sy); i++ {
			if r, ok := ranks[mergeText{sy[i-1], sy[i]}]; ok && r < best {
				best, at = r, i-1
			}
		}
		if at < 0 {
			break
		}
		sy[at] += sy[at+1]
		sy = slices.Delete(sy, at+1, at+2)
	}
	for _, s := range sy {
		ids = append(ids, tok.vocab[s])
	}
	return ids
}

func checkMerges(t *testing.T, tok *Tokenizer, merges []mergeText, text string) {
	t.Helper()
	var want []int32
	for rest := text; rest != ""; {
		n := tok.rules.next(rest)
		ids := plainBPE(tok, merges, rest[:n])
		if got := fromBytes(tok, rest[:n]); !tok.rules.ignoreMerges && !slices.Equal(got, ids) {
			t.Fatalf("on the heap %q\n got %v\nwant %v\nmerges %q", rest[:n], got, ids, merges)
		}
		want = append(want, ids...)
		rest = rest[n:]
	}
	for range 2 { // the second time from the cache
		if got := tok.Encode(text); !slices.Equal(got, want) {
			t.Fatalf("Encode(%q)\n got %v\nwant %v\nmerges %q", text, got, want, merges)
		}
	}
}

// TestStrangeMerges compares with plain BPE where characters may and may not be taken whole, in short and long words.
func TestStrangeMerges(t *testing.T) {
	whole, partly := 0, 0
	for seed := range uint64(300) {
		tok, merges := strange(t, seed, splitGPT2+split(seed%2))
		rng := rand.New(rand.NewPCG(seed, 2))
		for range 30 {
			checkMerges(t, tok, merges, strangeText(rng, 1+rng.IntN(30)))
		}
		checkMerges(t, tok, merges, strangeText(rng, 300))
		for _, page := range tok.characters {
			if page == nil {
				continue
			}
			for _, c := range page {
				switch {
				case c.fits(besideEnd, besideEnd) && c.fits(besideInner, besideLead):
					whole++
				case c != 0:
					partly++
				}
			}
		}
	}
	if whole < 1000 || partly < 100 {
		t.Errorf("%d characters are taken whole inside words and %d are not", whole, partly)
	}
}

// fromBytes merges one word on the heap alone.
func fromBytes(tok *Tokenizer, word string) []int32 {
	var sc scratch
	if sc.symbols = tok.appendBytes(nil, word); len(sc.symbols) > 0 {
		tok.pairUp(&sc)
		tok.mergeHeap(&sc)
	}
	return sc.ids
}

// TestCharacterTable: a word of one character gives the same ids from the table and from its bytes.
func TestCharacterTable(t *testing.T) {
	for seed := range uint64(30) {
		tok, _ := strange(t, seed, splitGPT2)
		for r := rune(utf8.RuneSelf); r < maxCharacter; r++ {
			c := tok.character(r)
			if c == 0 {
				continue
			}
			var sc scratch
			sc.symbols = tok.appendSymbols(nil, string(r))
			tok.pairUp(&sc)
			tok.mergeShort(&sc)
			if want := fromBytes(tok, string(r)); !slices.Equal(sc.ids, want) {
				t.Fatalf("seed %d, %U: %v, want %v", seed, r, sc.ids, want)
			}
		}
	}
}

// FuzzMerges compares with plain BPE on any text.
func FuzzMerges(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range uint64(12) {
		f.Add(i, strangeText(rng, 20))
	}
	f.Fuzz(func(t *testing.T, seed uint64, text string) {
		tok, merges := strange(t, seed, splitLlama3)
		checkMerges(t, tok, merges, text[:min(len(text), 2000)])
	})
}
