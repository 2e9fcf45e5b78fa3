// Package chat lays conversations out for a model with the model's own chat
// template (Jinja), as token ids and with a mask of what the model itself says.
//
// Start with New, then Prompt for sampling and Encode for a training row. Two
// promises hold between them: the ids of Prompt(msgs[:k]) are exactly the
// beginning of Encode(msgs) for every assistant turn k, and no text inside a
// message can become a control token (defuse.go says how).
//
// The package does not know tools, images or where a template comes from. The
// template runs under limits, see guard.go.
package chat

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ardanlabs/jinja"

	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

// Message is one turn of a conversation. The roles that every template knows
// are "system", "user" and "assistant".
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Options are values a template may ask for.
type Options struct {
	// EnableThinking is passed to the template as enable_thinking. nil is
	// false: models that can think aloud (Qwen3) are asked to answer directly.
	EnableThinking *bool
	// DateString is the day a template prints as today, such as "05 Mar 2026".
	// Empty means "26 Jul 2024", the day in Llama 3.1's template. It is never
	// the day of the run: the same input must give the same ids.
	DateString string
}

const (
	dateLayout  = "02 Jan 2006"
	defaultDate = "26 Jul 2024"
)

// Format is a tokenizer with a compiled chat template; it is safe for many
// goroutines.
type Format struct {
	tok      *tokenizer.Tokenizer
	source   string
	guarded  *guarded
	thinking bool
	date     time.Time
	specials []string // texts of all special tokens
	special  map[string]bool
	lengths  []int     // of specials in bytes, ascending, each once
	heads    [256]bool // their first bytes
	ends     []int32
}

// New compiles the model's own template with default options.
func New(tok *tokenizer.Tokenizer, template string) (*Format, error) {
	return NewWithOptions(tok, template, Options{})
}

// NewWithOptions compiles the model's own template and tries it on a short
// exchange to learn which token ends an assistant turn. It returns an error
// for a template that does not compile, that runs away, or that puts no
// special token after an answer.
func NewWithOptions(tok *tokenizer.Tokenizer, template string, o Options) (*Format, error) {
	f := &Format{tok: tok, source: template, special: map[string]bool{}, thinking: o.EnableThinking != nil && *o.EnableThinking}
	var err error
	day := cmp.Or(o.DateString, defaultDate)
	if f.date, err = time.Parse(dateLayout, day); err != nil {
		return nil, fmt.Errorf("chat: DateString %q is no day of the form %q", day, dateLayout)
	}
	if f.guarded, err = compile(template); err != nil {
		return nil, fmt.Errorf("chat: the model's template: %w", err)
	}
	for id := range int32(tok.Size()) {
		if tok.IsSpecial(id) {
			s := tok.Token(id)
			f.specials, f.lengths, f.special[s] = append(f.specials, s), append(f.lengths, len(s)), true
			f.heads[s[0]] = true
		}
	}
	slices.Sort(f.lengths)
	f.lengths = slices.Compact(f.lengths)
	if err := f.findEnds(); err != nil {
		return nil, err
	}
	return f, nil
}

// documentEnds are special tokens that end a text in the families we know. A
// chat model that emits one has finished, whatever its turns end with.
var documentEnds = []string{"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"}

// findEnds lays out one exchange and takes the special token after the answer.
func (f *Format) findEnds() error {
	answer := "Answer"
	for strings.Contains(f.source, answer) {
		answer += "q"
	}
	text, err := f.Render([]Message{{"user", "Question"}, {"assistant", answer}}, false)
	if err != nil {
		return fmt.Errorf("%w (on a plain exchange of user and assistant)", err)
	}
	at := strings.LastIndex(text, answer)
	if at < 0 {
		return errors.New("chat: the model's template leaves out what the assistant says; use the template of an instruct model")
	}
	id, _, _, ok := f.tok.FindSpecial(text[at+len(answer):])
	if !ok {
		return errors.New("chat: the model's template puts no special token after an answer, so nothing tells where it ends; check that template and tokenizer belong to the same model")
	}
	f.ends = []int32{id}
	add := func(id int32, ok bool) {
		if ok && f.tok.IsSpecial(id) && !slices.Contains(f.ends, id) {
			f.ends = append(f.ends, id)
		}
	}
	add(f.tok.EOS())
	for _, s := range documentEnds {
		add(f.tok.ID(s))
	}
	return nil
}

