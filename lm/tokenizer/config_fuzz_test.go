package tokenizer_test

import (
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/testenv/hostile"
)

// FuzzReadConfig: a tokenizer_config.json names tokens of the vocabulary, or is refused.
func FuzzReadConfig(f *testing.F) {
	f.Add([]byte(`{"bos_token":"<|start|>","eos_token":{"content":"<|end|>"}}`))
	f.Add([]byte(`{"bos_token":null,"eos_token":["a"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok := mustGGUF(t, tiny("gpt-2"))
		var err error
		hostile.Bounds{}.Hold(t, len(data), func() { err = tok.ReadConfig(data) })
		if err != nil && !strings.HasPrefix(err.Error(), "tokenizer: ") {
			t.Errorf("error %q does not name the package", err)
		}
		for _, get := range []func() (int32, bool){tok.BOS, tok.EOS} {
			if id, ok := get(); ok && tok.Token(id) == "" {
				t.Errorf("token %d is not in the vocabulary", id)
			}
		}
	})
}
