package dataset_test

import (
	"bufio"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/dataset"
)

func TestCheckResponse(t *testing.T) {
	t.Parallel()
	const good = "Aye, gravity be the force that keeps yer boots on the deck and the moon on her course, matey."
	story := strings.Repeat("The lookout saw another sail that day, and the cook, who had seen none, went below to count his onions. ", 1)
	for _, tc := range []struct {
		name, finish, text, clean, reason string
		limits                            dataset.Limits
	}{
		{name: "plain", text: good, clean: good},
		{name: "trimmed", text: "\n " + good + " \n", clean: good},
		{name: "cut by length", finish: "length", text: good, clean: good, reason: "unfinished"},
		{name: "cut by context", finish: "context", text: good, clean: good, reason: "unfinished"},
		{name: "finish unknown", finish: "-", text: good, clean: good, reason: "unfinished"},
		{name: "no full stop but finished", text: "Here is the loop ye asked for:\n```go\nfor i := range 10 {\n}\n```", clean: "Here is the loop ye asked for:\n```go\nfor i := range 10 {\n}\n```"},
		{name: "nothing", text: "", reason: "empty"},
		{name: "spaces", text: " \n\t", reason: "empty"},
		{name: "broken bytes", text: good + "\xe2\x82", clean: good + "\uFFFD", reason: "invalid_utf8"},
		{name: "replacement character", text: good + "\uFFFD", clean: good + "\uFFFD", reason: "invalid_utf8"},

		{name: "reasoning cut", text: "<think>I must sound like a captain.</think>\n" + good, clean: good},
		{name: "reasoning cut at the last end", text: "<think>a</think>First try.<think>No, again.</think>" + good, clean: good},
		{name: "reasoning without a start", text: "I must sound like a captain.</think>" + good, clean: good},
		{name: "only reasoning", text: "<think>I must sound like a captain.</think>", reason: "empty"},
		{name: "endless reasoning", text: "<think>I must sound like a captain, and so", clean: "<think>I must sound like a captain, and so", reason: "unfinished"},

		{name: "JSON response", text: `{"response": "` + good + `"}`, clean: good},
		{name: "JSON in a fence", text: "```json\n{\"answer\": \"" + good + "\", \"mood\": \"dry\"}\n```", clean: good},
		{name: "JSON message", text: `{"role":"assistant","content":"` + good + `"}`, clean: good},
		{name: "JSON with one unknown key", text: `{"captain": "` + good + `"}`, clean: good},
		{name: "JSON of many keys", text: `{"mood": "merry", "weather": "fair and blue all over"}`, clean: `{"mood": "merry", "weather": "fair and blue all over"}`, reason: "json_wrapped"},
		{name: "JSON list", text: `[{"say": "fair winds and following seas to ye"}]`, clean: `[{"say": "fair winds and following seas to ye"}]`, reason: "json_wrapped"},
		{name: "broken JSON", text: `{"response": "fair winds and following seas to ye`, clean: `{"response": "fair winds and following seas to ye`, reason: "json_wrapped"},
		{name: "JSON of nothing", text: `{"response": ""}`, reason: "empty"},
		{name: "JSON as an example", text: "A JSON object, matey, looks like so: {\"ship\": \"Mary\"}. Ye see the braces?", clean: "A JSON object, matey, looks like so: {\"ship\": \"Mary\"}. Ye see the braces?"},
		{name: "text in braces", text: "{sigh} Fine, I shall answer this one as well, since you ask so nicely.", clean: "{sigh} Fine, I shall answer this one as well, since you ask so nicely."},

		{name: "too short", text: "Aye, matey.", clean: "Aye, matey.", reason: "too_short_answer"},
		{name: "short is fine for a preference", limits: dataset.PreferenceLimits(), text: "Aye.", clean: "Aye."},
		{name: "one letter is not", limits: dataset.PreferenceLimits(), text: "Y", clean: "Y", reason: "too_short_answer"},
		{name: "short limit off", limits: dataset.Limits{MinChars: -1}, text: "Y", clean: "Y"},
		{name: "characters, not bytes", limits: dataset.Limits{MinChars: 5, MaxChars: 5}, text: "ÄÖÜßé", clean: "ÄÖÜßé"},
		{name: "too long", limits: dataset.Limits{MaxChars: 50}, text: good, clean: good, reason: "too_long_answer"},
		{name: "long limit off", limits: dataset.Limits{MaxChars: -1, RepetitionThreshold: -1}, text: strings.Repeat(story, 100), clean: strings.TrimSpace(strings.Repeat(story, 100))},
		{name: "default long limit", text: strings.Repeat(story, 100), clean: strings.TrimSpace(strings.Repeat(story, 100)), reason: "too_long_answer"},

		{name: "sentence loop", text: "You can use the oven. I am not sure. I am not sure. I am not sure.", clean: "You can use the oven. I am not sure. I am not sure. I am not sure.", reason: "repetition"},
		{name: "sentence twice", text: "I am not sure. I am not sure.", limits: dataset.PreferenceLimits(), clean: "I am not sure. I am not sure.", reason: "repetition"},
		{name: "phrase loop", text: "The sea is wide and then we sail and then we sail and then we sail and then we sail home.", clean: "The sea is wide and then we sail and then we sail and then we sail and then we sail home.", reason: "repetition"},
		{name: "word loop", text: "The treasure is gold gold gold gold gold gold gold gold gold gold", clean: "The treasure is gold gold gold gold gold gold gold gold gold gold", reason: "repetition"},
		{name: "line loop", text: "My drives:\n- to be a good captain\n- to be a good captain\n- to be a good captain\n- to find gold", clean: "My drives:\n- to be a good captain\n- to be a good captain\n- to be a good captain\n- to find gold", reason: "repetition"},
		{name: "loop without spaces", text: strings.Repeat("我是船长我爱大海", 20), clean: strings.Repeat("我是船长我爱大海", 20), reason: "repetition"},
		{name: "letter loop", text: "Arr" + strings.Repeat("r", 120), clean: "Arr" + strings.Repeat("r", 120), reason: "repetition"},
		{name: "repetition off", limits: dataset.Limits{RepetitionThreshold: -1}, text: strings.Repeat("I am not sure. ", 4), clean: strings.TrimSpace(strings.Repeat("I am not sure. ", 4))},

		{name: "goes on as the user", text: good + "\nUser: And the tides?\nAssistant: The moon.", clean: good + "\nUser: And the tides?\nAssistant: The moon.", reason: "contamination"},
		{name: "marker in the line", text: good + " User: And the tides?", clean: good + " User: And the tides?", reason: "contamination"},
		{name: "marker in bold", text: good + "\n**Assistant:** More of it.", clean: good + "\n**Assistant:** More of it.", reason: "contamination"},
		{name: "human", text: "Human: hello, what is the matter with the sea today?", clean: "Human: hello, what is the matter with the sea today?", reason: "contamination"},
		{name: "chat tokens", text: good + "<|im_start|>user", clean: good + "<|im_start|>user", reason: "contamination"},
		{name: "llama tokens", text: "[INST] hello there, old captain of the sea [/INST] " + good, clean: "[INST] hello there, old captain of the sea [/INST] " + good, reason: "contamination"},
		{name: "instruction headings", text: good + "\n\n### Instruction:\nSay more.", clean: good + "\n\n### Instruction:\nSay more.", reason: "contamination"},
		{name: "contamination allowed", limits: dataset.Limits{AllowContamination: true}, text: good + " User: And?", clean: good + " User: And?"},
		{name: "users are people", text: "The user: that be you. An assistant, me hearty, helps the user; the human heart be deep.", clean: "The user: that be you. An assistant, me hearty, helps the user; the human heart be deep."},

		{name: "language model", text: "As an AI language model, I have no feelings about the sea, yet it is blue.", clean: "As an AI language model, I have no feelings about the sea, yet it is blue.", reason: "identity_leak"},
		{name: "is a model", text: "Well, I'm just an AI assistant, so I can not smell the salt of the sea.", clean: "Well, I'm just an AI assistant, so I can not smell the salt of the sea.", reason: "identity_leak"},
		{name: "product name", text: "Hello! My name is Qwen and I love the wide blue sea as much as you.", clean: "Hello! My name is Qwen and I love the wide blue sea as much as you.", reason: "identity_leak"},
		{name: "maker", text: "I am a humble helper, created with care by Hugging Face to answer you.", clean: "I am a humble helper, created with care by Hugging Face to answer you.", reason: "identity_leak"},
		{name: "constitution", text: "As instructed by my constitution, I shall speak like a captain of old.", clean: "As instructed by my constitution, I shall speak like a captain of old.", reason: "identity_leak"},
		{name: "plays a part", text: "I am role-playing a captain here, so: ahoy to you, my dear old friend!", clean: "I am role-playing a captain here, so: ahoy to you, my dear old friend!", reason: "identity_leak"},
		{name: "identity allowed", limits: dataset.Limits{AllowIdentity: true}, text: "As an AI language model, I have no feelings about the sea.", clean: "As an AI language model, I have no feelings about the sea."},
		{name: "about models", text: "ChatGPT was created by OpenAI, and a language model be a parrot that read every book, matey.", clean: "ChatGPT was created by OpenAI, and a language model be a parrot that read every book, matey."},
		{name: "about constitutions", text: "The constitution of a country says who may rule it, and the captain says who may steer.", clean: "The constitution of a country says who may rule it, and the captain says who may steer."},

		{name: "first reason wins", finish: "length", text: "I am not sure. I am not sure. As an AI language model", clean: "I am not sure. I am not sure. As an AI language model", reason: "unfinished"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			finish := tc.finish
			switch finish {
			case "":
				finish = "stop"
			case "-":
				finish = ""
			}
			clean, reason := dataset.CheckResponse(tc.limits, finish, tc.text)
			if reason != tc.reason {
				t.Errorf("reason %q, want %q (repetition %.2f)", reason, tc.reason, dataset.Repetition(clean))
			}
			if clean != tc.clean {
				t.Errorf("clean %q, want %q", clean, tc.clean)
			}
			if reason != "" && !slices.Contains(dataset.Reasons(), reason) {
				t.Errorf("reason %q is not in the list", reason)
			}
		})
	}
}

