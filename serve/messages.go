package serve

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencharacter/opencharacter/lm/chat"
)

// readMessages reads a conversation.
func readMessages(v value, most int) ([]chat.Message, *apiError) {
	var list []json.RawMessage
	if json.Unmarshal(v.raw, &list) != nil || len(list) == 0 {
		return nil, v.want("a list of messages, at least one")
	}
	if len(list) > most {
		return nil, bad(v.name, "", "The conversation has %d messages; this server reads at most %d.", len(list), most)
	}
	out := make([]chat.Message, len(list))
	for i, raw := range list {
		m, err := readMessage(fmt.Sprintf("messages[%d]", i), raw)
		if err != nil {
			return nil, err
		}
		out[i] = m
	}
	return out, nil
}

func readMessage(at string, raw []byte) (m chat.Message, err *apiError) {
	fields, err := object(at, raw)
	if err != nil {
		return m, err
	}
	for name, v := range fields {
		v.name = at + "." + name
		switch name {
		case "role":
			if m.Role, err = v.text(); err != nil {
				return m, err
			}
		case "content":
			if m.Content, err = readContent(v); err != nil {
				return m, err
			}
		case "refusal", "annotations", "tool_calls", "function_call", "audio", "reasoning_content", "name":
			// Clients send back what they were given; only what says nothing is left out.
			if !v.empty() {
				return m, bad(v.name, "unsupported_parameter", "%s is not supported by this server; leave it out.", v.name)
			}
		default:
			return m, bad(v.name, "unknown_parameter", "There is no field %.100q in a message.", name)
		}
	}
	switch m.Role {
	case "system", "user", "assistant":
	case "developer": // OpenAI's newer name
		m.Role = "system"
	case "":
		return m, bad(at+".role", "", "%s has no role: system, user or assistant.", at)
	default:
		return m, bad(at+".role", "unsupported_value", "%s has the role %.80q; this server knows system, developer, user and assistant.", at, m.Role)
	}
	if _, there := fields["content"]; !there {
		return m, bad(at+".content", "", "%s has no content.", at)
	}
	return m, nil
}

// readContent reads a text, or parts that are all text; they stand on lines of their own.
func readContent(v value) (string, *apiError) {
	if s, err := v.text(); err == nil {
		return s, nil
	}
	var parts []json.RawMessage
	if json.Unmarshal(v.raw, &parts) != nil || len(parts) == 0 {
		return "", v.want("a string or a list of parts")
	}
	texts := make([]string, len(parts))
	for i, raw := range parts {
		at := fmt.Sprintf("%s[%d]", v.name, i)
		fields, err := object(at, raw)
		if err != nil {
			return "", err
		}
		text, there := fields["text"]
		if !fields["type"].is("text") || len(fields) != 2 || !there {
			return "", bad(at, "unsupported_value", `%s is not {"type": "text", "text": ...}; this server's models read text only.`, at)
		}
		if texts[i], err = text.text(); err != nil {
			return "", err
		}
	}
	return strings.Join(texts, "\n"), nil
}
