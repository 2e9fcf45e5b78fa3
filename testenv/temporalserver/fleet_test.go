package temporalserver_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/testenv/cluster"
	"github.com/opencharacter/opencharacter/testenv/s3server"
	"github.com/opencharacter/opencharacter/testenv/temporalserver"
	"github.com/opencharacter/opencharacter/testenv/tinymodel"
	"github.com/opencharacter/opencharacter/workflows"
)

// A fleet as production has it, on machines of a network of their own: PostgreSQL on one, Temporal on it and S3 on another, both behind
// TLS that asks for a certificate, workers that join, die, lose their cable, and somebody's desk from which runs are started.

// fleetEnv makes this test binary the servers of a fleet.
const fleetEnv = "TEMPORALSERVER_TEST_FLEET"

type fleetServers struct {
	Temporal                     temporalserver.Options
	S3                           string // folder
	AccessKey, SecretKey, Listen string // Listen is the machine's address
	Files                        cluster.Files
}

const temporalPort, s3Port = "7233", "9000"

// serveFleet serves until it is killed.
func serveFleet(options string) error {
	var o fleetServers
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return err
	}
	t, err := temporalserver.Start(context.Background(), o.Temporal)
	if err != nil {
		return err
	}
	s, err := s3server.Start(context.Background(), s3server.Options{Dir: o.S3, AccessKey: o.AccessKey, SecretKey: o.SecretKey,
		Args: []string{"-test.run=^$"}, Env: []string{s3ChildEnv}})
	if err != nil {
		return err
	}
	if _, err := cluster.NewFront(o.Listen+":"+temporalPort, t.Address, o.Files, "h2"); err != nil {
		return err
	}
	if _, err := cluster.NewFront(o.Listen+":"+s3Port, strings.TrimPrefix(s.Endpoint, "http://"), o.Files, "http/1.1"); err != nil {
		return err
	}
	fmt.Println("READY")
	select {
	case <-t.Failed():
		return t.Err()
	case <-s.Done():
		return s.Wait()
	}
}

