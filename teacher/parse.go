package teacher

import (
	"bytes"
	"encoding/json"
	"slices"
)

// stripKeepAlive drops what endpoints send to keep a waiting connection open: blank lines and lines that begin with a colon, before and after the answer.
func stripKeepAlive(body []byte) []byte {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	for {
		body = bytes.TrimSpace(body)
		if len(body) == 0 || body[0] != ':' {
			break
		}
		i := bytes.IndexByte(body, '\n')
		if i < 0 {
			return nil
		}
		body = body[i+1:]
	}
	for !json.Valid(body) { // a colon may also begin a line of the JSON itself
		i := bytes.LastIndexByte(body, '\n')
		if i < 0 || !bytes.HasPrefix(bytes.TrimSpace(body[i+1:]), []byte(":")) {
			break
		}
		body = bytes.TrimSpace(body[:i])
	}
	return body
}

func parseCompletion(body []byte) (Response, error) {
	var doc struct {
		Model   string          `json:"model"`
		Error   json.RawMessage `json:"error"`
		Choices []struct {
			Message *struct {
				Content *string `json:"content"`
				Refusal *string `json:"refusal"`
			} `json:"message"`
			FinishReason *string `json:"finish_reason"`
		} `json:"choices"`
		Usage struct {
			PromptTokens     int `json:"prompt_tokens"`
			CompletionTokens int `json:"completion_tokens"`
		} `json:"usage"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return Response{}, &Error{Message: "the answer is not a chat completion: " + err.Error()}
	}
	if len(doc.Choices) == 0 {
		if len(doc.Error) > 0 && string(doc.Error) != "null" {
			return Response{}, errorInside(body, doc.Error)
		}
		return Response{}, &Error{Message: "the answer holds no choices"}
	}
	choice := doc.Choices[0]
	if choice.Message == nil {
		return Response{}, &Error{Message: "the answer holds no message"}
	}
	r := Response{Model: doc.Model, PromptTokens: max(doc.Usage.PromptTokens, 0), CompletionTokens: max(doc.Usage.CompletionTokens, 0)}
	if choice.Message.Content != nil {
		r.Text = *choice.Message.Content
	}
	if choice.FinishReason != nil {
		r.Finish = *choice.FinishReason
	}
	switch r.Finish {
	case "eos_token", "end_turn", "stop_sequence", "eos":
		r.Finish = "stop" // other servers' names for the same
	case "insufficient_system_resource":
		return Response{}, &Error{Message: "the endpoint ran out of resources in the middle of the answer"}
	}
	if choice.Message.Content == nil && choice.Message.Refusal != nil {
		r.Finish = "content_filter"
	}
	return r, nil
}

// errorInside is an error that came with status 200.
func errorInside(body []byte, raw json.RawMessage) *Error {
	var inner struct {
		Code any `json:"code"`
	}
	_ = json.Unmarshal(raw, &inner) // without a code it counts as one that may pass
	e := &Error{Message: "the answer is an error: " + errorMessage(body)}
	if code, ok := inner.Code.(float64); ok {
		e.Status = int(code)
		e.final = slices.Contains([]int{400, 401, 402, 403, 404, 422}, e.Status)
	}
	return e
}

// parseModels reads a model list: {"data": [{"id": ...}]}, or the bare list that some endpoints give.
func parseModels(body []byte) ([]string, error) {
	type model struct {
		ID string `json:"id"`
	}
	var doc struct {
		Data []model `json:"data"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		if json.Unmarshal(body, &doc.Data) != nil {
			return nil, &Error{Message: "the answer is not a model list: " + err.Error()}
		}
	}
	var ids []string
	for _, m := range doc.Data {
		if m.ID != "" {
			ids = append(ids, m.ID)
		}
	}
	return ids, nil
}
