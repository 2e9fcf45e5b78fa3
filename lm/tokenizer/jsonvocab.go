package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

type vocabEntry struct {
	token string
	id    int32
}

// scanner walks over JSON that encoding/json has already found to be well
// formed. It exists for speed: these lists have hundreds of thousands of
// entries, which are cut out of one string and not copied.
type scanner struct {
	b string
	i int
}

// next skips white space and separators and returns the byte at hand, 0 at the
// end.
func (s *scanner) next() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\n', '\r', ',', ':':
			s.i++
		default:
			return c
		}
	}
	return 0
}

// str reads the string that begins at the byte at hand.
func (s *scanner) str() (string, error) {
	if s.next() != '"' {
		return "", s.unexpected("a string")
	}
	start := s.i
	plain := true
	for s.i++; s.i < len(s.b) && s.b[s.i] != '"'; s.i++ {
		if s.b[s.i] == '\\' {
			plain = false
			s.i++
		}
	}
	if s.i >= len(s.b) {
		return "", s.unexpected("the end of a string")
	}
	s.i++
	if plain {
		return s.b[start+1 : s.i-1], nil
	}
	var v string
	err := json.Unmarshal([]byte(s.b[start:s.i]), &v)
	return v, err
}

// id reads a token id.
func (s *scanner) id() (int32, error) {
	s.next()
	n, start := int64(0), s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' && n < maxTokens {
		n = n*10 + int64(s.b[s.i]-'0')
		s.i++
	}
	if s.i == start || n >= maxTokens || s.i < len(s.b) && strings.IndexByte(".eE0123456789", s.b[s.i]) >= 0 {
		return 0, fmt.Errorf("a token id is %.20q, not a whole number below %d; %s", s.b[start:], maxTokens, hint)
	}
	return int32(n), nil
}

func (s *scanner) unexpected(want string) error {
	return fmt.Errorf("found %.20q where %s should be; %s", s.b[min(s.i, len(s.b)):], want, hint)
}

// readVocab reads {"token": id, ...} and returns the largest id too.
func readVocab(raw json.RawMessage) ([]vocabEntry, int32, error) {
	s := scanner{b: string(raw)}
	if s.next() != '{' {
		return nil, 0, errors.New("model.vocab is missing or no object; " + hint)
	}
	s.i++
	entries := make([]vocabEntry, 0, bytes.Count(raw, []byte{':'}))
	top := int32(-1)
	for s.next() != '}' {
		token, err := s.str()
		if err != nil {
			return nil, 0, fmt.Errorf("model.vocab: %w", err)
		}
		id, err := s.id()
		if err != nil {
			return nil, 0, fmt.Errorf("model.vocab: token %q: %w", token, err)
		}
		if token == "" {
			return nil, 0, fmt.Errorf("model.vocab: token %d is empty; %s", id, hint)
		}
		entries = append(entries, vocabEntry{token, id})
		top = max(top, id)
	}
	return entries, top, nil
}

// readMerges reads ["a b", ...] (the older form) or [["a", "b"], ...].
func readMerges(raw json.RawMessage) ([]mergeText, error) {
	s := scanner{b: string(raw)}
	if s.next() != '[' {
		return nil, errors.New("model.merges is missing or no list; " + hint)
	}
	s.i++
	merges := make([]mergeText, 0, bytes.Count(raw, []byte{','}))
	for {
		var m mergeText
		var err error
		switch s.next() {
		case ']':
			return merges, nil
		case '[':
			s.i++
			if m.left, err = s.str(); err == nil {
				m.right, err = s.str()
			}
			if err == nil && s.next() != ']' {
				err = s.unexpected("the end of a pair")
			}
			s.i++
		default:
			var line string
			if line, err = s.str(); err == nil {
				m, err = cutMerge(line)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("model.merges: entry %d: %w", len(merges), err)
		}
		merges = append(merges, m)
	}
}