// required stops a test that needs what this computer lacks: it is skipped, or fails where CHARACTER_REQUIRE has the word.
func required(t *testing.T, err, lack error, word string) {
	t.Helper()
	if errors.Is(err, lack) && !strings.Contains(os.Getenv("CHARACTER_REQUIRE"), word) {
		t.Skipf("%v (CHARACTER_REQUIRE=%s makes this a failure)", err, word)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// said collects what a process says.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.b.Write(p) }
func (s *said) String() string              { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

// process is a command that runs beside the test.
type process struct {
	cmd  *exec.Cmd
	out  *said
	done chan struct{}
	err  error // after done
}

func begin(t *testing.T, c *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: c, out: &said{}, done: make(chan struct{})}
	c.Stdout, c.Stderr = p.out, p.out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	go func() { p.err = c.Wait(); close(p.done) }()
	return p
}

func (p *process) kill() { cluster.Kill(p.cmd); <-p.done }

// until waits for a line of what the process says.
func (p *process) until(t *testing.T, what string, is func(line string) bool) {
	t.Helper()
	deadline := time.After(5 * time.Minute)
	for {
		for sc := bufio.NewScanner(strings.NewReader(p.out.String())); sc.Scan(); {
			if is(sc.Text()) {
				return
			}
		}
		select {
		case <-p.done:
			t.Fatalf("it ended (%v) before %s:\n%s", p.err, what, p.out)
		case <-deadline:
			t.Fatalf("never %s:\n%s", what, p.out)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// running is a line of a run's progress that says that a stage is under way, and has done something.
func running(stage string) func(string) bool {
	return func(line string) bool {
		f := strings.Fields(line)
		return len(f) > 3 && f[1] == stage && f[2] == "running" && !strings.HasPrefix(f[3], "0/")
	}
}

// completed is the line of a stage's end, which is said of each stage, however short.
func completed(stage string) func(string) bool {
	return func(line string) bool {
		f := strings.Fields(line)
		return len(f) > 3 && f[1] == stage && f[2] == "completed"
	}
}

// fleet is the machines that stay.
type fleet struct {
	t       *testing.T
	bin     string
	dir     string // of the test
	model   string
	network *cluster.Network
	db      *cluster.Postgres
	servers *cluster.Machine
	flags   []string // by which everybody reaches the servers
	env     []string
}

// characterBinary is the program under test: a built one, or built here.
func characterBinary(t *testing.T) string {
	t.Helper()
	if b := os.Getenv("CHARACTER_TEST_BINARY"); b != "" {
		return b
	}
	out := filepath.Join(t.TempDir(), "character")
	if b, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", out, "../../cmd/character").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, b)
	}
	return out
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	ctx, f := t.Context(), &fleet{t: t, dir: t.TempDir()}
	var err error
	f.network, err = cluster.New(ctx)
	required(t, err, cluster.ErrUnsupported, "netns")
	t.Cleanup(f.network.Close)
	f.db, err = cluster.StartPostgres(ctx, f.machine("database"), filepath.Join(f.dir, "postgres"), "the-password-of-the-database")
	required(t, err, cluster.ErrNoPostgres, "postgres")
	f.servers = f.machine("servers")
	authority, err := cluster.NewAuthority(filepath.Join(f.dir, "tls"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := authority.Issue("servers", f.servers.Addr)
	if err != nil {
		t.Fatal(err)
	}
	client, err := authority.Issue("client")
	if err != nil {
		t.Fatal(err)
	}
	o := fleetServers{S3: filepath.Join(f.dir, "s3"), AccessKey: "fleet", SecretKey: "the-key-of-the-bucket", Listen: f.servers.Addr, Files: server,
		Temporal: temporalserver.Options{Dir: filepath.Join(f.dir, "temporal"), SearchAttributes: map[string]string{},
			Postgres: &temporalserver.Postgres{Addr: f.db.Addr, User: f.db.User, Password: f.db.Password}}}
	for _, name := range workflows.SearchAttributes() {
		o.Temporal.SearchAttributes[name] = "Keyword"
	}
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	c := f.servers.Command(os.Args[0], "-test.run=^$")
	c.Env = append(os.Environ(), fleetEnv+"="+string(b))
	begin(t, c).until(t, "the servers are ready", func(line string) bool { return line == "READY" })
	f.flags = []string{"--temporal", f.servers.Addr + ":" + temporalPort, "--temporal-tls-ca", client.CA, "--temporal-tls-cert", client.Cert, "--temporal-tls-key", client.Key,
		"--s3-endpoint", "https://" + f.servers.Addr + ":" + s3Port, "--s3-bucket", "characters", "--s3-tls-ca", client.CA, "--s3-tls-cert", client.Cert, "--s3-tls-key", client.Key}
	none := filepath.Join(f.dir, "none")
	f.env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+o.AccessKey, "AWS_SECRET_ACCESS_KEY="+o.SecretKey, "AWS_REGION=us-east-1",
		"AWS_CONFIG_FILE="+none, "AWS_SHARED_CREDENTIALS_FILE="+none, "AWS_EC2_METADATA_DISABLED=true")
	return f
}

func (f *fleet) machine(name string) *cluster.Machine {
	f.t.Helper()
	m, err := f.network.Machine(f.t.Context(), name)
	if err != nil {
		f.t.Fatal(err)
	}
	return m
}

// command is a command of our program on a machine.
func (f *fleet) command(m *cluster.Machine, args ...string) *exec.Cmd {
	all := append([]string{"--data", filepath.Join(f.dir, m.Name), "--models", filepath.Join(f.dir, m.Name, "models")}, f.flags...)
	c := m.Command(f.bin, append(all, args...)...)
	c.Env = f.env
	return c
}

// worker adds a machine with a worker on it, and returns when it serves.
func (f *fleet) worker(name string, more ...string) (*cluster.Machine, *process) {
	f.t.Helper()
	m := f.machine(name)
	p := begin(f.t, f.command(m, append([]string{"worker", "--threads", "1", "--allow-path", f.model}, more...)...))
	p.until(f.t, name+" serves", func(line string) bool { return strings.HasPrefix(line, "Serving") })
	return m, p
}

// must runs a command to its end.
func must(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(c.Args, " "), err, out)
	}
	return string(out)
}

func readSums(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestFleet runs a whole character on a fleet to which everything happens, and compares its bytes with those of one process
// tree on this computer.
func TestFleet(t *testing.T) {
	f := newFleet(t)
	ctx := t.Context()
	f.bin, f.model = characterBinary(t), filepath.Join(f.dir, "tiny")
	if err := tinymodel.Write(f.model, 1); err != nil {
		t.Fatal(err)
	}
	alone := func(args ...string) string {
		return must(t, exec.Command(f.bin, append([]string{"--data", filepath.Join(f.dir, "alone")}, args...)...))
	}
	alone(tinymodel.RunArgs(f.model, "tiny")...)
	alone("export", "tiny", "--out", filepath.Join(f.dir, "want"))

	desk := f.machine("desk")
	_, first := f.worker("worker-1")
	second, _ := f.worker("worker-2")
	third, _ := f.worker("worker-3")
	run := begin(t, f.command(desk, tinymodel.RunArgs(f.model, "tiny")...))
	run.until(t, "several workers work", func(line string) bool { return strings.Contains(line, "chunks at once") })
	first.kill()
	f.worker("worker-4")
	run.until(t, "the first training", running("dpo"))
	f.db.Kill()
	if err := f.db.Start(ctx); err != nil {
		t.Fatal(err)
	}
	run.until(t, "the second generation", running("introspection"))
	if err := second.Pull(ctx); err != nil {
		t.Fatal(err)
	}
	third.PowerOff()
	f.worker("worker-5")
	run.until(t, "the end of the second generation", completed("introspection"))
	if err := second.Plug(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-run.done:
	case <-time.After(8 * time.Minute):
		t.Fatalf("the run does not end:\n%s", run.out)
	}
	if run.err != nil {
		t.Fatalf("%v\n%s", run.err, run.out)
	}
	t.Logf("the run on the fleet:\n%s", run.out)
	must(t, f.command(desk, "export", "tiny", "--out", filepath.Join(f.dir, "got")))
	if want, got := readSums(t, filepath.Join(f.dir, "want")), readSums(t, filepath.Join(f.dir, "got")); got != want {
		t.Errorf("the export differs from that of one computer:\n--- want\n%s--- got\n%s", want, got)
	}
	// The servers let nobody in without a certificate.
	must(t, f.command(desk, "status"))
	c := f.command(desk, "status")
	for i, a := range c.Args {
		if a == "--temporal-tls-cert" || a == "--temporal-tls-key" {
			c.Args[i+1] = ""
		}
	}
	if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), "connect to Temporal on "+f.servers.Addr) {
		t.Errorf("without a certificate: %v\n%s", err, out)
	}
}

// TestPostgresRefusals: what cannot be a database is refused, without the password. That one works is TestFleet's.
func TestPostgresRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		p    temporalserver.Postgres
		want string
	}{
		{temporalserver.Postgres{Addr: "somewhere", User: "u"}, "HOST:PORT"},
		{temporalserver.Postgres{Addr: "127.0.0.1:1"}, "no user"},
		{temporalserver.Postgres{Addr: "127.0.0.1:1", User: "u", Password: "the-password"}, "127.0.0.1:1"},
	} {
		s, err := temporalserver.Start(t.Context(), temporalserver.Options{Dir: t.TempDir(), Postgres: &c.p})
		if err == nil {
			stop(t, s)
			t.Errorf("%+v: started", c.p)
		} else if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "the-password") {
			t.Errorf("%+v: %v, want %q", c.p, err, c.want)
		}
	}
}
