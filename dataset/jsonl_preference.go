package dataset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

type preferenceLine[T any] struct {
	Prompt   T `json:"prompt"`
	Chosen   T `json:"chosen"`
	Rejected T `json:"rejected"`
}

// PreferenceJSONL writes pairs as lines {"prompt", "chosen", "rejected"} of plain texts. Where a text is more than one message, the list of messages stands instead.
func PreferenceJSONL(rows []Pair) []byte {
	var buf bytes.Buffer
	for _, r := range rows {
		r = validText(r)
		writeLine(&buf, preferenceLine[text]{text{"user", r.Prompt}, text{"assistant", r.Chosen}, text{"assistant", r.Rejected}})
	}
	return buf.Bytes()
}

// ParsePreferenceJSONL reads what PreferenceJSONL writes; each field is a text or a list of messages. Other fields are ignored, a missing one is an error that
// names the line. Rows get the id import-<line>.
func ParsePreferenceJSONL(data []byte) ([]Pair, error) {
	if err := checkSize(data); err != nil {
		return nil, err
	}
	var rows []Pair
	for n, line := range eachLine(data) {
		var l preferenceLine[json.RawMessage]
		if err := decodeLine(line, &l); err != nil {
			return nil, atLine(n, err)
		}
		row := Pair{ID: fmt.Sprintf("import-%06d", n), Source: "user"}
		var err error
		if row.Prompt, err = readText("prompt", l.Prompt, "user", "system", "assistant"); err != nil {
			return nil, atLine(n, err)
		}
		if row.Prompt[len(row.Prompt)-1].Role != "user" {
			return nil, atLine(n, errors.New(`field "prompt" must end with a message of the user`))
		}
		if row.Chosen, err = readText("chosen", l.Chosen, "assistant"); err != nil {
			return nil, atLine(n, err)
		}
		if row.Rejected, err = readText("rejected", l.Rejected, "assistant"); err != nil {
			return nil, atLine(n, err)
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil, errors.New("dataset: the file holds no preference rows; write lines with prompt, chosen and rejected")
	}
	return rows, nil
}
