package main_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

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
	up := m.up([]string{"PLANTED_TEACHER_KEY=" + teacherKey, "TEMPORAL_API_KEY=" + temporalKey, "AWS_SECRET_ACCESS_KEY=" + awsKey, "AWS_ACCESS_KEY_ID=AKIAPLANTED"})
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
	var found []string
	for name, b := range map[string][]byte{
		"arguments": args, "output of run": []byte(said.String()), "output of the refused run": out, "status": []byte(m.must("status", "--json")),
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

// TestEncryptedRun: with a key file Temporal's file holds nothing of what the run says; without it nothing can be read.
func TestEncryptedRun(t *testing.T) {
	m := newMachine(t)
	dir := t.TempDir()
	key := filepath.Join(dir, "codec.key")
	m.must("codec", "new-key", key, "--id", "k1")
	text := "name: keeper\ntraits:\n"
	for i, s := range []string{"I tend the lighthouse of Skerryvore every night.", "I count the waves before I answer.", "I never hurry a visitor."} {
		text += fmt.Sprintf("  - trait: %q\n    questions: [\"Planted question %d about lamps?\"]\n", s, i)
	}
	own := filepath.Join(dir, "keeper.yaml")
	if err := os.WriteFile(own, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append(m.runArgs("dark"), "--codec-key-file", key, "--set", "evaluation.held_out=0", "--set", `evaluation.prompts=["What does the Skerryvore lamp see?"]`)
	args[1] = own
	m.must(args...)
	plain := []string{"Skerryvore", "Planted question", "count the waves", "Character training", "resolve the spec", "learning_rate"}
	for _, f := range scan(t, filepath.Join(m.data, "temporal"), nil, plain...) {
		t.Error(f)
	}
	if len(scan(t, filepath.Join(m.data, "temporal"), nil, "binary/encrypted")) == 0 || len(scan(t, filepath.Join(m.data, "s3"), nil, plain[:3]...)) == 0 {
		t.Error("the scan is blind")
	}
	secret, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range scan(t, m.data, nil, strings.Fields(string(secret))[1]) {
		t.Error(f)
	}
	if out := m.must("status", "--json", "--codec-key-file", key); !strings.Contains(out, `"completed"`) {
		t.Errorf("status with the key: %s", out)
	}
	// The UI's way: payloads of the history, decrypted by the endpoint for the UI's pages.
	up := m.up(nil, "--codec-key-file", key)
	page, err := http.Get(m.info().UI + "/api/v1/settings")
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Codec struct{ Endpoint string } }
	err = json.NewDecoder(page.Body).Decode(&set)
	_ = page.Body.Close()
	if err != nil || !strings.HasPrefix(set.Codec.Endpoint, "http://127.0.0.1:") {
		t.Fatalf("the UI knows no codec endpoint: %+v %v", set, err)
	}
	var history struct {
		Events []struct {
			WorkflowExecutionStartedEventAttributes *struct{ Input json.RawMessage }
		}
	}
	if err := json.Unmarshal([]byte(m.must("_history", "dark", "--codec-key-file", key)), &history); err != nil || len(history.Events) == 0 || history.Events[0].WorkflowExecutionStartedEventAttributes == nil {
		t.Fatalf("history: %v", err)
	}
	input := history.Events[0].WorkflowExecutionStartedEventAttributes.Input
	if bytes.HasPrefix(input, []byte("[")) { // shorthand of the history's JSON
		input = append(append([]byte(`{"payloads":`), input...), '}')
	}
	req, _ := http.NewRequest(http.MethodPost, set.Codec.Endpoint+"/decode", bytes.NewReader(input))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Origin", m.info().UI)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_, _ = b.ReadFrom(res.Body)
	_ = res.Body.Close()
	var decoded struct{ Payloads []struct{ Data []byte } }
	if err := json.Unmarshal(b.Bytes(), &decoded); err != nil || len(decoded.Payloads) != 1 || !bytes.Contains(decoded.Payloads[0].Data, []byte("Skerryvore lamp")) || res.Header.Get("Access-Control-Allow-Origin") != m.info().UI {
		t.Errorf("decoded for the UI: %s %s", res.Status, b.String())
	}
	// Without the key, and with another one of that name: said at once, by every command, before it harms the run.
	other := filepath.Join(dir, "other.key")
	m.must("codec", "new-key", other, "--id", "k1")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"status", "dark"}, "--codec-key-file"},
		{[]string{"run", "--id", "dark"}, "--codec-key-file"},
		{[]string{"worker"}, "--codec-key-file"},
		{[]string{"worker", "--codec-key-file", other}, "another one"},
		{[]string{"status", "dark", "--codec-key-file", other}, "another one"},
		{append(m.runArgs("more"), "--codec-key-file", other), "another one"},
		{[]string{"status", "--codec-key-file", filepath.Join(dir, "none")}, "no such file"},
		{[]string{"codec", "--key-file", key, "--listen", "0.0.0.0:0"}, "not a loopback address"},
		{[]string{"codec", "--key-file", key, "--origin", "*"}, "origin"},
	} {
		out, err := m.command(c.args...).CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte(c.want)) {
			t.Errorf("character %s: %v, want %q\n%s", strings.Join(c.args[:1], " "), err, c.want, out)
		}
	}
	killAll(t, up)
}

