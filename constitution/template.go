package constitution

import (
	_ "embed" // the template and the schema
	"strings"
)

//go:embed template.yaml
var templateText string

//go:embed schema.json
var schemaText []byte

// Template returns a commented constitution in our YAML form to start from. An
// empty or invalid name becomes "my-character".
func Template(name string) []byte {
	if !validName.MatchString(name) {
		name = "my-character"
	}
	return []byte(strings.ReplaceAll(templateText, "my-character", name))
}

// Schema returns the JSON schema of our YAML form, for editors.
func Schema() []byte { return append([]byte(nil), schemaText...) }
