package constitution

import (
	"os"
	"regexp"
	"testing"
)

// TestExplanations: every finding says why and what instead, and nothing is explained that is never found.
func TestExplanations(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("check.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`add\("([a-z_]+)"`).FindAllStringSubmatch(string(b), -1) {
		f := Finding{Code: m[1]}
		found[m[1]] = true
		if f.Why() == "" || f.Instead() == "" {
			t.Errorf("%s is not explained", m[1])
		}
	}
	if len(found) != len(explanations) {
		t.Errorf("%d findings, %d explanations", len(found), len(explanations))
	}
}
