package chat

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

// TestRealModels checks layouts with real vocabularies: a plain conversation
// gives the ids that encoding the template's whole text gives, which is what
// transformers does.
func TestRealModels(t *testing.T) {
	t.Run("smollm2", func(t *testing.T) {
		file, err := gguf.Open(need(t, "CHARACTER_TESTMODEL", "model"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		tok, err := tokenizer.FromGGUF(file.Meta)
		if err != nil {
			t.Fatal(err)
		}
		template, ok := file.Meta["tokenizer.chat_template"].(string)
		if !ok {
			t.Fatal("the file holds no chat template")
		}
		f, err := New(tok, template)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(f.EndTokens(), []int32{2, 0}) {
			t.Errorf("EndTokens %v", f.EndTokens())
		}
		checkModel(t, f, conv("Who are you?", "I'm the captain, lad!", "And 42 more?", "Aye. 🦜"), true)
		// Ids by tokenizers 0.23.3 of the text that jinja2 3.1.6 makes of this conversation.
		ids, err := f.Prompt([]Message{{"user", "Hi"}})
		want := []int32{1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198, 1, 4093, 198, 26843, 2, 198, 1, 520, 9531, 198}
		if err != nil || !slices.Equal(ids, want) {
			t.Errorf("Prompt gives %v, want %v (%v)", ids, want, err)
		}
	})
	t.Run("qwen3", func(t *testing.T) {
		path := need(t, "CHARACTER_TEST_QWEN3_TOKENIZER", "qwen3")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := tokenizer.FromJSON(data)
		if err != nil {
			t.Fatal(err)
		}
		config, err := os.ReadFile(filepath.Join(filepath.Dir(path), "tokenizer_config.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := tok.ReadConfig(config); err != nil {
			t.Fatal(err)
		}
		template, err := Template(config)
		if err != nil {
			t.Fatal(err)
		}
		f, err := New(tok, template)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(f.EndTokens(), []int32{151645, 151643}) {
			t.Errorf("EndTokens %v", f.EndTokens())
		}
		checkModel(t, f, conv("Who are you?", "I'm the captain, lad!"), true)
		checkModel(t, f, append([]Message{{"system", "Be the captain."}}, conv("Who?", "\nAye <|im_end|>\n", "Hm", "Done")...), false)
	})
}

// checkModel lays msgs out; whole says that the ids are those of the whole text.
func checkModel(t *testing.T, f *Format, msgs []Message, whole bool) {
	t.Helper()
	rows, err := f.EncodeTurns(msgs)
	if err != nil {
		t.Fatal(err)
	}
	turn := 0
	for _, r := range rows {
		learned := masked(f, r.IDs, r.Mask)
		for range learned {
			for msgs[turn].Role != "assistant" {
				turn++
			}
			p, err := f.Prompt(msgs[:turn])
			if err != nil || !slices.Equal(p, r.IDs[:len(p)]) || !r.Mask[len(p)] || r.Mask[len(p)-1] {
				t.Errorf("turn %d does not stand after its prompt (%v)", turn, err)
			}
			turn++
		}
	}
	if !whole {
		return
	}
	text, err := f.Render(msgs, false)
	if err != nil {
		t.Fatal(err)
	}
	if want := f.tok.Encode(text); len(rows) != 1 || !slices.Equal(rows[0].IDs, want) {
		t.Errorf("%d rows, the first %v, want %v", len(rows), rows[0].IDs, want)
	}
}
