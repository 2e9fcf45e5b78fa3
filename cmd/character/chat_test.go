package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

func tinyModel(t *testing.T) *activities.Loaded {
	t.Helper()
	dir := t.TempDir()
	if err := tinymodel.Write(dir, 1); err != nil {
		t.Fatal(err)
	}
	m, err := activities.LoadModel(dir, "", hub.Options{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// adapter is one that changes what the model says.
func adapter(m *activities.Loaded, seed uint64) *transformer.Adapter {
	a := transformer.NewAdapter(m.Config, 4, 32, seed)
	for i, x := range a.Matrices() {
		for j := range x.T.Data() {
			x.T.Data()[j] += float32((i*7+j*13)%11-5) / 40
		}
	}
	return a
}

var greedy = samplingFlags{topP: 1, penalty: 1, max: 12}

// talkTo is what a conversation prints.
func talkTo(t *testing.T, c *conversation, in string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as it is after the first Ctrl-C: later answers come all the same
	var out strings.Builder
	c.out = &out
	if err := c.talk(ctx, strings.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestTalk: answers come also after the program's own context has ended, as it does at the first Ctrl-C.
func TestTalk(t *testing.T) {
	out := talkTo(t, &conversation{m: tinyModel(t), speakers: []*speaker{{name: "base"}}, s: greedy}, "Hello!\n/new\nWho are you?\n")
	answers := strings.Split(out, "base> ")[1:]
	if len(answers) != 2 {
		t.Fatalf("%d answers in %q", len(answers), out)
	}
	for _, a := range answers {
		if line, _, _ := strings.Cut(a, "\n"); strings.TrimSpace(line) == "" {
			t.Errorf("an empty answer in %q", out)
		}
	}
}

// three speakers, as --compare has them.
func three(m *activities.Loaded) []*speaker {
	dpo, sft := adapter(m, 1), adapter(m, 2)
	return []*speaker{{name: "base"}, {name: "dpo", stack: []*transformer.Adapter{dpo}}, {name: "character", stack: []*transformer.Adapter{dpo, sft}}}
}

// TestCompare: every model says beside the others what it says alone, whatever the screen, and remembers its own words.
func TestCompare(t *testing.T) {
	m := tinyModel(t)
	warm := samplingFlags{temperature: 1, topP: 1, penalty: 1, max: 40, seed: 3}
	lines := "Hello!\nWho are you?\n"
	want := map[string][]string{}
	for _, s := range three(m) {
		talkTo(t, &conversation{m: m, speakers: []*speaker{s}, s: warm}, lines)
		for _, x := range s.msgs {
			want[s.name] = append(want[s.name], x.Role+": "+x.Content)
		}
	}
	if strings.Join(want["base"], "") == strings.Join(want["dpo"], "") || strings.Join(want["dpo"], "") == strings.Join(want["character"], "") {
		t.Fatal("the models say the same: this test shows nothing")
	}
	for name, sc := range map[string]screen{"plain": {}, "narrow": {terminal: true, width: 60, height: 20}, "wide": {terminal: true, width: 120, height: 20}} {
		c := &conversation{m: m, speakers: three(m), s: warm, screen: sc}
		out := talkTo(t, c, lines)
		for _, s := range c.speakers {
			var got []string
			for _, x := range s.msgs {
				got = append(got, x.Role+": "+x.Content)
			}
			if strings.Join(got, "\n") != strings.Join(want[s.name], "\n") {
				t.Errorf("%s: %s says %q, alone %q", name, s.name, got, want[s.name])
			}
		}
		if side := strings.Contains(out, " │ "); side != (name == "wide") {
			t.Errorf("%s: side by side %v:\n%s", name, side, out)
		}
		if name != "wide" && strings.Count(out, "character> ") != 2 {
			t.Errorf("%s:\n%s", name, out)
		}
	}
}

func TestChatCommands(t *testing.T) {
	m := tinyModel(t)
	file := filepath.Join(t.TempDir(), "talk.jsonl")
	warm := samplingFlags{temperature: 1, topP: 1, penalty: 1, max: 40, seed: 3}
	c := &conversation{m: m, speakers: []*speaker{{name: "base"}}, s: warm}
	out := talkTo(t, c, "/help\n/save "+file+"\n/seed 9\nHello!\n/reset\n/seed x\n/seed\nHello!\n/system You are a lamp.\n/save "+file+"\n/save "+file+"\n/save\n/dance\n /dance\n/reset now\n/quit\nnever heard\n")
	for _, want := range []string{"/system TEXT", "nothing has been said", "(seed 9)", "a new conversation", "/seed x: want a whole number", "the system prompt is set", "written to " + file,
		"is there already", "/save needs a file", "there is no /dance", "/reset takes nothing"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "never heard") {
		t.Errorf("/quit does not end:\n%s", out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var row savedTalk
	if err := json.Unmarshal(b, &row); err != nil || row.Seed != 9 || len(row.Messages) != 3 || row.Messages[0].Content != "You are a lamp." {
		t.Errorf("saved %s: %v", b, err)
	}
	if rows, err := readRows(file, false); err != nil || len(rows) != 1 {
		t.Errorf("generate does not read it: %v", err)
	}
	if c.speakers[0].msgs[2].Content != "/dance" {
		t.Errorf("a message with a slash: %+v", c.speakers[0].msgs)
	}
	// The same seed and words give the same answer after /reset.
	again := &conversation{m: m, speakers: []*speaker{{name: "base"}}, s: warm}
	talkTo(t, again, "/seed 9\nHello!\n")
	if got := again.speakers[0].msgs[1].Content; got != row.Messages[2].Content {
		t.Errorf("seed 9 says %q, and %q after a reset", got, row.Messages[2].Content)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(file), ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestSamplingFlags(t *testing.T) {
	for _, c := range []struct {
		set  func(*samplingFlags)
		want string
	}{
		{func(f *samplingFlags) { f.temperature = -1 }, "--temperature -1"},
		{func(f *samplingFlags) { f.topP = 1.5 }, "--top-p 1.5"},
		{func(f *samplingFlags) { f.topK = -2 }, "--top-k -2"},
		{func(f *samplingFlags) { f.penalty = -1 }, "--repetition-penalty -1"},
		{func(f *samplingFlags) { f.max = -3 }, "--max-tokens -3"},
	} {
		f := greedy
		c.set(&f)
		if err := f.check(); err == nil || !isUsage(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	if err := greedy.check(); err != nil {
		t.Error(err)
	}
}
