package constitution

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// node is a parsed YAML or JSON value with its line. Both formats become this
// one tree, so unknown fields, wrong types and repeated keys get the same
// errors with line numbers whatever the file is written in.
type node struct {
	kind   kind
	line   int
	scalar string
	items  []*node // list items, or map values in order
	keys   []string
}

type kind int

const (
	kindNull kind = iota
	kindScalar
	kindList
	kindMap
)

func (k kind) String() string {
	return [...]string{"nothing", "a text", "a list", "a map of fields"}[k]
}

// maxNesting is far above what any form needs (the deepest has 4 levels) and
// keeps hostile input from exhausting the stack of a recursive parser.
const maxNesting = 64

// readYAML parses one YAML document. Anchors, aliases, tags and merge keys are
// refused: no form needs them and they allow a small file to become a huge one.
func readYAML(data []byte) (n *node, err error) {
	if err := checkNesting(data); err != nil {
		return nil, err
	}
	// The YAML parser is third-party code reading untrusted bytes: a fault in it
	// must become an error of this file, not end the process.
	defer func() {
		if r := recover(); r != nil {
			n, err = nil, fmt.Errorf("line 1: not readable as YAML (%v); check the indentation and quotes", r)
		}
	}()
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, yamlError(err)
	}
	var body ast.Node
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		if body != nil {
			return nil, fmt.Errorf("line %d: a second YAML document begins here; keep one constitution in a file", lineOf(d.Body))
		}
		body = d.Body
	}
	if body == nil {
		return &node{kind: kindNull, line: 1}, nil
	}
	return fromYAML(body, 0)
}

// maxYAMLLine is the longest line in bytes: the parser's time grows with the
// square of the tokens on a line.
const maxYAMLLine = 32 << 10

// anchorOrTag matches what begins an anchor, alias or tag in YAML.
var anchorOrTag = regexp.MustCompile(`(?:^|\s)[&*!]\S`)

// checkNesting bounds how deep a YAML parser can be led: by open brackets, by
// repeated list or key marks on a line, and by indentation; and how long it can
// be kept busy by one line.
func checkNesting(data []byte) error {
	depth, anchors := 0, 0
	for i, line := range bytes.Split(data, []byte("\n")) {
		anchors += len(anchorOrTag.FindAllIndex(line, -1))
		if len(line) > maxYAMLLine || anchors > 1000 {
			return fmt.Errorf("line %d: longer than %d bytes, or one of over 1000 anchors and tags (&, *, !); break the text into lines, and put quotes around text with such signs", i+1, maxYAMLLine)
		}
		marks := 0
		for rest := bytes.TrimLeft(line, " \t"); len(rest) > 1 && (rest[0] == '-' || rest[0] == '?' || rest[0] == ':') && (rest[1] == ' ' || rest[1] == '\t'); {
			marks++
			rest = bytes.TrimLeft(rest[1:], " \t")
		}
		depth = max(0, depth+bytes.Count(line, []byte("["))+bytes.Count(line, []byte("{"))-bytes.Count(line, []byte("]"))-bytes.Count(line, []byte("}")))
		indent := len(line) - len(bytes.TrimLeft(line, " "))
		if marks > maxNesting || depth > maxNesting || indent > 8*maxNesting {
			return fmt.Errorf("line %d: nested too deep (limit %d levels); a constitution needs four", i+1, maxNesting)
		}
	}
	return nil
}

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 1
}

// yamlError keeps the parser's first line with its position and drops the
// drawing of the source below it.
func yamlError(err error) error {
	text, _, _ := strings.Cut(err.Error(), "\n")
	line := 1
	if i := strings.IndexByte(text, ']'); strings.HasPrefix(text, "[") && i > 0 {
		var col int
		if _, e := fmt.Sscanf(text[1:i], "%d:%d", &line, &col); e == nil {
			text = strings.TrimSpace(text[i+1:])
		}
	}
	return fmt.Errorf("line %d: not valid YAML: %s; check the indentation, and put quotes around text that holds ': ' or begins with a sign", line, text)
}

func fromYAML(n ast.Node, depth int) (*node, error) {
	line := lineOf(n)
	if depth > maxNesting {
		return nil, fmt.Errorf("line %d: nested too deep (limit %d levels)", line, maxNesting)
	}
	switch v := n.(type) {
	case *ast.NullNode:
		return &node{kind: kindNull, line: line}, nil
	case *ast.StringNode:
		return &node{kind: kindScalar, line: line, scalar: v.Value}, nil
	case *ast.LiteralNode:
		return &node{kind: kindScalar, line: line, scalar: v.Value.Value}, nil
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return &node{kind: kindScalar, line: line, scalar: n.GetToken().Value}, nil
	case *ast.SequenceNode:
		out := &node{kind: kindList, line: line}
		for _, item := range v.Values {
			c, err := fromYAML(item, depth+1)
			if err != nil {
				return nil, err
			}
			out.items = append(out.items, c)
		}
		return out, nil
	case *ast.MappingNode:
		return fromYAMLMap(v.Values, line, depth)
	case *ast.MappingValueNode:
		return fromYAMLMap([]*ast.MappingValueNode{v}, line, depth)
	case *ast.AnchorNode, *ast.AliasNode:
		return nil, fmt.Errorf("line %d: YAML anchors and aliases (&, *) are not allowed; write the text out, in quotes if it begins with such a sign", line)
	case *ast.TagNode:
		return nil, fmt.Errorf("line %d: YAML tags (!) are not allowed; put quotes around text that begins with '!'", line)
	case nil:
		return &node{kind: kindNull, line: 1}, nil
	default:
		return nil, fmt.Errorf("line %d: unexpected YAML %s; use plain lists, fields and text", line, n.Type())
	}
}

func fromYAMLMap(values []*ast.MappingValueNode, line, depth int) (*node, error) {
	out := &node{kind: kindMap, line: line}
	for i, mv := range values {
		if i == 0 {
			out.line = lineOf(mv.Key)
		}
		key, err := fromYAML(mv.Key, depth+1)
		if err != nil {
			return nil, err
		}
		if key.kind != kindScalar {
			return nil, fmt.Errorf("line %d: a field name must be a plain word", key.line)
		}
		val := &node{kind: kindNull, line: key.line}
		if mv.Value != nil {
			if val, err = fromYAML(mv.Value, depth+1); err != nil {
				return nil, err
			}
		}
		if err := out.add(key.scalar, val, key.line); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// add appends a field and refuses a repeated one.
func (n *node) add(key string, val *node, line int) error {
	for _, k := range n.keys {
		if k == key {
			return fmt.Errorf("line %d: field %s is given twice; keep one", line, quote(key))
		}
	}
	if len(n.keys) >= 256 {
		return fmt.Errorf("line %d: too many fields in one map (limit 256)", line)
	}
	n.keys = append(n.keys, key)
	n.items = append(n.items, val)
	return nil
}