// EndTokens returns the ids that end an assistant turn: first the one the
// template writes (<|im_end|>), then the model's other end tokens.
func (f *Format) EndTokens() []int32 { return slices.Clone(f.ends) }

// Hash names everything that shapes ids: tokenizer, template and options.
func (f *Format) Hash() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "chat 1\n%s\n%v\n%s\n%s", f.tok.Hash(), f.thinking, f.date.Format(dateLayout), f.source))
	return hex.EncodeToString(sum[:])
}

// Render returns the text of a conversation as the template writes it, with
// the opening of the next assistant turn when generationPrompt is set. Where a
// template refuses a conversation, the error holds the template's own words.
func (f *Format) Render(msgs []Message, generationPrompt bool) (string, error) {
	if err := check(msgs); err != nil {
		return "", err
	}
	return f.render(msgs, generationPrompt)
}

// check refuses what would make a template misbehave: roles are put next to
// control tokens, so they must be plain words.
func check(msgs []Message) error {
	if len(msgs) == 0 {
		return errors.New("chat: the conversation has no messages")
	}
	for i, m := range msgs {
		plain := m.Role != "" && len(m.Role) <= 64
		for _, r := range m.Role {
			plain = plain && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
		}
		if !plain {
			return fmt.Errorf("chat: message %d has the role %.80q; a role is one word such as system, user or assistant", i, m.Role)
		}
	}
	return nil
}

func (f *Format) render(msgs []Message, generationPrompt bool) (string, error) {
	size := 0
	list := make([]jinja.Value, len(msgs))
	for i, m := range msgs {
		d := jinja.NewDict()
		d.AsDict().Set("role", jinja.NewString(m.Role))
		d.AsDict().Set("content", jinja.NewString(m.Content))
		list[i] = d
		size += len(m.Content) + messageSize
	}
	text, err := f.renderValues(jinja.NewList(list), size, generationPrompt)
	if err != nil {
		return "", err
	}
	if err := keepsSystem(text, msgs); err != nil {
		return "", err
	}
	return text, nil
}

// keepsSystem returns an error when a template silently leaves a system message
// out: Gemma's does where no user turn follows that could hold it. (A message of
// a few letters may be found elsewhere in the text and pass.)
func keepsSystem(text string, msgs []Message) error {
	for i, m := range msgs {
		if m.Role != "system" || strings.Contains(text, strings.TrimSpace(m.Content)) || strings.Contains(noSpace(text), noSpace(m.Content)) {
			continue
		}
		return fmt.Errorf("chat: message %d: the template leaves out the system message; put a user's message after it, or its text into one", i)
	}
	return nil
}

// renderValues runs the template; size is the length of all messages.
func (f *Format) renderValues(messages jinja.Value, size int, generationPrompt bool) (string, error) {
	text := func(id int32, ok bool) jinja.Value {
		if !ok {
			return jinja.NewString("")
		}
		return jinja.NewString(f.tok.Token(id))
	}
	return f.guarded.render(map[string]jinja.Value{
		"messages":              messages,
		"add_generation_prompt": jinja.NewBool(generationPrompt),
		"enable_thinking":       jinja.NewBool(f.thinking),
		"bos_token":             text(f.tok.BOS()),
		"eos_token":             text(f.tok.EOS()),
		"date_string":           jinja.NewString(f.date.Format(dateLayout)),
		"strftime_now":          strftime(f.date),
	}, size)
}

// Template returns the chat template in the bytes of a tokenizer_config.json:
// the only one, or of several the one named "default".
func Template(tokenizerConfigJSON []byte) (string, error) {
	var c struct {
		Template json.RawMessage `json:"chat_template"`
	}
	if err := json.Unmarshal(tokenizerConfigJSON, &c); err != nil {
		return "", fmt.Errorf("chat: tokenizer_config.json: %w; re-download the file", err)
	}
	var one string
	if json.Unmarshal(c.Template, &one) == nil && one != "" {
		return one, nil
	}
	var many []struct{ Name, Template string }
	if json.Unmarshal(c.Template, &many) == nil {
		for _, t := range many {
			if t.Name == "default" && t.Template != "" {
				return t.Template, nil
			}
		}
	}
	return "", errors.New("chat: tokenizer_config.json holds no chat template; use an instruct model, or a chat_template.jinja file")
}
