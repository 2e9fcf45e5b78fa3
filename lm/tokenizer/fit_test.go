package tokenizer_test

import (
	"strings"
	"testing"
)

func TestFit(t *testing.T) {
	tok := mustGGUF(t, tiny("gpt-2")) // 265 tokens, then <|start|>, <|end|>, <think>, <|end|>more
	hash := tok.Hash()
	if err := tok.Fit(269); err != nil || tok.Hash() != hash {
		t.Errorf("Fit(269) changed a tokenizer of 269: %v", err)
	}
	for rows, want := range map[int]string{266: `"<|end|>"`, 200: "id 200", 0: "id 0", -1: "id 0"} {
		if err := tok.Fit(rows); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "do not belong together") || tok.Hash() != hash {
			t.Errorf("Fit(%d): %v, want an error with %q and no change", rows, err, want)
		}
	}
	if err := tok.Fit(267); err != nil {
		t.Fatal(err)
	}
	if got := pieces(tok, tok.Encode("<think><|end|>more")); got != "<|t|h|i|n|k|>|<|end|>|m|or|e" {
		t.Errorf("after Fit: %q", got)
	}
	if _, ok := tok.ID("<think>"); ok || tok.Size() != 267 || tok.Token(267) != "" || tok.TokenBytes(268) != nil || tok.IsSpecial(268) || tok.Hash() == hash {
		t.Errorf("a token beyond the rows is still there; Size %d", tok.Size())
	}
	checkRoundTrip(t, tok, []int32{104, 266, 267, 268})
}

// TestFitGemma3: the text-only sizes of Gemma 3 have 262,144 rows.
func TestFitGemma3(t *testing.T) {
	tok := loadJSON(t, "CHARACTER_TEST_GEMMA3_TOKENIZER", "gemma3")
	if tok.Size() != 262145 {
		t.Fatalf("Size %d", tok.Size())
	}
	if err := tok.Fit(262144); err != nil {
		t.Fatal(err)
	}
	if _, ok := tok.ID("<image_soft_token>"); ok || tok.Size() != 262144 {
		t.Errorf("Size %d", tok.Size())
	}
	for _, id := range tok.Encode("a<image_soft_token>b") {
		if id >= 262144 {
			t.Errorf("id %d", id)
		}
	}
	if err := tok.Fit(255000); err == nil {
		t.Error("Fit(255000) gave no error, and there are words beyond")
	}
}
