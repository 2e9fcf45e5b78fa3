package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

type turn struct {
	Speaker string `json:"speaker,omitempty"`
	Role    string `json:"role,omitempty"`
	Content string `json:"content"`
}

type introspectionLine struct {
	System          string  `json:"system,omitempty"`
	Prompt          *string `json:"prompt"`
	Reflection      *string `json:"reflection,omitempty"`
	InteractionType string  `json:"interaction_type,omitempty"`
	Turns           []turn  `json:"turns,omitempty"`
	Conversation    []turn  `json:"conversation,omitempty"`
}

// IntrospectionJSONL writes reflections as {"prompt", "reflection"} and interactions as {"prompt", "interaction_type", "turns": [{"speaker", "content"}]}.
// Speaker A is the one whose turns have the role user in Messages, speaker B the one that is trained. A system message of a row is kept as "system".
func IntrospectionJSONL(rows []Conversation) []byte {
	var buf bytes.Buffer
	for _, r := range rows {
		r = validText(r)
		line := introspectionLine{Prompt: &r.PromptText}
		messages := r.Messages
		if len(messages) > 0 && messages[0].Role == "system" {
			line.System, messages = messages[0].Content, messages[1:]
		}
		if len(messages) == 2 && r.Kind == "reflection" && messages[1].Role == "assistant" {
			line.Prompt, line.Reflection = &messages[0].Content, &messages[1].Content
		} else {
			line.InteractionType, line.Turns = "conversation", []turn{}
			for _, m := range messages {
				speaker := "A"
				if m.Role == "assistant" {
					speaker = "B"
				}
				line.Turns = append(line.Turns, turn{Speaker: speaker, Content: m.Content})
			}
		}
		writeLine(&buf, line)
	}
	return buf.Bytes()
}

// ParseIntrospectionJSONL reads reflections and interactions; interactions have "turns" with speakers, or "conversation" with roles. Of two speakers A and B the
// second is the assistant; with the roles user and assistant the roles say it. A line of any other shape is an error that names the line.
func ParseIntrospectionJSONL(data []byte) ([]Conversation, error) {
	if err := checkSize(data); err != nil {
		return nil, err
	}
	var rows []Conversation
	for n, line := range eachLine(data) {
		var l introspectionLine
		if err := decodeLine(line, &l); err != nil {
			return nil, atLine(n, err)
		}
		row, err := l.conversation()
		if err != nil {
			return nil, atLine(n, err)
		}
		row.ID = fmt.Sprintf("import-%06d", n)
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil, errors.New("dataset: the file holds no introspection rows; write lines with prompt and reflection, or prompt and turns")
	}
	return rows, nil
}

func (l introspectionLine) conversation() (Conversation, error) {
	if l.Prompt == nil || strings.TrimSpace(*l.Prompt) == "" {
		return Conversation{}, errors.New(`field "prompt" is missing or empty`)
	}
	row := Conversation{PromptText: *l.Prompt, TemplateID: "import", SourceSystemPrompt: l.System}
	if l.System != "" {
		row.Messages = append(row.Messages, Message{"system", l.System})
	}
	shapes := 0
	for _, has := range []bool{l.Reflection != nil, l.Turns != nil, l.Conversation != nil} {
		if has {
			shapes++
		}
	}
	if shapes != 1 {
		return Conversation{}, errors.New(`unknown shape: want exactly one of "reflection", "turns" and "conversation" beside "prompt"`)
	}
	if l.Reflection != nil {
		if strings.TrimSpace(*l.Reflection) == "" {
			return Conversation{}, errors.New(`field "reflection" is empty`)
		}
		row.Kind, row.Turns = "reflection", 1
		row.Messages = append(row.Messages, Message{"user", *l.Prompt}, Message{"assistant", *l.Reflection})
		return row, nil
	}
	turns, err := messagesOf(append(l.Turns, l.Conversation...))
	if err != nil {
		return Conversation{}, err
	}
	row.Kind, row.Turns = "interaction", len(turns)
	row.Messages = append(row.Messages, turns...)
	return row, nil
}

// messagesOf gives two speakers the roles user and assistant.
func messagesOf(turns []turn) ([]Message, error) {
	roles := map[string]string{"A": "user", "B": "assistant", "user": "user", "assistant": "assistant"}
	named := false
	messages := make([]Message, 0, len(turns))
	trained := false
	names := map[string]bool{}
	for i, t := range turns {
		if t.Speaker != "" && t.Role != "" && t.Speaker != t.Role {
			return nil, fmt.Errorf("turn %d has both a speaker and a role", i+1)
		}
		name := t.Speaker + t.Role
		if t.Speaker != "" && t.Role != "" {
			name = t.Speaker
		}
		if name == "" {
			return nil, fmt.Errorf("turn %d has no speaker", i+1)
		}
		if strings.TrimSpace(t.Content) == "" {
			return nil, fmt.Errorf("turn %d is empty", i+1)
		}
		names[name] = true
		role, known := roles[name]
		if !known {
			// Names of their own: who speaks first is the user.
			role = "user"
			if named {
				role = "assistant"
			}
			named = true
			roles[name] = role
		}
		if n := len(messages); n > 0 && messages[n-1].Role == role {
			return nil, fmt.Errorf("turn %d: %q speaks twice in a row", i+1, name)
		}
		messages = append(messages, Message{role, t.Content})
		trained = trained || role == "assistant"
	}
	if len(names) > 2 {
		return nil, fmt.Errorf("%d speakers, want two", len(names))
	}
	if !trained {
		return nil, errors.New("a conversation needs turns of two speakers")
	}
	return messages, nil
}
