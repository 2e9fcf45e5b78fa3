package main_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/testenv/doclines"
	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

// This file runs the commands of the pages as they stand, in a folder that has what a reader would have: a model, files of rows,
// a constitution of their own, and a finished run called captain. Only one thing is added, openly: in that folder
// `character run NAME` and `character plan NAME` get the tiny model and the settings that make a run on it seconds, before the
// line's own flags, which win.

// docPages are the pages whose commands are run; docs/reference has none.
var docPages = []string{"README.md", "docs/*.md", "docs/guides/*.md"}

// notRun are commands of the pages that are not run here. TestPagesNameWhatThereIs still holds each to what there is.
// A line is named by how it begins; the longest beginning counts.
var notRun = map[string]string{
	"make ":                          "minutes to hours; CI runs make test, check and chaos, and the demo's script is timed by hand",
	"bin/chaos":                      "minutes; CI runs the same by make chaos",
	"bench/":                         "needs Python with packages of peers, and is run by hand",
	"bench-venv/":                    "the same",
	"go ":                            "builds for minutes",
	"CHARACTER_AWAY=":                "half an hour; TestTemporalAway is its short form",
	"temporal ":                      "another program; TestForms and its like send the same requests",
	"tctl ":                          "the same",
	"for c in":                       "a loop around temporal",
	"done":                           "its end",
	"open ":                          "shows a page on a desktop",
	"llama-cli":                      "llama.cpp",
	"docker ":                        "no container engine is here",
	"ssh ":                           "another machine",
	"curl ":                          "serve_test.go and live_test.go ask the same addresses",
	"export ":                        "a variable of the reader's",
	"git ":                           "gets the code",
	"cp ":                            "files of the reader's",
	"tensorboard":                    "another program",
	"psql":                           "another program",
	"pip ":                           "another program",
	"python":                         "another program",
	"openssl":                        "another program",
	"cd ":                            "a folder of the reader's",
	"mkdir":                          "a folder of the reader's",
	"tail ":                          "a log of the reader's",
	"character model pull":           "needs the package registry; make test does it",
	"character model inspect smollm": "needs that model; make test does it",
	"character run captain --preset paper-scale":           "needs a real teacher and days; teacher tests and scale_test.go run its parts",
	"character run captain --preset published":             "the same",
	"character worker --queue engine --temporal":           "needs a cluster; workers_test.go starts it on one",
	"character worker --temporal":                          "needs a cluster; versions_test.go starts it on one",
	"character doctor --temporal":                          "needs a cluster; doctor_versions_test.go asks one",
	"character run captain --temporal":                     "needs a cluster; workers_test.go has one",
	"character ready":                                      "asks a worker that runs; metrics_test.go does",
	"character worker --queue data":                        "needs a cluster; TestCompose starts it on one",
	"character worker --queue teacher":                     "the same",
	"character worker --queue engine --metrics":            "the same",
	"character worker --metrics":                           "belongs to the page on production, whose stack has a test of its own",
	"character run my-character.yaml --set teacher=openai": "needs a teacher behind an API; activities.TestTeacherEndpoint asks one that is made for it",
	"character run my-character.yaml --preset paper-scale": "the same",
}

// servers are commands that run until they are stopped; the value is what they say when they are ready.
var servers = map[string]string{
	"character up":     "character is up",
	"bin/character up": "character is up",
	"character serve":  "http://127.0.0.1",
	"character codec":  "http://127.0.0.1",
	"character worker": "Serving",
}

// steered are commands for a run that is under way. They get one in a folder of their own, in this order.
var steered = []string{"character pause", "character adjust", "character resume", "character finish-early", "character cancel"}

// before are commands that a line needs to have been given first.
var before = map[string][]string{
	"character run --id mine":                             {"character runs remove mine --yes", "character run my-character.yaml --id mine --set dpo.epochs=20 --detach"},
	"character runs remove old-one --yes":                 {"character run captain --id old-one"},
	"character runs compare captain captain-2":            {"character run captain --id captain-2 --set dpo.epochs=2"},
	"character codec --codec-key-file keys.txt":           {"rm -f keys.txt", "character codec new-key keys.txt"},
	"character data export captain/dpo --out pairs.jsonl": {"mv pairs.jsonl kept.jsonl"},
}

// docLine is a command of a page that is to be run.
type docLine struct{ at, text string }

// docCommands are the lines of all sh blocks, and the examples in the tables of docs/cli.md.
func docCommands(t *testing.T) (out []docLine) {
	t.Helper()
	for _, pattern := range docPages {
		found, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := filepath.Rel("../..", f)
			lines, err := doclines.Of(name, string(b))
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range lines {
				row := strings.Split(string(b), "\n")[l.N-1]
				example := name == filepath.Join("docs", "cli.md") && strings.HasPrefix(row, "| `character") && strings.HasSuffix(row, "`"+l.Text+"` |")
				if l.In == doclines.Block || example {
					out = append(out, docLine{l.At(), l.Text})
				}
			}
		}
	}
	return out
}

