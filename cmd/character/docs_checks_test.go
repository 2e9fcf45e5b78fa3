package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/testenv/doclines"
	"github.com/opencharacter/opencharacter/workflows"
)

// notOurs are commands of other programs, with the reason why they are not held to anything here.
var notOurs = map[string]string{
	"open": "shows a file on a desktop", "ssh": "a tunnel to another machine", "llama-cli": "llama.cpp's; bench/open_elsewhere.py opens the same files",
	"rm": "a transcript's damage", "truncate": "a transcript's damage", "dd": "a transcript's damage", "jq": "reads JSON", "for": "a loop of the shell", "do": "its body", "done": "its end", "echo": "says something", "Out-String": "PowerShell's", "Invoke-Expression": "PowerShell's",
	"source": "reads a completion into a shell; TestCompletion makes the scripts", "cp": "files", "curl": "the pages name addresses, which the tests ask themselves", "export": "a variable of the shell",
	"docker": "no container engine is here; testenv/compose checks the file", "psql": "PostgreSQL's", "tensorboard": "reads what a run wrote", "cd": "a folder", "git": "gets the code", "python": "a script of the reader's", "pip": "installs", "tail": "reads a log", "mkdir": "a folder", "openssl": "makes keys",
}

// manuals has the flags of other programs' commands that the pages use. forms_test.go sends the same requests.
var manuals = map[string]string{
	"temporal workflow start":                        "type task-queue workflow-id input",
	"temporal workflow list":                         "query",
	"temporal workflow query":                        "workflow-id type",
	"temporal workflow reset":                        "workflow-id type reason",
	"temporal workflow update execute":               "workflow-id name input",
	"temporal workflow update-options":               "query versioning-override-behavior versioning-override-deployment-name versioning-override-build-id",
	"temporal workflow signal":                       "workflow-id name",
	"temporal schedule create":                       "schedule-id cron workflow-id type task-queue input",
	"temporal schedule trigger":                      "schedule-id",
	"temporal worker deployment describe-version":    "deployment-name build-id",
	"temporal worker deployment set-current-version": "deployment-name build-id",
	"temporal operator namespace create":             "namespace retention",
	"temporal operator search-attribute create":      "name type namespace",
	"tctl workflow start":                            "taskqueue workflow_type workflow_id i",
	"tctl workflow query":                            "workflow_id query_type",
	"tctl workflow signal":                           "workflow_id name",
	"tctl workflow reset":                            "workflow_id reset_type reason",
}

var (
	placeholder = regexp.MustCompile(`^\[?[A-Z][A-Z]+\b`) // ID, NAME, [STAGE]
	attribute   = regexp.MustCompile(`\bCharacter[A-Z]\w*`)
	target      = regexp.MustCompile(`(?m)^([a-z]+):`)
)

// checkLine holds a line to what there is. inline lines may name a command alone, and have names in capitals for values.
func checkLine(line string, inline bool) error {
	commands, err := doclines.Commands(line)
	if err != nil {
		if inline { // an apostrophe of a sentence
			return nil
		}
		return err
	}
	for _, words := range commands {
		name := filepath.Base(words[0])
		switch {
		case strings.HasPrefix(words[0], "bench/") || words[0] == "bench-venv/bin/python" && len(words) > 1 && strings.HasPrefix(words[1], "bench/"):
			err = checkScript(words[slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "bench/") && !strings.HasPrefix(w, "bench-venv") }):])
		case words[0] == "character" || words[0] == "bin/character":
			err = checkCharacter(words[1:], inline)
		case words[0] == "bin/chaos":
			err = checkGoFlags("bench/chaos", words[1:])
		case name == "make":
			err = checkMake(words[1:])
		case name == "go":
			err = checkGo(words[1:])
		case name == "temporal" || name == "tctl":
			if len(words) > 1 {
				err = checkTemporal(words)
			}
		case inline || notOurs[name] != "":
		default:
			err = fmt.Errorf("nothing is known of %q: run it in a test, or say in notOurs why not", words[0])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkCharacter asks our own command tree.