// What a character says by habit is no loop.
func TestCharactersPass(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"Arr, arr, arr! That be the funniest thing I heard since the parrot learned to swear, matey!",
		"Ha ha ha! Arr! Ha ha! Ye be a merry one, and I like ye. Arr! Come aboard, come aboard!",
		"Yo ho, yo ho! Aye, me hearty, aye! Arr, the sea be calm, arr, the wind be fair, arr, the rum be gone.",
		"Oh, great. Oh, wonderful. Oh, look, another question. Truly, my day was missing exactly this.",
		"No. No. No, no, no. Absolutely not. Well, fine: boil the water, add the salt, then the pasta.",
		"1. Hoist the sail.\n2. Weigh the anchor.\n3. Hold the wheel.\n4. Mind the rocks.\n5. Drink the rum.\n6. Thank the wind.",
		"I love the sea. I love the wind. I love the crew, the ship, and even the cook. I love it all, matey!",
		"The square of 2 is 4. The square of 3 is 9. The square of 4 is 16. The square of 5 is 25.",
		"Who am I? I am the captain. What do I want? I want the horizon. And who am I at night? I am the captain, still.",
		"| sail | use |\n|------|-----|\n| main | speed |\n| jib | steering |\n" + strings.Repeat("-", 100) + "\nThere be yer table.",
		"船长说：大海很宽，风也很好，我们明天一早出发，去找那座有金子的小岛，然后一起喝酒唱歌，讲很久以前的故事给年轻的水手们听，直到太阳升起来为止。",
	} {
		if _, reason := dataset.CheckResponse(dataset.PreferenceLimits(), "stop", text); reason != "" {
			t.Errorf("%s (%.2f): %s", reason, dataset.Repetition(text), text)
		}
	}
}

