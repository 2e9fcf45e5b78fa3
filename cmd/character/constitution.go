package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/lm/tokenizer"
)

func constitutionCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "constitution",
		Short: "List, show, check and begin constitutions",
		Long: `A constitution is a character as first-person traits, each with questions that bring it out. It is what a run is made
of; the trained model never sees it. YAML, JSON, JSONL and plain text are read; docs/constitutions.md is the guide.`,
		Example: "  character constitution list\n  character constitution new lighthouse --out lighthouse.yaml\n  character constitution check lighthouse.yaml --prompts",
	}
	c.AddCommand(constitutionListCmd(), constitutionShowCmd(), constitutionCheckCmd(), constitutionNewCmd())
	return c
}

// listedCharacter is one of `constitution list --json`.
type listedCharacter struct {
	Name        string `json:"name"`
	Traits      int    `json:"traits"`
	Questions   int    `json:"questions"`
	Examples    int    `json:"examples"`
	Recorded    int    `json:"recorded"` // answers that are built in
	Description string `json:"description"`
	SHA256      string `json:"sha256"`
}

func constitutionListCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the built-in characters",
		Long:    "List the built-in characters with the number of their traits, example turns and recorded answers, which\n--set teacher=recorded trains on and the gain is measured with.",
		Example: "  character constitution list\n  character constitution list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all []listedCharacter
			for _, n := range constitution.Builtin() {
				x, err := constitution.Load(n)
				if err != nil {
					return err
				}
				rec, _ := constitution.Recorded(n)
				all = append(all, listedCharacter{n, len(x.Traits), len(x.Questions()), len(x.Examples), len(rec), x.Description, x.SHA256})
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"constitutions": all})
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tTRAITS\tEXAMPLES\tRECORDED\tDESCRIPTION")
			for _, x := range all {
				fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\n", x.Name, x.Traits, x.Examples, x.Recorded, x.Description)
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, `print {"constitutions":[...]} for scripts`)
	return c
}

// prompt is a rendered prompt, and what it takes of a model's context.
type prompt struct {
	Name   string `json:"name"`
	Text   string `json:"text"`
	Tokens int    `json:"tokens,omitempty"` // laid out as the model's chat begins; 0 = not counted
}

// promptsOf are all prompts that are made of a constitution.
func promptsOf(x *constitution.Constitution) []prompt {
	out := []prompt{
		{Name: "teacher, full", Text: x.TeacherSystem()}, {Name: "teacher, short", Text: x.TeacherSystemShort()},
		{Name: "reflection, full", Text: x.ReflectionSystem()}, {Name: "reflection, short", Text: x.ReflectionSystemShort()},
		{Name: "conversation, full", Text: x.InteractionSystem()}, {Name: "conversation, short", Text: x.InteractionSystemShort()},
		{Name: "conversation, as it is trained on", Text: x.InteractionTrainingSystem()},
	}
	var turns []string
	for _, e := range x.TeacherExamples() {
		turns = append(turns, "user: "+e.Prompt+"\nassistant: "+e.Response)
	}
	if len(turns) > 0 {
		out = append(out, prompt{Name: "teacher, example turns", Text: strings.Join(turns, "\n")})
	}
	return out
}

// countTokens fills in what the prompts take of a model that is here. It reads the tokenizer, no weights.
func countTokens(cmd *cobra.Command, name string, x *constitution.Constitution, all []prompt) error {
	file, err := hub.Resolve(name, hubOptions(cmd))
	if err != nil {
		return err
	}
	tokJSON, meta, template, err := file.TokenizerSource()
	if err != nil {
		return err
	}
	var tok *tokenizer.Tokenizer
	if len(tokJSON) > 0 {
		tok, err = tokenizer.FromJSON(tokJSON)
	} else {
		tok, err = tokenizer.FromGGUF(meta)
	}
	if err != nil {
		return fmt.Errorf("model %s: %w", name, err)
	}
	format, err := chat.New(tok, template)
	if err != nil {
		return fmt.Errorf("model %s: %w", name, err)
	}
	// A prompt costs what the conversation is longer by; templates may put a system prompt of their own where there is none.
	question := chat.Message{Role: "user", Content: "Hello!"}
	count := func(before []chat.Message) (int, error) {
		ids, err := format.Prompt(append(before, question))
		return len(ids), err
	}
	plain, err := count(nil)
	if err != nil {
		return fmt.Errorf("model %s: %w", name, err)
	}
	for i := range all {
		before := []chat.Message{{Role: "system", Content: all[i].Text}}
		if all[i].Name == "teacher, example turns" {
			before = nil
			for _, e := range x.TeacherExamples() {
				before = append(before, chat.Message{Role: "user", Content: e.Prompt}, chat.Message{Role: "assistant", Content: e.Response})
			}
		}
		n, err := count(before)
		if err != nil {
			return fmt.Errorf("model %s: %w", name, err)
		}
		all[i].Tokens = n - plain
	}
	return nil
}

func printPrompts(out io.Writer, model string, all []prompt) {
	for _, p := range all {
		tokens := ""
		if model != "" {
			tokens = fmt.Sprintf(" (%d tokens more for %s)", p.Tokens, model)
		}
		fmt.Fprintf(out, "\n── %s%s\n%s\n", p.Name, tokens, p.Text)
	}
}

// promptFlags are those of show and check.
type promptFlags struct {
	model   string
	prompts bool
	json    bool
}

func (f *promptFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.model, "model", defaultModel, "count the prompts' tokens for this model, where it is on this machine")
	c.Flags().BoolVar(&f.json, "json", false, "print one JSON object")
}