func checkCharacter(args []string, inline bool) error {
	tree := rootCmd()
	if len(args) == 0 || inline && placeholder.MatchString(args[0]) {
		return nil
	}
	var kept []string
	for _, a := range args {
		if a == "..." && inline {
			continue
		}
		if inline {
			a = strings.Trim(a, "[]")
		}
		kept = append(kept, a)
	}
	c, rest, err := tree.Find(kept)
	if err != nil {
		return err
	}
	if c == tree && !strings.HasPrefix(kept[0], "-") {
		return fmt.Errorf("there is no command %q", kept[0])
	}
	if err := c.ParseFlags(rest); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return fmt.Errorf("%s: %w", c.CommandPath(), err)
	}
	given := c.Flags().Args()
	if len(c.Commands()) > 0 && len(given) > 0 && c.RunE == nil {
		return fmt.Errorf("there is no command %q", c.CommandPath()+" "+given[0])
	}
	if inline && len(given) == 0 || c.Args == nil {
		return nil
	}
	if err := c.Args(c, given); err != nil {
		return fmt.Errorf("%s: %w", c.CommandPath(), err)
	}
	return checkSet(c)
}

// checkSet resolves the spec of --set.
func checkSet(c *cobra.Command) error {
	f := c.Flags().Lookup("set")
	if f == nil {
		return nil
	}
	values, err := c.Flags().GetStringArray("set")
	raw := []byte("{}")
	for _, kv := range values {
		k, v, _ := strings.Cut(kv, "=")
		if raw, err = spec.Set(raw, k, v); err != nil {
			return err
		}
	}
	if len(values) > 0 && err == nil {
		_, err = spec.Resolve(raw)
	}
	return err
}

