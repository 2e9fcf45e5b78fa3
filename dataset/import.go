package dataset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// File is a file of rows that somebody else made, to be imported.
type File struct {
	Name string // for errors
	Data []byte // JSON lines, or Parquet
}

// ImportPreferences reads preference data in the shapes that are common, and gives our rows. Of each row it takes
//
//	prompt    a text, or a list of messages that ends with the user's ("question" and "instruction" are read too)
//	chosen    a text, a list of assistant messages, or the whole conversation with the prompt in it
//	rejected  the same
//	system    a text that goes before the prompt; may be missing
//
// Messages are {"role", "content"} or {"from", "value"}. Without a prompt, chosen and rejected must hold it: as equal
// first messages, or as "\n\nHuman: ...\n\nAssistant: ..." in a text. Other columns are ignored. Rows get the id
// import-<line>, of several files import-<file>-<line>; a Parquet file counts rows from 1.
//
// All or nothing: the first row that does not fit is an error that names file, line and column.
func ImportPreferences(files ...File) ([]Pair, error) {
	rows, err := importFiles(files, []string{"prompt", "question", "instruction", "system", "chosen", "rejected"}, func(r record, _ []byte) (Pair, error) {
		p, err := r.pair()
		p.ID, p.Source = r.id, "user"
		return p, err
	})
	if err == nil && len(rows) == 0 {
		return nil, errors.New("dataset: import: there are no rows; give JSON lines or Parquet with the columns prompt, chosen and rejected")
	}
	return rows, err
}

// ImportIntrospection reads conversations of the character: what ParseIntrospectionJSONL reads, or rows (of Parquet too)
// with a list of messages in the column messages, and perhaps its kind, reflection or interaction, in the column kind.
// A single question with its answer is a reflection otherwise, anything longer an interaction. Ids and errors are those
// of ImportPreferences.
func ImportIntrospection(files ...File) ([]Conversation, error) {
	rows, err := importFiles(files, []string{"messages", "kind"}, func(r record, line []byte) (Conversation, error) {
		var c Conversation
		var err error
		if _, ok := r.cells["messages"]; !ok && line != nil {
			var l introspectionLine
			if err = decodeLine(line, &l); err == nil {
				c, err = l.conversation()
			}
		} else {
			c, err = r.conversation()
		}
		c.ID = r.id
		return c, err
	})
	if err == nil && len(rows) == 0 {
		return nil, errors.New("dataset: import: there are no rows; give JSON lines or Parquet with the column messages, or prompt and reflection")
	}
	return rows, err
}

// importFiles reads the named columns of every row; line is nil for Parquet.
func importFiles[T any](files []File, columns []string, row func(r record, line []byte) (T, error)) ([]T, error) {
	var out []T
	for i, f := range files {
		id := func(n int) string {
			if len(files) == 1 {
				return fmt.Sprintf("import-%06d", n)
			}
			return fmt.Sprintf("import-%02d-%06d", i+1, n)
		}
		bad := func(err error) error {
			if f.Name == "" {
				return fmt.Errorf("dataset: %w", err)
			}
			return fmt.Errorf("dataset: %s: %w", f.Name, err)
		}
		if len(f.Data) > MaxJSONLBytes {
			return nil, bad(fmt.Errorf("the file has %d bytes; the limit is %d (256 MiB); split the file", len(f.Data), MaxJSONLBytes))
		}
		if bytes.HasPrefix(f.Data, []byte("PAR1")) {
			err := eachParquet(f.Data, columns, func(n int, cells map[string]cell) error {
				v, err := row(record{id(n), cells}, nil)
				if err != nil {
					return fmt.Errorf("row %d: %w", n, err)
				}
				out = append(out, v)
				return nil
			})
			if err != nil {
				return nil, bad(err)
			}
			continue
		}
		for n, line := range eachLine(f.Data) {
			cells, err := lineCells(line, columns)
			var v T
			if err == nil {
				v, err = row(record{id(n), cells}, line)
			}
			if err != nil {
				return nil, bad(fmt.Errorf("line %d: %w", n, err))
			}
			out = append(out, v)
		}
	}
	return out, nil
}

// record is one row of a file that somebody else made; columns without a value are not there.
type record struct {
	id    string
	cells map[string]cell
}

// cell is a text, or a list of messages.
type cell struct {
	text     string
	messages []Message // not nil for a list
}

// lineCells reads columns of a JSON line.
func lineCells(line []byte, columns []string) (map[string]cell, error) {
	var fields map[string]json.RawMessage
	if err := decodeLine(line, &fields); err != nil {
		return nil, err
	}
	cells := map[string]cell{}
	for _, name := range columns {
		raw, ok := fields[name]
		if !ok || string(raw) == "null" {
			continue
		}
		c, err := readCell(raw)
		if err != nil {
			return nil, inColumn(name, err)
		}
		cells[name] = c
	}
	return cells, nil
}

