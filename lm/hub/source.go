package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencharacter/opencharacter/lm/gguf"
)

// maxJSON bounds the JSON and template files that are read whole; the largest tokenizer.json in use has 35 MB.
const maxJSON = 128 << 20

// TokenizerSource returns what the tokenizer and the chat format are built from: of a folder the text of
// tokenizer.json (ggufMeta is nil), of a GGUF file its metadata (tokenizerJSON is nil). chatTemplate is the
// model's Jinja template; "" if the model has none.
func (m Model) TokenizerSource() (tokenizerJSON []byte, ggufMeta map[string]any, chatTemplate string, err error) {
	if m.Format == "gguf" {
		f, err := gguf.Open(m.Path)
		if err != nil {
			return nil, nil, "", err
		}
		if err := f.Close(); err != nil {
			return nil, nil, "", fmt.Errorf("hub: %w", err)
		}
		switch t := f.Meta["tokenizer.chat_template"].(type) {
		case nil:
		case string:
			chatTemplate = t
		default:
			return nil, nil, "", fmt.Errorf("hub: %s: tokenizer.chat_template is a %T, not a text; the file is damaged", m.Path, t)
		}
		return nil, f.Meta, chatTemplate, nil
	}
	tokenizerJSON, err = readSmall(filepath.Join(m.Path, "tokenizer.json"))
	if err != nil {
		return nil, nil, "", fmt.Errorf("hub: model folder needs a tokenizer.json: %w", err)
	}
	chatTemplate, err = folderTemplate(m.Path)
	if err != nil {
		return nil, nil, "", fmt.Errorf("hub: %w", err)
	}
	return tokenizerJSON, nil, chatTemplate, nil
}

// folderTemplate finds the chat template of a folder as transformers does: chat_template.jinja wins over
// the field of tokenizer_config.json, which is a text or a list of named templates.
func folderTemplate(dir string) (string, error) {
	text, err := readSmall(filepath.Join(dir, "chat_template.jinja"))
	if err == nil {
		return string(text), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	path := filepath.Join(dir, "tokenizer_config.json")
	text, err = readSmall(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	t, err := configTemplate(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// configTemplate reads the field chat_template of tokenizer_config.json.
func configTemplate(text []byte) (string, error) {
	var config struct {
		ChatTemplate json.RawMessage `json:"chat_template"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return "", err
	}
	if len(config.ChatTemplate) == 0 || string(config.ChatTemplate) == "null" {
		return "", nil
	}
	var one string
	if json.Unmarshal(config.ChatTemplate, &one) == nil {
		return one, nil
	}
	var named []struct{ Name, Template string }
	if err := json.Unmarshal(config.ChatTemplate, &named); err != nil {
		return "", errors.New(`chat_template is neither a text nor a list of {"name", "template"}`)
	}
	for _, n := range named {
		if n.Name == "default" {
			return n.Template, nil
		}
	}
	return "", fmt.Errorf("chat_template lists %d templates, none is named \"default\"; put the one to use into chat_template.jinja", len(named))
}

// readSmall reads a whole file of bounded size.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxJSON+1))
	if err == nil && len(text) > maxJSON {
		err = fmt.Errorf("%s has more than %d bytes", path, maxJSON)
	}
	return text, errors.Join(err, f.Close())
}