// how finds the longest beginning of a line in a table.
func how[T any](table map[string]T, line string) (v T, found bool) {
	best := -1
	for begin, x := range table {
		if strings.HasPrefix(line, begin) && len(begin) > best {
			best, v, found = len(begin), x, true
		}
	}
	return v, found
}

// TestDocCommands runs what the pages say.
func TestDocCommands(t *testing.T) {
	t.Parallel()
	d := readersFolder(t)
	var steer, alone []docLine
	seen, left, ran := map[string]bool{}, 0, 0
	for _, l := range docCommands(t) {
		if seen[l.text] {
			continue
		}
		seen[l.text] = true
		why, isNot := how(notRun, l.text)
		_, server := how(servers, l.text)
		switch {
		case isNot && why != "":
			left++
		case slices.ContainsFunc(steered, func(s string) bool { return strings.HasPrefix(l.text, s) }):
			steer = append(steer, l)
		case server && !strings.HasPrefix(l.text, "character codec new-key"):
			alone = append(alone, l)
		default:
			ran++
			for _, first := range before[l.text] {
				d.sh(l.at+" (before)", first)
			}
			if strings.HasPrefix(l.text, "character run captain ") && !strings.Contains(l.text, "--id") { // there is a finished one of that name
				d.elsewhere(ran).sh(l.at, l.text)
			} else {
				d.sh(l.at, l.text)
			}
		}
	}
	d.stop()
	for _, l := range alone { // they end what they begin, so they can share the folder one after the other
		want, _ := how(servers, l.text)
		for _, first := range before[l.text] {
			d.sh(l.at+" (before)", first)
		}
		d.serve(l, want)
	}
	if ran < 40 || len(alone) < 4 || len(steer) < 5 {
		t.Errorf("%d run, %d servers, %d for a run under way, %d not run: the pages are not read as they are written", ran, len(alone), len(steer), left)
	}
	for begin := range before {
		if !seen[begin] {
			t.Errorf("what goes before %q is for a line that no page has", begin)
		}
	}
	d.steer(steer)
}

// folder is where a reader types.
type folder struct {
	t   *testing.T
	m   *machine
	dir string
	env []string
	up  *session
}