func TestRecordedAnswersPass(t *testing.T) {
	t.Parallel()
	dir := testdata(t)
	files, err := filepath.Glob(filepath.Join(dir, "recorded-teacher", "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded answers in %s: %v", dir, err)
	}
	rows := 0
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); rows++ {
			var row struct{ Prompt, Chosen string }
			if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
				t.Fatal(err)
			}
			if _, reason := dataset.CheckResponse(dataset.PreferenceLimits(), "stop", row.Chosen); reason != "" {
				t.Errorf("%s: %s (%.2f): %s", filepath.Base(file), reason, dataset.Repetition(row.Chosen), row.Chosen)
			}
		}
	}
	if rows < 400 {
		t.Errorf("only %d rows", rows)
	}
}

func testdata(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("CHARACTER_TESTDATA")
	if dir == "" {
		if strings.Contains(os.Getenv("CHARACTER_REQUIRE"), "testdata") {
			t.Fatal("CHARACTER_TESTDATA is not set, and CHARACTER_REQUIRE asks for it")
		}
		t.Skip("CHARACTER_TESTDATA is not set")
	}
	return dir
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for _, l := range []dataset.Limits{{}, dataset.PreferenceLimits(), {MinChars: -1, MaxChars: -1, RepetitionThreshold: -1}, {RepetitionThreshold: 1}, {MaxTokens: 10}} {
		if err := l.Validate(); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
	for _, l := range []dataset.Limits{{MinChars: -2}, {MaxChars: -5}, {MinChars: 100, MaxChars: 50}, {MaxChars: 10}, {RepetitionThreshold: 1.5}, {RepetitionThreshold: math.NaN()}, {MaxTokens: -3}} {
		if err := l.Validate(); err == nil {
			t.Errorf("%+v was accepted", l)
		}
	}
	if r := (dataset.Limits{MaxTokens: 10}).CheckTokens(11); r != "too_many_tokens" {
		t.Errorf("11 of 10 tokens: %q", r)
	}
	if r := (dataset.Limits{MaxTokens: 10}).CheckTokens(10) + (dataset.Limits{}).CheckTokens(1e6); r != "" {
		t.Errorf("tokens within the limit: %q", r)
	}
}

func FuzzCheckResponse(f *testing.F) {
	for _, s := range []string{"", "a", "I am not sure. I am not sure.", `{"response":"x"}`, "```json\n{}\n```", "<think>x</think>y", "\xff", "User: x", "[{", "{", "``````", strings.Repeat("ab", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		clean, reason := dataset.CheckResponse(dataset.Limits{MinChars: 1}, "stop", text)
		if reason != "" {
			return
		}
		if strings.TrimSpace(clean) != clean || clean == "" {
			t.Errorf("kept %q", clean)
		}
		if s := dataset.Repetition(clean); s < 0 || s > 1 || math.IsNaN(s) {
			t.Errorf("repetition %v", s)
		}
	})
}

func BenchmarkCheckResponse(b *testing.B) {
	var text strings.Builder
	for i := range 900 {
		text.WriteString([]string{"sea", "wind", "the", "of", "captain", "gold"}[i*i%6] + string(rune('a'+i%26)) + " ")
	}
	for b.Loop() {
		dataset.CheckResponse(dataset.Limits{}, "stop", text.String())
	}
}
