package serve

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"

	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/sample"
)

const (
	maxStops    = 16
	maxStopSize = 1 << 10 // bytes
	maxTop      = 20      // alternatives a token
	leastTopP   = 1e-12   // keeps the most probable token only
)

// ask is what a request asks for.
type ask struct {
	chat     bool
	model    string
	messages []chat.Message // chat
	texts    []string       // text completion, in words
	prompts  [][]int32      // text completion, in tokens; after Server.encode all of them

	n             int
	params        sample.Params
	stops         []string
	logProbs      bool
	top           int
	stream, usage bool

	maxTokens, maxCompletion, bestOf int
}

// field reads one field of a request into an ask.
type field func(a *ask, v value) *apiError

// ignored are fields that change nothing in an answer.
func ignored(*ask, value) *apiError { return nil }

// only takes a field where it asks for nothing.
func only(why string) field {
	return func(_ *ask, v value) *apiError {
		if v.empty() {
			return nil
		}
		return unsupported(v, why)
	}
}

func unsupported(v value, why string) *apiError {
	return bad(v.name, "unsupported_parameter", "%.100s is not supported by this server%s; leave it out.", v.name, why)
}

// words takes a field where it holds one of the words that mean what happens anyway.
func words(list ...string) field {
	return func(_ *ask, v value) *apiError {
		if v.is(list...) {
			return nil
		}
		return bad(v.name, "unsupported_parameter", "%s %s is not supported by this server; leave it out, or give %q.", v.name, v.shown(), list[0])
	}
}

func float(set func(a *ask, f float64), from, to float64) field {
	return func(a *ask, v value) *apiError {
		f, err := v.number(from, to)
		if err == nil {
			set(a, f)
		}
		return err
	}
}

func integer(set func(a *ask, n int64), from, to int64) field {
	return func(a *ask, v value) *apiError {
		n, err := v.integer(from, to)
		if err == nil {
			set(a, n)
		}
		return err
	}
}

const most = 1 << 31

var shared = map[string]field{
	"model": func(a *ask, v value) (err *apiError) {
		a.model, err = v.text()
		return err
	},
	"n":           integer(func(a *ask, n int64) { a.n = int(n) }, 1, most),
	"temperature": float(func(a *ask, f float64) { a.params.Temperature = f }, 0, 2),
	"top_p":       float(func(a *ask, f float64) { a.params.TopP = max(f, leastTopP) }, 0, 1),
	"max_tokens":  integer(func(a *ask, n int64) { a.maxTokens = int(n) }, 1, most),
	"seed":        integer(func(a *ask, n int64) { a.params.Seed = uint64(n) }, -1<<63, 1<<63-1),
	"stop":        readStops,
	"stream": func(a *ask, v value) (err *apiError) {
		a.stream, err = v.yes()
		return err
	},
	"stream_options": readStreamOptions,
	// Not of OpenAI, but of other servers of open models.
	"top_k":              integer(func(a *ask, n int64) { a.params.TopK = int(n) }, 0, most),
	"repetition_penalty": float(func(a *ask, f float64) { a.params.RepetitionPenalty = f }, .01, 100),

	"frequency_penalty": only(""), "presence_penalty": only(""), "logit_bias": only(""),
	"user": ignored, "metadata": ignored, "safety_identifier": ignored, "service_tier": ignored,
	"prompt_cache_key": ignored, "prompt_cache_retention": ignored,
}

var ofChat = map[string]field{
	"messages":              nil, // read apart
	"max_completion_tokens": integer(func(a *ask, n int64) { a.maxCompletion = int(n) }, 1, most),
	"logprobs": func(a *ask, v value) (err *apiError) {
		a.logProbs, err = v.yes()
		return err
	},
	"top_logprobs":    integer(func(a *ask, n int64) { a.top = int(n) }, 0, maxTop),
	"response_format": readFormat,
	"tools":           only(": the models call none"), "functions": only(": the models call none"), "tool_choice": words("none", "auto"), "function_call": words("none", "auto"),
	"parallel_tool_calls": ignored, "prediction": ignored, "store": only(": nothing is kept"),
	"modalities": readModalities, "audio": only(": the models know text only"), "web_search_options": only(""),
	"reasoning_effort": words("none"), "verbosity": words("medium"), "thinking": readThinking,
}

var ofText = map[string]field{
	"prompt":   nil, // read apart
	"logprobs": integer(func(a *ask, n int64) { a.logProbs, a.top = true, int(n) }, 0, maxTop),
	"best_of":  integer(func(a *ask, n int64) { a.bestOf = int(n) }, 1, most),
	"echo":     only(""), "suffix": only(""),
}