// TestSpecsReachOnlyWhatIsAllowed starts runs as the UI does, by somebody who is not the worker's operator.
func TestSpecsReachOnlyWhatIsAllowed(t *testing.T) {
	m := newMachine(t)
	server := fake.Start(t, fake.Options{Key: "planted-key-of-the-worker"})
	link := filepath.Join(filepath.Dir(m.model), "link")
	if err := os.Symlink(filepath.Dir(m.model), link); err != nil {
		t.Fatal(err)
	}
	shelf := filepath.Join(t.TempDir(), "shelf")
	if err := os.MkdirAll(filepath.Join(shelf, "tiny"), 0o700); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(m.model)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(m.model, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(shelf, "tiny", e.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(m.model, filepath.Join(shelf, "away")); err != nil {
		t.Fatal(err)
	}
	up := m.up([]string{"SECRET_OF_THE_WORKER=" + server.Key}, "--allow-path", shelf)
	c, err := client.Dial(client.Options{HostPort: m.info().Temporal})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := func(id string, spec map[string]any) client.WorkflowRun {
		t.Helper()
		r, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: "character"}, "CharacterTraining", spec)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	openai := map[string]any{"base_url": server.URL, "model": "test-model", "key_env": "SECRET_OF_THE_WORKER"}
	for i, c := range []struct {
		id   string
		spec map[string]any
		want string
	}{
		{"", map[string]any{"model": m.model}, "--allow-path"},
		{"", map[string]any{"model": "/etc/passwd"}, "--allow-path"},
		{"", map[string]any{"model": "../../etc/passwd"}, "may not be in it"},
		{"", map[string]any{"model": "away"}, "leads out of the allowed folders"},
		{"", map[string]any{"model": "file:///etc/passwd"}, "addresses are not read"},
		{"", map[string]any{"model": `C:\x`}, "forward slashes"},
		{"", map[string]any{"constitution": "ref:runs/captain/HEAD.json"}, "ref:uploads/"},
		{"", map[string]any{"constitution": "/etc/passwd"}, "is not built in"},
		{"", map[string]any{"preferences": map[string]any{"prompts": "ref:uploads/../codec/k"}}, "ref:uploads/"},
		{"", map[string]any{"model": filepath.Join(shelf, "tiny"), "teacher": "openai", "teacher_options": openai}, "--allow-url"},
		{"", map[string]any{"model": filepath.Join(shelf, "tiny"), "teacher": "openai", "teacher_options": map[string]any{"base_url": "https://api.deepseek.com", "model": "m", "key_env": "SECRET_OF_THE_WORKER"}}, "--allow-url"},
		{"", map[string]any{"teacher": "openai", "teacher_options": map[string]any{"base_url": "file:///etc/passwd", "model": "m"}}, "base_url"},
		{"captain/HEAD.json", map[string]any{}, "slash"},
	} {
		id := c.id
		if id == "" {
			id = fmt.Sprintf("bad-%d", i)
		}
		err := start(id, c.spec).Get(t.Context(), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.spec, err, c.want)
		}
	}
	if n := len(server.Requests()); n > 0 {
		t.Errorf("the endpoint that is not allowed was asked %d times", n)
	}
	// What is allowed goes, also by a name relative to the allowed folder. A prompt of one stage is enough to see it.
	spec := map[string]any{"model": "tiny", "preferences": map[string]any{"pairs": 1, "min_pairs": 1, "max_candidates": 4, "chunk": 4}, "evaluation": map[string]any{"held_out": 0}}
	r := start("good", spec)
	deadline := time.Now().Add(2 * time.Minute)
	for {
		var p struct {
			Error  string
			Stages []struct{ State string }
		}
		if v, err := c.QueryWorkflow(t.Context(), "good", "", "progress"); err == nil && v.Get(&p) == nil && len(p.Stages) > 0 && p.Stages[0].State != "pending" {
			if p.Error != "" {
				t.Errorf("the allowed model: %s", p.Error)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the allowed run does not begin\n%s", m.workerLog())
		}
		time.Sleep(200 * time.Millisecond)
	}
	if err := c.CancelWorkflow(t.Context(), r.GetID(), ""); err != nil {
		t.Error(err)
	}
	killAll(t, up)
}

var listening = regexp.MustCompile(`(?m)^ *\d+: ([0-9A-F]+):([0-9A-F]{4}) [0-9A-F:]+ 0A (?:\S+ +){5}(\d+)`)

// open lists the addresses on which the processes listen, as the kernel writes them.
func open(t *testing.T, pids []int) (addresses []string) {
	t.Helper()
	ours := map[string]bool{}
	for _, p := range pids {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p))
		for _, f := range fds {
			if to, err := os.Readlink(f); err == nil && strings.HasPrefix(to, "socket:[") {
				ours[strings.Trim(to[len("socket:"):], "[]")] = true
			}
		}
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, m := range listening.FindAllStringSubmatch(string(b), -1) {
			if ours[m[3]] {
				addresses = append(addresses, m[1])
			}
		}
	}
	return addresses
}

