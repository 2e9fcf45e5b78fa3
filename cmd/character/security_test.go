package main_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/testenv/stack"
	fake "github.com/opencharacter/opencharacter/testenv/teacher"
)

// scan looks for texts in all files under dir, as they are and in base64, and names what it finds.
func scan(t *testing.T, dir string, skip []string, texts ...string) (found []string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // the servers live: files come and go
		}
		for _, s := range skip {
			if d.Name() == s {
				return nil
			}
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		files++
		found = append(found, in(path, b, texts...)...)
		return nil
	})
	if err != nil || files < 3 {
		t.Fatalf("scanned %d files of %s: %v", files, dir, err)
	}
	return found
}

func in(where string, b []byte, texts ...string) (found []string) {
	for _, s := range texts {
		if bytes.Contains(b, []byte(s)) || bytes.Contains(b, []byte(base64.StdEncoding.EncodeToString([]byte(s)))) {
			found = append(found, fmt.Sprintf("%.8s... in %s", s, where))
		}
	}
	return found
}

// arguments are the command lines of a process and its descendants.
func arguments(pid int) []byte {
	var all []byte
	for _, p := range append(children(pid), pid) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p)) // it may have ended
		all = append(append(all, bytes.ReplaceAll(b, []byte{0}, []byte(" "))...), '\n')
	}
	return all
}

func (m *machine) info() stack.Info {
	m.t.Helper()
	i, alive, err := stack.Read(m.data)
	if err != nil || !alive {
		m.t.Fatalf("nothing lives on %s: %v", m.data, err)
	}
	return i
}

// ports are free ones for the flags of up: the usual ones are also those that other stacks on this machine try.
func ports(t *testing.T) (flags []string) {
	t.Helper()
	for _, name := range []string{"temporal", "http", "ui", "s3"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // all are held until each has its own
		flags = append(flags, fmt.Sprintf("--%s-port=%d", name, l.Addr().(*net.TCPAddr).Port))
	}
	return flags
}

// freeAddress is one on loopback that nobody has at the moment.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // it was only asked for
	return l.Addr().String()
}

// up starts the servers and waits until they are there.
func (m *machine) up(env []string, more ...string) *exec.Cmd {
	m.t.Helper()
	m.env = env
	return m.startUntil(append(append([]string{"up"}, ports(m.t)...), more...), func(line string) bool { return strings.Contains(line, "Temporal UI") })
}

// key makes a key file.
func (m *machine) key(id string) string {
	m.t.Helper()
	path := filepath.Join(m.t.TempDir(), "codec.key")
	m.must("codec", "new-key", path, "--id", id)
	return path
}

// TestSecretsStayOut plants secrets, runs with a teacher whose endpoint repeats the key in answers and errors, lets a second
// run fail by such an error, and looks for the secrets everywhere.
func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	const teacherKey, temporalKey, awsKey = "sk-planted-teacher-key-4Zq8", "planted-temporal-api-key-7Hs2", "planted-aws-secret-key-9Kd3"
	m := newMachine(t)
	echo := func(r *http.Request) string { return r.Header.Get("Authorization") }
	fail := func(code int) fake.Behaviour {
		return func(_ *fake.Server, w http.ResponseWriter, r *http.Request, _ fake.Request) {
			w.Header().Set("X-Echo", echo(r))
			w.WriteHeader(code)
			_, _ = fmt.Fprintf(w, `{"error":{"message":"you sent %s"}}`, echo(r))
		}
	}
	server := fake.Start(t, fake.Options{Key: teacherKey, Script: []fake.Behaviour{fail(500), fake.Normal, fail(429), fake.Truncated}, Answer: func(msgs []fake.Message) string {
		return "Aye, the sea it is. You sent Bearer " + teacherKey + " and asked: " + msgs[len(msgs)-1].Content
	}})
	metricsAt := freeAddress(t)
	up := m.up([]string{"PLANTED_TEACHER_KEY=" + teacherKey, "TEMPORAL_API_KEY=" + temporalKey, "AWS_SECRET_ACCESS_KEY=" + awsKey, "AWS_ACCESS_KEY_ID=AKIAPLANTED"}, "--log-level", "debug", "--metrics-address", metricsAt)
	s3Key := m.info().SecretKey
	if len(s3Key) < 40 {
		t.Fatalf("the S3 key has %d characters", len(s3Key))
	}
	planted := []string{teacherKey, temporalKey, awsKey, s3Key}
	openai := []string{"--set", "teacher=openai", "--set", "teacher_options.base_url=" + server.URL, "--set", "teacher_options.model=test-model", "--set", "teacher_options.key_env=PLANTED_TEACHER_KEY"}

	run := m.command(m.runArgs("planted", openai...)...)
	var said lockedBuffer
	run.Stdout, run.Stderr = &said, &said
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- run.Wait() }()
	var args []byte
	for over := false; !over; {
		args = append(args, arguments(up.Process.Pid)...)
		args = append(args, arguments(run.Process.Pid)...)
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("run: %v\n%s\n%s", err, said.String(), m.workerLog())
			}
			over = true
		case <-time.After(500 * time.Millisecond):
		}
	}
	if n := len(server.Requests()); n < 24 {
		t.Errorf("the teacher was asked %d times", n)
	}
	// A run whose teacher refuses the key, and says which it was.
	for range 50 {
		server.Then(fail(403))
	}
	out, err := m.command(m.runArgs("refused", append(openai, "--set", "seed=2")...)...).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("403")) {
		t.Errorf("the refused run: %v\n%s", err, out)
	}

	dir := filepath.Join(t.TempDir(), "export")
	m.must("export", "planted", "--out", dir)
	shown, err := http.Get("http://" + metricsAt + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	counts, err := io.ReadAll(shown.Body)
	if err := errors.Join(err, shown.Body.Close()); err != nil || !bytes.Contains(counts, []byte(`character_teacher_requests_total{outcome="refused"}`)) {
		t.Errorf("metrics: %v\n%.2000s", err, counts)
	}
	var found []string
	for name, b := range map[string][]byte{
		"arguments": args, "metrics": counts, "output of run": []byte(said.String()), "output of the refused run": out, "status": []byte(m.must("status", "--json")),
		"history": []byte(m.must("_history", "planted")), "history of the refused run": []byte(m.must("_history", "refused")), "preferences": []byte(m.must("_history", "planted/preferences")),
	} {
		if len(b) == 0 {
			t.Errorf("%s is empty", name)
		}
		found = append(found, in(name, b, planted...)...)
	}
	found = append(found, scan(t, dir, nil, planted...)...)
	found = append(found, scan(t, m.data, []string{"credentials.json"}, planted...)...)
	for _, f := range found {
		t.Error(f)
	}
	// That the looking works: what must be there is found, in the export, in Temporal's file and in the arguments.
	if rows, err := os.ReadFile(filepath.Join(dir, "captain_dpo.jsonl")); err != nil || !bytes.Contains(rows, []byte("You sent Bearer [key] and asked")) {
		t.Errorf("the teacher's answers are not in the export: %v", err)
	}
	if len(scan(t, filepath.Join(m.data, "temporal"), nil, "PLANTED_TEACHER_KEY")) == 0 || !bytes.Contains(args, []byte("worker --data")) || !bytes.Contains(args, []byte("_s3")) {
		t.Errorf("the scan is blind; arguments:\n%s", args)
	}
	killAll(t, up)
}