// parse reads the body of a chat or a text completion.
func parse(body []byte, isChat bool, maxChoices, maxMessages int) (*ask, *apiError) {
	fields, err := object("", body)
	if err != nil {
		return nil, err
	}
	a := &ask{chat: isChat, n: 1, params: sample.Params{Temperature: 1}}
	own, main := ofText, "prompt"
	if isChat {
		own, main = ofChat, "messages"
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) { // in order: one mistake gives one message
		read, known := shared[name]
		if !known {
			read, known = own[name]
		}
		if !known {
			return nil, bad(name, "unknown_parameter", "There is no field %.100q in this request's form; this server refuses what it does not know, since it might change the answer.", name)
		}
		if read != nil {
			if err := read(a, fields[name]); err != nil {
				return nil, err
			}
		}
	}
	if a.model == "" {
		return nil, bad("model", "", "model is missing: name one of those that GET /v1/models lists.")
	}
	content, there := fields[main]
	if !there {
		return nil, bad(main, "", "%s is missing.", main)
	}
	if isChat {
		a.messages, err = readMessages(content, maxMessages)
	} else {
		err = readPrompt(a, content, maxChoices)
	}
	if err != nil {
		return nil, err
	}
	_, seeded := fields["seed"]
	return a, a.settle(seeded, maxChoices)
}

// settle checks what fields say together.
func (a *ask) settle(seeded bool, maxChoices int) *apiError {
	if count := a.n * max(1, len(a.texts)+len(a.prompts)); a.n > maxChoices || count > maxChoices {
		return bad("n", "", "The request asks for more than the %d answers that this server gives at once; ask again for the rest.", maxChoices)
	}
	if a.bestOf != 0 && a.bestOf != a.n {
		return bad("best_of", "unsupported_parameter", "best_of is not supported by this server; leave it out, or ask for n answers.")
	}
	if a.top > 0 && !a.logProbs {
		return bad("top_logprobs", "", "top_logprobs needs logprobs: true.")
	}
	if a.usage && !a.stream {
		return bad("stream_options", "", "stream_options needs stream: true.")
	}
	if a.maxTokens != 0 && a.maxCompletion != 0 && a.maxTokens != a.maxCompletion {
		return bad("max_tokens", "", "max_tokens and max_completion_tokens are one limit under two names, and they differ; give one.")
	}
	a.params.MaxTokens = max(a.maxTokens, a.maxCompletion)
	if !seeded {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		a.params.Seed = binary.LittleEndian.Uint64(b[:])
	}
	return nil
}

func readStops(a *ask, v value) (err *apiError) {
	if a.stops, err = v.texts(maxStops); err != nil {
		return err
	}
	for _, s := range a.stops {
		if s == "" || len(s) > maxStopSize {
			return bad("stop", "", "A stop text has 1 to %d bytes, not %d.", maxStopSize, len(s))
		}
	}
	return nil
}

func readStreamOptions(a *ask, v value) *apiError {
	fields, err := object(v.name, v.raw)
	if err != nil {
		return err
	}
	for name, f := range fields {
		switch name {
		case "include_usage":
			if a.usage, err = f.yes(); err != nil {
				return err
			}
		case "include_obfuscation": // padding against who listens: there is none, and nothing is lost
		default:
			return bad("stream_options."+name, "unknown_parameter", "There is no field %.100q in stream_options.", name)
		}
	}
	return nil
}

func readFormat(_ *ask, v value) *apiError {
	if fields, err := object(v.name, v.raw); err == nil && len(fields) == 1 && fields["type"].is("text") {
		return nil
	}
	return unsupported(v, ` but for {"type": "text"}: nothing holds the models to a form`)
}

func readThinking(_ *ask, v value) *apiError {
	if fields, err := object(v.name, v.raw); err == nil && len(fields) == 1 && fields["type"].is("disabled") {
		return nil
	}
	return unsupported(v, ` but for {"type": "disabled"}`)
}

func readModalities(_ *ask, v value) *apiError {
	list, err := v.texts(8)
	if err != nil {
		return err
	}
	for _, m := range list {
		if m != "text" {
			return unsupported(v, ` but for ["text"]`)
		}
	}
	return nil
}

// readPrompt takes a text, texts, tokens, or lists of tokens.
func readPrompt(a *ask, v value, maxChoices int) *apiError {
	var ids []int32
	var lists [][]int32
	nulls := bytes.Contains(v.raw, []byte("null")) // would be read as token 0
	if !nulls && json.Unmarshal(v.raw, &ids) == nil && len(ids) > 0 {
		a.prompts = [][]int32{ids}
		return nil
	}
	if !nulls && json.Unmarshal(v.raw, &lists) == nil && len(lists) > 0 {
		if len(lists) > maxChoices {
			return v.want("one prompt, or no more than the server answers at once")
		}
		a.prompts = lists
		return nil
	}
	texts, err := v.texts(maxChoices)
	if err != nil {
		return v.want("a string, a list of strings, tokens or lists of tokens, and no more prompts than the server answers at once")
	}
	if len(texts) == 0 {
		return v.want("at least one prompt")
	}
	a.texts = texts
	return nil
}