func inColumn(name string, err error) error { return fmt.Errorf("column %q: %w", name, err) }

func readCell(raw json.RawMessage) (c cell, err error) {
	switch raw[0] {
	case '"':
		err = json.Unmarshal(raw, &c.text)
		return c, err
	case '[':
		var list []struct {
			Role    *string         `json:"role"`
			From    *string         `json:"from"`
			Content json.RawMessage `json:"content"`
			Value   json.RawMessage `json:"value"`
		}
		if json.Unmarshal(raw, &list) != nil {
			return c, errors.New("a list of messages must hold objects with role and content")
		}
		c.messages = []Message{}
		for i, m := range list {
			role, content := m.Role, m.Content
			if role == nil && m.From != nil {
				role, content = m.From, m.Value
			}
			var text *string
			if role == nil || len(content) == 0 || json.Unmarshal(content, &text) != nil || text == nil {
				return c, fmt.Errorf("message %d needs a role and a content, both texts", i+1)
			}
			c.messages = append(c.messages, Message{*role, *text})
		}
		return c, nil
	}
	return c, errors.New("it must be a text, or a list of messages")
}

// speakers are other names of roles.
var speakers = map[string]string{"human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}

// checkMessages gives messages our roles and refuses what no chat template takes.
func checkMessages(list []Message) ([]Message, error) {
	list = slices.Clone(list)
	for i, m := range list {
		if known, ok := speakers[m.Role]; ok {
			list[i].Role = known
		}
		switch role := list[i].Role; {
		case role != "system" && role != "user" && role != "assistant":
			return nil, fmt.Errorf("message %d has the role %q; system, user and assistant are known", i+1, m.Role)
		case role == "system" && i > 0:
			return nil, fmt.Errorf("message %d is of the system, which speaks first or not at all", i+1)
		case strings.TrimSpace(m.Content) == "":
			return nil, fmt.Errorf("message %d is empty", i+1)
		case !utf8.ValidString(m.Content):
			return nil, fmt.Errorf("message %d is not valid UTF-8", i+1)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("it has no messages")
	}
	return list, nil
}

// pair makes a preference of the row.
func (r record) pair() (Pair, error) {
	var p Pair
	var inside [2][]Message // the prompts in chosen and rejected
	asked, prompt, err := r.prompt()
	if err != nil {
		return p, err
	}
	for i, side := range []struct {
		name string
		to   *[]Message
	}{{"chosen", &p.Chosen}, {"rejected", &p.Rejected}} {
		c, ok := r.cells[side.name]
		if !ok {
			return p, inColumn(side.name, errors.New("it is missing"))
		}
		if inside[i], *side.to, err = answers(c, asked == ""); err != nil {
			return p, inColumn(side.name, err)
		}
	}
	switch {
	case (inside[0] == nil) != (inside[1] == nil):
		return p, errors.New(`one of the columns "chosen" and "rejected" holds the prompt and the other does not; both must, or neither`)
	case inside[0] != nil && !slices.Equal(inside[0], inside[1]):
		return p, errors.New(`columns "chosen" and "rejected" begin with different prompts; the two answers of a row must be to the same one`)
	case inside[0] == nil && asked == "":
		return p, errors.New(`column "prompt" is missing, and "chosen" and "rejected" hold none (as their first messages, or as "\n\nHuman: ...\n\nAssistant: ...")`)
	case inside[0] != nil && asked != "" && !agrees(prompt, inside[0]):
		return p, fmt.Errorf("columns %q and %q hold different prompts", asked, "chosen")
	}
	p.Prompt = prompt
	if inside[0] != nil {
		p.Prompt = inside[0]
	}
	if system := r.cells["system"]; strings.TrimSpace(system.text) != "" {
		if !utf8.ValidString(system.text) {
			return p, inColumn("system", errors.New("it is not valid UTF-8"))
		}
		switch first := p.Prompt[0]; {
		case first.Role != "system":
			p.Prompt = append([]Message{{"system", system.text}}, p.Prompt...)
		case first.Content != system.text:
			return p, inColumn("system", errors.New("the prompt has another system message"))
		}
	} else if system.messages != nil {
		return p, inColumn("system", errors.New("it must be a text"))
	}
	return p, nil
}

// prompt returns the column that has the prompt, "" if none has, and the prompt.
func (r record) prompt() (string, []Message, error) {
	for _, name := range []string{"prompt", "question", "instruction"} {
		c, ok := r.cells[name]
		if !ok {
			continue
		}
		list := c.messages
		if list == nil {
			list = []Message{{"user", c.text}}
		}
		list, err := checkMessages(list)
		if err == nil && list[len(list)-1].Role != "user" {
			err = errors.New("it must end with a message of the user")
		}
		if err != nil {
			return "", nil, inColumn(name, err)
		}
		return name, list, nil
	}
	return "", nil, nil
}

// agrees tells whether a prompt of its own column is the one in a conversation: the same messages, or, as some data sets
// have it, the text of its first or last question.
func agrees(prompt, inside []Message) bool {
	if slices.Equal(prompt, inside) {
		return true
	}
	questions := slices.DeleteFunc(slices.Clone(inside), func(m Message) bool { return m.Role != "user" })
	return len(prompt) == 1 && (prompt[0] == questions[0] || prompt[0] == questions[len(questions)-1])
}

// answers cuts a column into the prompt, nil if it holds none, and the assistant's last words. A text is looked at for
// marks of speakers only where nothing else says what the prompt was.
func answers(c cell, marks bool) (prompt, answer []Message, err error) {
	list := c.messages
	if list == nil {
		list = []Message{{"assistant", c.text}}
		if marks && strings.HasPrefix(c.text, markHuman) {
			list = marked(c.text)
		}
	}
	if list, err = checkMessages(list); err != nil {
		return nil, nil, err
	}
	last := -1
	for i, m := range list {
		if m.Role != "assistant" {
			last = i
		}
	}
	switch {
	case last == len(list)-1:
		return nil, nil, fmt.Errorf("it must end with a message of the assistant; the last one is of role %q", list[last].Role)
	case last >= 0 && list[last].Role != "user":
		return nil, nil, errors.New("a conversation needs a message of the user before the answer")
	case last < 0:
		return nil, list, nil
	}
	return list[:last+1], list[last+1:], nil
}

// Marks of speakers in a text that is a whole conversation.
const (
	markHuman     = "\n\nHuman:"
	markAssistant = "\n\nAssistant:"
)

// marked cuts a text at the marks.
func marked(text string) (out []Message) {
	for text != "" {
		role, mark := "user", markHuman
		if strings.HasPrefix(text, markAssistant) {
			role, mark = "assistant", markAssistant
		}
		text = text[len(mark):]
		end := len(text)
		for _, m := range []string{markHuman, markAssistant} {
			if i := strings.Index(text, m); i >= 0 {
				end = min(end, i)
			}
		}
		out, text = append(out, Message{role, strings.TrimSpace(text[:end])}), text[end:]
	}
	return out
}

// conversation makes an introspection row of the row.
func (r record) conversation() (Conversation, error) {
	c, ok := r.cells["messages"]
	if !ok {
		return Conversation{}, inColumn("messages", errors.New("it is missing"))
	}
	if c.messages == nil {
		return Conversation{}, inColumn("messages", errors.New("it must be a list of messages"))
	}
	list, err := checkMessages(c.messages)
	if err != nil {
		return Conversation{}, inColumn("messages", err)
	}
	out := Conversation{Messages: list, TemplateID: "import", Kind: "interaction"}
	talk := list
	if talk[0].Role == "system" {
		out.SourceSystemPrompt, talk = talk[0].Content, talk[1:]
	}
	for i, m := range talk {
		if want := []string{"user", "assistant"}[i%2]; m.Role != want {
			return Conversation{}, inColumn("messages", fmt.Errorf("turn %d is of role %q; user and assistant take turns, and the user begins", i+1, m.Role))
		}
	}
	if len(talk) < 2 {
		return Conversation{}, inColumn("messages", errors.New("it has no answer of the assistant"))
	}
	out.PromptText, out.Turns = talk[0].Content, len(talk)
	if len(talk) == 2 {
		out.Kind, out.Turns = "reflection", 1
	}
	if kind := r.cells["kind"].text; kind != "" {
		if kind != "reflection" && kind != "interaction" || kind == "reflection" && len(talk) != 2 {
			return Conversation{}, inColumn("kind", fmt.Errorf("%q does not fit a conversation of %d turns; there are reflection (two) and interaction", kind, len(talk)))
		}
		if out.Kind = kind; kind == "interaction" {
			out.Turns = len(talk)
		}
	}
	return out, nil
}

// RunPreferences reads the file of a run's own pairs: JSON lines or Parquet, in any shape of ImportPreferences.
func RunPreferences(data []byte) ([]Pair, error) {
	if rows, err := ParsePreferenceJSONL(data); err == nil { // the shape that is exported, read as it always was
		return rows, nil
	}
	return ImportPreferences(File{Data: data})
}

// RunIntrospection reads the file of a run's own introspection rows, in any shape of ImportIntrospection.
func RunIntrospection(data []byte) ([]Conversation, error) {
	if rows, err := ParseIntrospectionJSONL(data); err == nil {
		return rows, nil
	}
	return ImportIntrospection(File{Data: data})
}
