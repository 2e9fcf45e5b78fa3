package main

import (
	"context"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

// TestTalk: answers come also after the program's own context has ended, as it does at the first Ctrl-C.
func TestTalk(t *testing.T) {
	dir := t.TempDir()
	if err := tinymodel.Write(dir, 1); err != nil {
		t.Fatal(err)
	}
	m, err := activities.LoadModel(dir, "", hub.Options{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out strings.Builder
	f := samplingFlags{topP: 1, penalty: 1, max: 12}
	if err := talk(ctx, strings.NewReader("Hello!\n/new\nWho are you?\n"), &out, m, nil, f, "base> "); err != nil {
		t.Fatal(err)
	}
	answers := strings.Split(out.String(), "base> ")[1:]
	if len(answers) != 2 {
		t.Fatalf("%d answers in %q", len(answers), out.String())
	}
	for _, a := range answers {
		if line, _, _ := strings.Cut(a, "\n"); strings.TrimSpace(line) == "" {
			t.Errorf("an empty answer in %q", out.String())
		}
	}
}
