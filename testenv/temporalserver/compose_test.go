package temporalserver_test

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/goccy/go-yaml"

	"github.com/opencharacter/opencharacter/testenv/cluster"
	"github.com/opencharacter/opencharacter/testenv/s3server"
	"github.com/opencharacter/opencharacter/testenv/scrape"
	fake "github.com/opencharacter/opencharacter/testenv/teacher"
	"github.com/opencharacter/opencharacter/testenv/temporalserver"
	"github.com/opencharacter/opencharacter/testenv/tinymodel"
	"github.com/opencharacter/opencharacter/workflows"
)

// composed is the services of docker-compose.yml as processes of this computer: with the same commands and the same variables,
// each with a loopback address of its own in place of its name. Images are replaced by programs that are here: PostgreSQL's own,
// Temporal and versitygw as they are inside our binary, and that binary. Prometheus and Grafana are not here: what they would
// read is read by the test.
type composed struct {
	t        *testing.T
	p        *types.Project
	bin      string
	dir      string
	net      string            // 127.x.y.
	number   map[string]string // of a service in it
	volumes  map[string]string // folders in place of volumes, by where they are mounted
	started  []string
	postgres *cluster.Postgres
	workers  map[string]*process
}

func newComposed(t *testing.T, environment ...string) *composed {
	t.Helper()
	o, err := cli.NewProjectOptions([]string{"../../docker-compose.yml"}, cli.WithEnv(environment), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var r [2]byte
	_, _ = rand.Read(r[:]) // it never fails
	c := &composed{t: t, p: p, bin: characterBinary(t), dir: t.TempDir(), net: fmt.Sprintf("127.%d.%d.", 1+r[0]%250, r[1]), number: map[string]string{}, workers: map[string]*process{}}
	for i, name := range p.ServiceNames() {
		c.number[name] = strconv.Itoa(i + 1)
	}
	c.volumes = map[string]string{"/models": filepath.Join(c.dir, "models")}
	return c
}

func (c *composed) addr(service string) string { return c.net + c.number[service] }

var hostPort = regexp.MustCompile(`\b([a-z0-9]+):(\d+)\b`)

// here turns a value of the file into one that holds on this computer.
func (c *composed) here(service, value string) string {
	value = hostPort.ReplaceAllStringFunc(value, func(s string) string {
		name, port, _ := strings.Cut(s, ":")
		if c.number[name] == "" {
			return s
		}
		return c.addr(name) + ":" + port
	})
	value = strings.ReplaceAll(value, "0.0.0.0:", c.addr(service)+":")
	for from, to := range c.volumes {
		if value == from || strings.HasPrefix(value, from+"/") {
			value = to + strings.TrimPrefix(value, from)
		}
	}
	return value
}

func (c *composed) env(service, name string) string {
	c.t.Helper()
	v := c.p.Services[service].Environment[name]
	if v == nil || *v == "" {
		c.t.Fatalf("service %s has no %s", service, name)
	}
	return c.here(service, *v)
}

// command is our program as in a container of a service: nothing but the file's variables.
func (c *composed) command(service string, args ...string) *exec.Cmd {
	s := c.p.Services[service]
	x := exec.Command(c.bin)
	for _, a := range args {
		x.Args = append(x.Args, c.here(service, a))
	}
	x.Env = []string{"PATH=" + os.Getenv("PATH")}
	for k, v := range s.Environment {
		if v != nil {
			x.Env = append(x.Env, k+"="+c.here(service, *v))
		}
	}
	x.Dir, x.SysProcAttr = c.dir, &syscall.SysProcAttr{Setpgid: true}
	return x
}

// healthy runs a service's own health check until it succeeds.
func (c *composed) healthy(service string) {
	c.t.Helper()
	check := c.p.Services[service].HealthCheck.Test
	if len(check) < 2 || check[0] != "CMD" || check[1] != "/character" {
		c.t.Fatalf("%s: health check %v", service, check)
	}
	var args []string
	for _, a := range check[2:] {
		args = append(args, strings.ReplaceAll(a, "127.0.0.1:", c.addr(service)+":")) // its own loopback
	}
	var said []byte
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		var err error
		if said, err = c.command(service, args...).CombinedOutput(); err == nil {
			return
		}
	}
	c.t.Fatalf("%s is not healthy: %s\n%s", service, said, c.workers[service].out)
}