func checkMake(args []string) error {
	b, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		return err
	}
	known := string(b)
	for _, s := range []string{"fuzz.sh", "test.sh", "vulncheck.sh"} {
		b, err := os.ReadFile(filepath.Join(root, "bench", s))
		if err != nil {
			return err
		}
		known += string(b)
	}
	for _, a := range args {
		if name, _, isVar := strings.Cut(a, "="); isVar {
			if !regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\b`).MatchString(known) {
				return fmt.Errorf("make: nothing reads the variable %s", name)
			}
		} else if !slices.ContainsFunc(target.FindAllStringSubmatch(string(b), -1), func(m []string) bool { return m[1] == a }) {
			return fmt.Errorf("make: the Makefile has no target %s", a)
		}
	}
	return nil
}

// checkScript wants the file, and each long flag in its text.
func checkScript(words []string) error {
	b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(words[0])))
	if err != nil {
		if st, derr := os.Stat(filepath.Join(root, words[0])); derr == nil && st.IsDir() {
			return nil
		}
		return err
	}
	for _, w := range words[1:] {
		w = strings.TrimPrefix(w, "[")
		if flag, _, _ := strings.Cut(w, "="); strings.HasPrefix(flag, "--") && !strings.Contains(string(b), strings.TrimSuffix(flag, "]")) {
			return fmt.Errorf("%s does not know %s", words[0], flag)
		}
	}
	return nil
}

// checkGo wants the folder of `go run` with each flag in its code, and the test of `go test -run`.
func checkGo(words []string) error {
	if len(words) == 0 {
		return nil
	}
	var dir, run string
	var flags []string
	for i, w := range words[1:] {
		if strings.HasPrefix(w, "./") && dir == "" {
			dir, flags = strings.TrimSuffix(strings.TrimSuffix(w, "/..."), "/"), words[i+2:]
		} else if i > 0 && words[i] == "-run" {
			run = w
		}
	}
	switch words[0] {
	case "run":
		return checkGoFlags(dir, flags)
	case "test", "build", "vet":
		if dir == "" {
			return nil
		}
		code, err := codeOf(dir, true)
		if err == nil && run != "" && !strings.Contains(code, "func "+run) {
			err = fmt.Errorf("go test: there is no %s in %s", run, dir)
		}
		return err
	}
	return nil
}

func checkGoFlags(dir string, words []string) error {
	code, err := codeOf(dir, false)
	if err != nil {
		return err
	}
	for _, w := range words {
		w = strings.Trim(w, "[]")
		if name, _, _ := strings.Cut(strings.TrimLeft(w, "-"), "="); strings.HasPrefix(w, "-") && name != "" && !strings.Contains(code, `"`+name+`"`) {
			return fmt.Errorf("%s does not know -%s", dir, name)
		}
	}
	return nil
}

func codeOf(dir string, tests bool) (string, error) {
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(dir), "*.go"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("there is no Go code in %s", dir)
	}
	var b strings.Builder
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") && !tests {
			continue
		}
		text, rerr := os.ReadFile(f)
		err = errors.Join(err, rerr)
		b.Write(text)
	}
	return b.String(), err
}

// checkTemporal holds flags to the manuals and values to ours.
func checkTemporal(words []string) error {
	at := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "-") })
	if at < 0 {
		at = len(words)
	}
	name := strings.Join(words[:at], " ")
	known, ok := manuals[name]
	if !ok && at == len(words) {
		for k := range manuals { // a command is named without its flags
			ok = ok || strings.HasPrefix(k, name)
		}
	}
	if !ok {
		return fmt.Errorf("%q is not known: look it up in its manual and add it", name)
	}
	given := map[string]string{}
	for i := at; i < len(words); i++ {
		flag, value, inOne := strings.Cut(strings.TrimLeft(words[i], "-"), "=")
		if !strings.HasPrefix(words[i], "-") || !slices.Contains(strings.Fields(known), flag) {
			return fmt.Errorf("%s has no %s", name, words[i])
		}
		if !inOne && i+1 < len(words) {
			i++
			value = words[i]
		}
		given[flag] = value
	}
	for _, m := range attribute.FindAllString(given["query"], -1) {
		if m != "CharacterTraining" && !slices.Contains(workflows.SearchAttributes(), m) {
			return fmt.Errorf("%s: there is no search attribute %s", name, m)
		}
	}
	queries := []string{workflows.QueryProgress, workflows.QueryMetrics, workflows.QueryWarnings, workflows.QueryRows}
	updates := []string{workflows.UpdatePause, workflows.UpdateResume, workflows.UpdateAdjust, workflows.UpdateFinish}
	want := func(flag string, from ...string) error {
		if v, ok := given[flag]; ok && !slices.Contains(from, v) {
			return fmt.Errorf("%s: --%s %s is none of %v", name, flag, v, from)
		}
		return nil
	}
	starts := []string{"CharacterTraining", "GeneratePreferences", "TrainAdapter", "GenerateIntrospection", "EvaluateCharacter"}
	err := errors.Join(want("task-queue", activities.DataQueue), want("taskqueue", activities.DataQueue), want("workflow_type", starts...), want("query_type", queries...))
	switch {
	case strings.HasSuffix(name, "query"):
		err = errors.Join(err, want("type", queries...))
	case strings.HasSuffix(name, "start"), strings.HasSuffix(name, "create") && strings.Contains(name, "schedule"):
		err = errors.Join(err, want("type", starts...), checkInput(given["input"]+given["i"], ""))
	case strings.HasSuffix(name, "update execute"):
		err = errors.Join(err, want("name", updates...), checkInput(given["input"], given["name"]))
	case strings.HasSuffix(name, "signal"):
		err = errors.Join(err, want("name", workflows.UpdatePause, workflows.UpdateResume))
	}
	return err
}

// checkInput reads the input of a start ("") or an update.
func checkInput(input, update string) error {
	input = strings.ReplaceAll(input, "$c", "captain") // the variable of a loop
	switch {
	case input == "":
		return nil
	case update == workflows.UpdateAdjust:
		settings, err := spec.ParseAdjust([]byte(input))
		raw := []byte("{}")
		for _, s := range settings {
			if raw, err = spec.Set(raw, s.Key, string(s.Value)); err != nil {
				return err
			}
		}
		if err == nil {
			_, err = spec.Resolve(raw)
		}
		return err
	case update == workflows.UpdateFinish:
		var in struct{ Stage string }
		if err := json.Unmarshal([]byte(input), &in); err != nil || !slices.Contains(spec.Parts(), in.Stage) {
			return fmt.Errorf("finish-early: %s: %w", input, err)
		}
		return nil
	case update != "":
		return fmt.Errorf("%s takes no input", update)
	}
	s, err := spec.Resolve([]byte(input))
	if err == nil {
		err = s.CheckReferences()
	}
	return err
}