// readersFolder prepares it, and starts `character up` there, so that commands are quick.
func readersFolder(t *testing.T) *folder {
	t.Helper()
	m := newMachine(t)
	f := &folder{t: t, m: m, dir: t.TempDir()}
	m.data = filepath.Join(f.dir, ".character")
	var tiny []string
	for _, s := range append(tinymodel.Settings(), // less of everything, in fewer pieces: nothing is interrupted here
		"preferences.pairs=12", "preferences.min_pairs=4", "preferences.chunk=24", "dpo.epochs=1", "dpo.segment_steps=0",
		"introspection.reflections=6", "introspection.interactions=1", "introspection.chunk=16", "sft.epochs=1", "sft.segment_steps=0",
		"evaluation.held_out=2", `evaluation.prompts=["Hello!"]`) {
		tiny = append(tiny, "--set '"+s+"'")
	}
	// A run of the reader's own that is under way is gone on with, and needs nothing: run --id, without a NAME.
	script := "#!/bin/sh\ncase \"$1 $2\" in\n\"run -\"*) exec " + m.bin + " \"$@\" ;;\n\"run \"*|\"plan \"*) c=$1 n=$2; shift 2; exec " + m.bin + " $c $n --model " + m.model + " " + strings.Join(tiny, " ") + " \"$@\" ;;\nesac\nexec " + m.bin + " \"$@\"\n"
	write(t, filepath.Join(f.dir, "bin", "character"), script)
	if err := os.Chmod(filepath.Join(f.dir, "bin", "character"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := tinymodel.Write(filepath.Join(f.dir, "my-model"), 1); err != nil {
		t.Fatal(err)
	}
	f.env = append(os.Environ(), "PATH="+filepath.Join(f.dir, "bin")+":"+os.Getenv("PATH"), "HOME="+f.dir, "XDG_CACHE_HOME="+filepath.Join(f.dir, "cache"))
	m.dir, m.env = f.dir, f.env[len(f.env)-3:]
	f.up = m.session("up")
	f.up.said("up", has("character is up"))
	for _, line := range []string{
		"character run captain --id captain",
		"character data export captain/dpo --out pairs.jsonl", "character data export captain/dpo --out pairs.parquet",
		"character data export captain/introspection --out talks.jsonl", "character data export captain/introspection --out talks.parquet",
		"character constitution new my-character --out my-character.yaml", "cp my-character.yaml my.yaml",
		"mkdir -p my-dataset-folder/data && cp pairs.jsonl my-dataset-folder/data/train-00000-of-00001.jsonl",
		"cp pairs.jsonl answers-in.jsonl",
		`echo '{"prompt":"Hello!"}' > prompts.jsonl`, `echo '{"prompt":"Hello!","response":"Arr"}' > rows.jsonl`,
	} {
		f.sh("preparation", line)
	}
	return f
}

// sh types a line. It must end well, without a terminal and with nothing to read.
func (f *folder) sh(at, line string) string {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-c", line)
	c.Dir, c.Env = f.dir, f.env
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	start := time.Now()
	if err := c.Run(); err != nil {
		f.t.Errorf("%s: %s: %v\n%.2000s", at, line, err, out.String())
	}
	f.t.Logf("%5.1f s  %s: %s", time.Since(start).Seconds(), at, line)
	return out.String()
}

// elsewhere is the same folder with a data directory of its own.
func (f *folder) elsewhere(n int) *folder {
	data := filepath.Join(f.dir, fmt.Sprintf("data-%d", n))
	m := *f.m
	m.data = data
	return &folder{t: f.t, m: &m, dir: f.dir, env: append(slices.Clone(f.env), "CHARACTER_DATA="+data)}
}

// stop ends `character up` in order.
func (f *folder) stop() {
	f.t.Helper()
	if err := f.up.c.Process.Signal(syscall.SIGTERM); err != nil {
		f.t.Fatal(err)
	}
	select {
	case <-f.up.ended:
	case <-time.After(2 * time.Minute):
		f.t.Fatalf("character up does not end:\n%s", f.up.output())
	}
}

// serve types a line that runs until it is stopped, waits for what it says, and stops it in order.
func (f *folder) serve(l docLine, want string) {
	f.t.Helper()
	words, err := doclines.Commands(l.text)
	if err != nil || len(words) != 1 {
		f.t.Errorf("%s: %s: %v", l.at, l.text, err)
		return
	}
	args := words[0][1:]
	if own := map[string]string{"serve": "--addr", "codec": "--listen"}[args[0]]; own != "" { // a port that nobody has
		args = append(args, own, "127.0.0.1:0")
	}
	if words[0][1] == "worker" || words[0][1] == "codec" { // they are for a stack that runs
		up := f.m.session("up", "--no-worker")
		up.said("up", has("character is up"))
		defer up.kill()
	}
	s := f.m.session(args...)
	s.said(l.text, has(want))
	if err := s.c.Process.Signal(syscall.SIGTERM); err != nil {
		f.t.Error(err)
	}
	select {
	case <-s.ended:
		if s.err != nil {
			f.t.Errorf("%s: %s: %v\n%s", l.at, l.text, s.err, s.output())
		}
	case <-time.After(2 * time.Minute):
		f.t.Errorf("%s: %s does not end:\n%s", l.at, l.text, s.output())
	}
	s.kill()
	f.t.Logf("         %s: %s", l.at, l.text)
}

// steer types the lines for a run under way: one called captain, too large to end meanwhile.
func (f *folder) steer(lines []docLine) {
	f.t.Helper()
	other := f.elsewhere(0)
	up := other.m.session("up")
	up.said("up", has("character is up"))
	other.sh("preparation", "character run captain --set preferences.pairs=5000 --set preferences.max_candidates=90000 --set preferences.repeats=900 --detach")
	rank := func(l docLine) int {
		return slices.IndexFunc(steered, func(s string) bool { return strings.HasPrefix(l.text, s) })
	}
	slices.SortStableFunc(lines, func(a, b docLine) int { return rank(a) - rank(b) })
	other.m.waitFor("captain", "the floor of pairs", func(s runState) bool { return s.Stages[0].Kept >= 8 })
	for _, l := range lines {
		other.sh(l.at, l.text)
	}
	up.kill()
}

// TestDocCommandsFail: a line that does not work is found when it is run.
func TestDocCommandsFail(t *testing.T) {
	for line, want := range map[string]string{"character run captain": "", "character model pull x": "needs the package registry", "make demo": "minutes", "character up --no-worker": ""} {
		if why, _ := how(notRun, line); !strings.HasPrefix(why, want) || (want == "") != (why == "") {
			t.Errorf("%s: %q", line, why)
		}
	}
	if want, ok := how(servers, "character up --no-worker"); !ok || want != "character is up" {
		t.Error(fmt.Sprint("servers: ", want, ok))
	}
}