// TestOnlyForTheOwner: everything listens on loopback, and with the laxest umask files and folders are their owner's only.
func TestOnlyForTheOwner(t *testing.T) {
	m := newMachine(t)
	c := m.command(append([]string{"up", "--codec-key-file", m.key("k")}, ports(t)...)...)
	lax := exec.Command("sh", append([]string{"-c", `umask 000; exec "$@"`, "sh"}, c.Args...)...)
	lax.SysProcAttr = c.SysProcAttr
	m.await(lax, func(line string) bool { return strings.Contains(line, "Temporal UI") })
	addresses := open(t, append(children(lax.Process.Pid), lax.Process.Pid))
	if len(addresses) < 5 { // gRPC, HTTP, UI, S3, codec
		t.Errorf("only %d sockets listen: the test is blind", len(addresses))
	}
	for _, a := range addresses {
		if a != "0100007F" && a != "0000000000000000FFFF00000100007F" && a != "00000000000000000000000001000000" {
			t.Errorf("listens on %s, which is not loopback", a)
		}
	}
	for name, want := range map[string]fs.FileMode{
		".": 0o700, "logs": 0o700, "s3": 0o700, "temporal": 0o700, "credentials.json": 0o600, "stack.json": 0o600, "temporal/temporal.db": 0o600,
		"logs/worker.log": 0o600, "logs/s3.log": 0o600, "logs/stack.log": 0o600, "logs/temporal.log": 0o600,
	} {
		if st, err := os.Stat(filepath.Join(m.data, name)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", name, st, err, want)
		}
	}
	// Without the keys of credentials.json S3 answers nobody.
	res, err := http.Get(m.info().S3 + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("S3 without keys: %s", res.Status)
	}
	// The JSON API answers nobody under a foreign name: a page there would have had its name point here.
	for host, want := range map[string]int{"": http.StatusOK, "evil.example": http.StatusForbidden} {
		req, _ := http.NewRequest(http.MethodGet, "http://"+m.info().TemporalHTTP+"/api/v1/namespaces/default/workflows", nil)
		req.Host = host
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("JSON API as %q: %s", host, res.Status)
		}
	}
	killAll(t, lax)
	for _, address := range []string{"0.0.0.0", "::", "192.0.2.1", "example.com"} {
		out, err := m.command("up", "--bind", address).CombinedOutput()
		x, ok := err.(*exec.ExitError)
		if !ok || x.ExitCode() != 2 || !bytes.Contains(out, []byte("tunnel")) {
			t.Errorf("up --bind %s: %v\n%s", address, err, out)
		}
	}
}