// start starts a service. Each has its own way; one that has none makes the test fail.
func (c *composed) start(service string) {
	c.t.Helper()
	t := c.t
	switch service {
	case "postgresql":
		var err error
		c.postgres, err = cluster.StartPostgresHere(t.Context(), c.addr(service)+":5432", filepath.Join(c.dir, "postgres"), c.env(service, "POSTGRES_USER"), c.env(service, "POSTGRES_PASSWORD"))
		required(t, err, cluster.ErrNoPostgres, "postgres")
		t.Cleanup(c.postgres.Kill)
	case "schema":
		// The embedded server makes the databases by itself, from the same files; here it is seen that the two mean the same.
		script := strings.Join(c.p.Services[service].Command, "\n")
		if c.env(service, "SQL_USER") != c.postgres.User || c.env(service, "SQL_PASSWORD") != c.postgres.Password || !strings.Contains(script, "temporal:temporal temporal_visibility:visibility") {
			t.Errorf("schema: other databases than Temporal's: %s", script)
		}
	case "temporal":
		db := c.addr(c.env(service, "POSTGRES_SEEDS")) + ":" + c.env(service, "DB_PORT")
		o := temporalserver.Options{Dir: filepath.Join(c.dir, "temporal"), IP: c.addr(service), GRPCPort: c.published(service), Namespace: c.env("control", "CHARACTER_NAMESPACE"), SearchAttributes: map[string]string{},
			Postgres: &temporalserver.Postgres{Addr: db, User: c.env(service, "POSTGRES_USER"), Password: c.env(service, "POSTGRES_PWD")}}
		names := regexp.MustCompile(`for name in (.*?);`).FindStringSubmatch(strings.Join(c.p.Services["namespace"].Command, "\n"))
		if names == nil {
			t.Fatal("namespace: its script names no search attributes")
		}
		for _, n := range strings.Fields(names[1]) {
			o.SearchAttributes[n] = "Keyword"
		}
		startChild(t, o)
	case "namespace":
		if a := c.env(service, "TEMPORAL_ADDRESS"); !slices.Contains(c.started, "temporal") || !listens(a) {
			t.Errorf("namespace: nobody at %s", a)
		}
	case "ui":
		if a := c.env(service, "TEMPORAL_ADDRESS"); !listens(a) {
			t.Errorf("ui: nobody at %s", a)
		}
	case "s3":
		port := strings.TrimPrefix(c.env(service, "VGW_PORT"), ":")
		s, err := s3server.Start(t.Context(), s3server.Options{Exe: c.bin, Dir: filepath.Join(c.dir, "s3"), Addr: c.addr(service) + ":" + port, AccessKey: c.env(service, "ROOT_ACCESS_KEY"), SecretKey: c.env(service, "ROOT_SECRET_KEY")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
	case "control", "teacher", "engine":
		c.workers[service] = begin(t, c.command(service, c.p.Services[service].Command...))
		c.healthy(service)
	case "prometheus", "grafana": // not here
	default:
		t.Fatalf("service %s is new: say here how it is started", service)
	}
	c.started = append(c.started, service)
}

// published is the port inside the container that a service publishes.
func (c *composed) published(service string) int {
	c.t.Helper()
	ports := c.p.Services[service].Ports
	if len(ports) != 1 {
		c.t.Fatalf("%s publishes %v", service, ports)
	}
	return int(ports[0].Target)
}

func listens(address string) bool {
	x, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err == nil {
		_ = x.Close()
	}
	return err == nil
}

// up starts all services, each after those that it waits for.
func (c *composed) up() {
	c.t.Helper()
	for len(c.started) < len(c.p.Services) {
		before := len(c.started)
		for _, name := range c.p.ServiceNames() {
			waits := slices.ContainsFunc(c.p.Services[name].GetDependencies(), func(d string) bool { return !slices.Contains(c.started, d) })
			if !waits && !slices.Contains(c.started, name) {
				c.start(name)
			}
		}
		if len(c.started) == before {
			c.t.Fatalf("a circle: after %v nothing can start", c.started)
		}
	}
}

// scrape reads the metrics of our workers where Prometheus's own file says that they are.
func (c *composed) scrape() map[string]scrape.Metrics {
	c.t.Helper()
	config := c.p.Services["prometheus"].Configs
	i := slices.IndexFunc(config, func(x types.ServiceConfigObjConfig) bool { return strings.HasSuffix(x.Target, "prometheus.yml") })
	if i < 0 {
		c.t.Fatal("Prometheus has no configuration")
	}
	var file struct {
		ScrapeConfigs []struct {
			DNS []struct {
				Names []string
				Port  int
			} `yaml:"dns_sd_configs"`
		} `yaml:"scrape_configs"`
	}
	b, err := os.ReadFile(c.p.Configs[config[i].Source].File)
	if err == nil {
		err = yaml.Unmarshal(b, &file)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[string]scrape.Metrics{}
	for _, s := range file.ScrapeConfigs {
		for _, d := range s.DNS {
			for _, name := range d.Names {
				if out[name], err = scrape.Get(c.t.Context(), fmt.Sprintf("http://%s:%d/metrics", c.addr(name), d.Port)); err != nil {
					c.t.Fatal(err)
				}
			}
		}
	}
	return out
}

// TestCompose starts the set of processes that docker-compose.yml describes, runs a character through them, and reads their metrics.
func TestCompose(t *testing.T) {
	t.Parallel()
	teacher := fake.Start(t, fake.Options{Answer: func(m []fake.Message) string {
		return "Aye, I have sailed that sea for forty years, and I say: " + m[len(m)-1].Content
	}})
	secrets := []string{"the-password-of-postgres-8Gh2", "the-secret-of-the-bucket-5Rt9", "the-password-of-grafana-3Wq7", teacher.Key}
	c := newComposed(t, "CHARACTER_POSTGRES_PASSWORD="+secrets[0], "CHARACTER_S3_ACCESS_KEY=composed", "CHARACTER_S3_SECRET_KEY="+secrets[1],
		"CHARACTER_GRAFANA_PASSWORD="+secrets[2], "OPENAI_API_KEY="+teacher.Key, "CHARACTER_ALLOW_URLS="+teacher.URL+",OPENAI_API_KEY")
	if err := tinymodel.Write(filepath.Join(c.volumes["/models"], "tiny"), 1); err != nil {
		t.Fatal(err)
	}
	c.up()

	// docker compose run control run captain ...
	args := tinymodel.RunArgs("/models/tiny", "composed")
	for _, s := range []string{"teacher=openai", "teacher_options.base_url=" + teacher.URL, "teacher_options.model=test-model", "teacher_options.key_env=OPENAI_API_KEY"} {
		args = append(args, "--set", s)
	}
	run := begin(t, c.command("control", args...))
	select {
	case <-run.done:
	case <-time.After(10 * time.Minute):
		t.Fatalf("the run does not end:\n%s", run.out)
	}
	if run.err != nil {
		t.Fatalf("run: %v\n%s\nengine:\n%s", run.err, run.out, c.workers["engine"].out)
	}
	out, err := c.command("control", "status", "--json").Output()
	var status struct {
		Runs []struct {
			ID, State string
			Stages    []struct{ Name, State string }
		}
	}
	if err == nil {
		err = json.Unmarshal(out, &status)
	}
	if err != nil || len(status.Runs) != 1 || status.Runs[0].State != "completed" || len(status.Runs[0].Stages) != 5 {
		t.Fatalf("status: %v\n%s", err, out)
	}
	if out, err := c.command("control", "export", "composed", "--out", filepath.Join(c.dir, "export")).CombinedOutput(); err != nil {
		t.Errorf("export: %v\n%s", err, out)
	}

	seen := c.scrape()
	if len(seen) != 3 {
		t.Fatalf("scraped %d services", len(seen))
	}
	at := func(service, name string, least, most float64, labels ...string) {
		t.Helper()
		if v, _ := seen[service].Sum(name, labels...); v < least || v > most {
			t.Errorf("%s: %s%v is %v, want %v to %v", service, name, labels, v, least, most)
		}
	}
	const much = 1e12
	at("control", "character_stages_total", 5, 5, "reused=false")
	at("control", "character_tokens_total", 0, 0)
	at("teacher", "character_teacher_requests_total", 24, float64(len(teacher.Requests())+5), "outcome=ok") // and the list of models
	at("teacher", "character_rows_kept_total", 24, much, "role=teacher")
	at("engine", "character_training_steps_total", 24, 24, "stage=dpo") // 24 pairs, two at a time, twice
	at("engine", "character_tokens_total", 1, much, "work=generated", "kind=student")
	at("engine", "character_model_load_seconds", 1, much, "architecture=llama")
	for name, m := range seen {
		at(name, "character_store_requests_total", 1, much, "outcome=ok")
		at(name, "character_queue_wait_seconds", 1, much)
		at(name, "temporal_request_total", 1, much)
		at(name, "process_resident_memory_bytes", 1e6, much)
		for _, l := range m.Labels("") {
			if strings.Contains(l, "composed") {
				t.Errorf("%s: label %s", name, l)
			}
		}
	}

	// docker compose stop: each hands over what it has within its time, and ends well. What it said is JSON, and no secret.
	for _, w := range c.workers {
		cluster.Signal(w.cmd, syscall.SIGTERM)
	}
	for name, w := range c.workers {
		select {
		case <-w.done:
		case <-time.After(time.Duration(*c.p.Services[name].StopGracePeriod)):
			t.Fatalf("%s does not stop in its time:\n%s", name, w.out)
		}
		if w.err != nil {
			t.Errorf("%s: %v\n%s", name, w.err, w.out)
		}
		lines := 0
		for sc := bufio.NewScanner(strings.NewReader(w.out.String())); sc.Scan(); lines++ {
			var line struct{ Time, Level, Msg string }
			if err := json.Unmarshal(sc.Bytes(), &line); err != nil || line.Time == "" || line.Level == "" || line.Msg == "" {
				t.Errorf("%s says, and not in JSON: %s", name, sc.Text())
			}
		}
		if lines < 2 {
			t.Errorf("%s said %d lines:\n%s", name, lines, w.out)
		}
		for _, s := range secrets {
			if strings.Contains(w.out.String(), s) {
				t.Errorf("%s says a secret", name)
			}
		}
	}
	for _, name := range workflows.SearchAttributes() {
		if !strings.Contains(strings.Join(c.p.Services["namespace"].Command, "\n"), name) {
			t.Errorf("search attribute %s is not made", name)
		}
	}
}
