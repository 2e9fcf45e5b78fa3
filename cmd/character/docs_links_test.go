package main

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// allCode is our Go code, tests apart.
func allCode(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(p, ".go") && !strings.HasSuffix(p, "_test.go") {
			text, err := os.ReadFile(p)
			b.Write(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestTroubleshootingQuotesTheCode: what the page says that the program says, it says.
func TestTroubleshootingQuotesTheCode(t *testing.T) {
	code := allCode(t)
	n := 0
	for line := range strings.Lines(pages(t)["docs/guides/troubleshooting.md"]) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		n++
		quote, _, _ := strings.Cut(strings.TrimPrefix(line, "| `"), "`")
		for part := range strings.SplitSeq(quote, "...") {
			if part = strings.TrimSpace(part); part != "" && !strings.Contains(code, part) {
				t.Errorf("nothing says %q", part)
			}
		}
	}
	if n < 20 {
		t.Errorf("%d lines: the page is not read as it is written", n)
	}
}

var link = regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)

// TestPagesLeadSomewhere: links to our own files lead to files, and docs/README.md leads to every page.
func TestPagesLeadSomewhere(t *testing.T) {
	all := pages(t)
	listed := map[string]bool{}
	for page, text := range all {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			to := path.Join(path.Dir(page), m[1])
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
			if page == "docs/README.md" {
				listed[to] = true
			}
		}
	}
	for page := range all {
		if strings.HasPrefix(page, "docs/") && page != "docs/README.md" && !listed[page] && !listed[path.Dir(page)] {
			t.Errorf("docs/README.md has no line for %s", page)
		}
	}
}
