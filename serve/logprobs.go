package serve

import (
	"math"
	"strings"
	"unicode/utf8"

	"github.com/opencharacter/opencharacter/lm/sample"
)

// least stands for the log-prob of what cannot be, which JSON has no number for.
const least = -9999

func logProb(x float32) float64 {
	if f := float64(x); !math.IsInf(f, 0) && !math.IsNaN(f) {
		return f
	}
	return least
}

// logProbs is the field of that name, in the form of chats or of text completions.
func (p *reply) logProbs(tokens []said) any {
	switch {
	case !p.ask.logProbs:
		return nil
	case p.ask.chat:
		content := make([]any, len(tokens))
		for i, t := range tokens {
			top := make([]any, len(t.Top))
			for k, x := range t.Top {
				top[k] = p.entry(x)
			}
			e := p.entry(sample.Alternative{ID: t.ID, LogProb: t.LogProb})
			e["top_logprobs"] = top
			content[i] = e
		}
		return map[string]any{"content": content, "refusal": nil}
	}
	names, probs, top, offsets := make([]string, len(tokens)), make([]float64, len(tokens)), make([]any, len(tokens)), make([]int, len(tokens))
	for i, t := range tokens {
		names[i], probs[i], offsets[i] = p.spelling(t.ID), logProb(t.LogProb), t.from
		list := map[string]float64{}
		for _, x := range t.Top {
			name := p.spelling(x.ID)
			if _, twice := list[name]; !twice {
				list[name] = logProb(x.LogProb)
			}
		}
		top[i] = list
	}
	out := map[string]any{"tokens": names, "token_logprobs": probs, "top_logprobs": nil, "text_offset": offsets}
	if p.ask.top > 0 {
		out["top_logprobs"] = top
	}
	return out
}

func (p *reply) entry(x sample.Alternative) map[string]any {
	b := p.s.o.Tokens.TokenBytes(x.ID)
	list := make([]int, len(b)) // a []byte would become base64
	for i, c := range b {
		list[i] = int(c)
	}
	return map[string]any{"token": strings.ToValidUTF8(string(b), "\uFFFD"), "logprob": logProb(x.LogProb), "bytes": list}
}

// spelling is a token's text; of one that is no text by itself its bytes, as the API writes them.
func (p *reply) spelling(id int32) string {
	b := p.s.o.Tokens.TokenBytes(id)
	if utf8.Valid(b) {
		return string(b)
	}
	const hex = "0123456789abcdef"
	var out strings.Builder
	out.WriteString("bytes:")
	for _, c := range b {
		out.WriteString(`\x`)
		out.WriteByte(hex[c>>4])
		out.WriteByte(hex[c&15])
	}
	return out.String()
}