// defaultModel is the demo's.
const defaultModel = "smollm2-135m-instruct"

// render makes the prompts, with tokens when the model is here. That the default model is not is no mistake.
func (f *promptFlags) render(cmd *cobra.Command, x *constitution.Constitution) ([]prompt, string, error) {
	all := promptsOf(x)
	err := countTokens(cmd, f.model, x, all)
	if err != nil && (cmd.Flags().Changed("model") || !errors.Is(err, hub.ErrNotPulled)) {
		return nil, "", err
	}
	if err != nil {
		return all, "", nil
	}
	return all, f.model, nil
}

func constitutionShowCmd() *cobra.Command {
	var f promptFlags
	c := &cobra.Command{
		Use:     "show NAME|FILE",
		Short:   "Show traits, questions and the prompts made of them",
		Long:    "Show a constitution: traits with their questions, and the teacher's system prompts. --json has every prompt and the canonical form.",
		Example: "  character constitution show captain\n  character constitution show my-character.yaml --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := constitution.Load(args[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			all, model, err := f.render(cmd, x)
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(out, map[string]any{"constitution": x, "sha256": x.SHA256, "prompts": all, "model": model})
			}
			fmt.Fprintf(out, "%s: %s\nsha256 %s\n\n", x.Name, x.Description, x.SHA256)
			for i, t := range x.Traits {
				fmt.Fprintf(out, "%2d. %s\n", i+1, t.Text)
				for _, q := range t.Questions {
					fmt.Fprintf(out, "      ? %s\n", q)
				}
			}
			printPrompts(out, model, all[:2])
			return nil
		},
	}
	f.add(c)
	return c
}

// foundNote is a finding of `constitution check --json`.
type foundNote struct {
	Code    string `json:"code"`
	Place   string `json:"place"`
	Line    int    `json:"line,omitempty"`
	What    string `json:"what"`
	Why     string `json:"why"`
	Instead string `json:"instead"`
}

func constitutionCheckCmd() *cobra.Command {
	var f promptFlags
	c := &cobra.Command{
		Use:   "check NAME|FILE",
		Short: "Check a constitution and say what to mend",
		Long: `Check a constitution. What makes it unusable ends with exit code 1 and says file, line and what to do. Everything else
is a note: where it is, why it matters, and what to write instead.

--prompts shows the prompts that are made of it, with the tokens they take of a model that is on this machine.`,
		Example: "  character constitution check my-character.yaml\n  character constitution check my-character.yaml --prompts --model qwen3-0.6b",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			x, err := constitution.Load(args[0])
			if err != nil {
				if f.json { // scripts get both: the object, and the exit code with the lines
					if jerr := printJSON(out, map[string]any{"file": args[0], "usable": false, "errors": strings.Split(err.Error(), "\n"), "notes": []foundNote{}}); jerr != nil {
						return jerr
					}
				}
				return err
			}
			notes := []foundNote{}
			for _, n := range x.Check() {
				notes = append(notes, foundNote{n.Code, n.Place, n.Line, n.Message, n.Why(), n.Instead()})
			}
			var all []prompt
			model := ""
			if f.prompts || f.json {
				if all, model, err = f.render(cmd, x); err != nil {
					return err
				}
			}
			if f.json {
				return printJSON(out, map[string]any{"file": args[0], "usable": true, "errors": []string{}, "notes": notes, "name": x.Name, "traits": len(x.Traits), "examples": len(x.Examples), "prompts": all, "model": model})
			}
			for _, n := range notes {
				line := ""
				if n.Line > 0 {
					line = fmt.Sprintf("line %d: ", n.Line)
				}
				fmt.Fprintf(out, "note: %s%s: %s\n  why      %s\n  instead  %s\n", line, n.Place, n.What, n.Why, strings.ReplaceAll(n.Instead, "\n", "\n           "))
			}
			if f.prompts {
				printPrompts(out, model, all)
				fmt.Fprintln(out)
			}
			_, err = fmt.Fprintf(out, "%s: %d traits, %d examples: usable\n", args[0], len(x.Traits), len(x.Examples))
			return err
		},
	}
	f.add(c)
	c.Flags().BoolVar(&f.prompts, "prompts", false, "show the prompts that are made of it")
	return c
}

var characterName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

func constitutionNewCmd() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "new NAME",
		Short: "Begin a constitution from a commented template",
		Long: `Print a commented template that is a whole small character, or write it to a new file with --out. A file that is there
already is never written over.`,
		Example: "  character constitution new lighthouse --out lighthouse.yaml\n  character constitution new lighthouse > lighthouse.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !characterName.MatchString(args[0]) {
				return usage(fmt.Errorf("name %q: use 1 to 64 of a-z, 0-9, - and _, beginning with a letter or digit, such as old-captain", args[0]))
			}
			if path == "" {
				_, err := cmd.OutOrStdout().Write(constitution.Template(args[0]))
				return err
			}
			if ext := filepath.Ext(path); ext != ".yaml" && ext != ".yml" {
				return usage(fmt.Errorf("--out %s: the template is YAML, so its name must end in .yaml", path))
			}
			if err := writeNew(path, constitution.Template(args[0])); err != nil {
				return fmt.Errorf("--out: %w", err)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "Written to %s. Change it, then: character constitution check %s\n", path, path)
			return err
		},
	}
	c.Flags().StringVar(&path, "out", "", "new .yaml file to write (default: print)")
	return c
}
