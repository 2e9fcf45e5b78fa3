//go:build !noserver

// Package compose checks docker-compose.yml and the Dockerfile at the root of the project, as far as that can be done without a container engine: both are read
// by the library that Docker Compose itself is built on, and the rules that matter are tests.
package compose_test

import (
	"context"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/opencharacter/opencharacter/workflows"
)

const (
	file       = "../../docker-compose.yml"
	dockerfile = "../../Dockerfile"
)

// secrets are the variables without which the file must not load.
var secrets = []string{"CHARACTER_POSTGRES_PASSWORD", "CHARACTER_S3_ACCESS_KEY", "CHARACTER_S3_SECRET_KEY", "CHARACTER_GRAFANA_PASSWORD"}

func load(t *testing.T, env map[string]string) (*types.Project, error) {
	t.Helper()
	var list []string
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	o, err := cli.NewProjectOptions([]string{file}, cli.WithEnv(list), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	return o.LoadProject(context.Background())
}

func project(t *testing.T) *types.Project {
	t.Helper()
	env := map[string]string{}
	for _, name := range secrets {
		env[name] = "value-of-" + strings.ToLower(name)
	}
	p, err := load(t, env)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestServices(t *testing.T) {
	t.Parallel()
	p := project(t)
	want := []string{"control", "engine", "grafana", "namespace", "postgresql", "prometheus", "s3", "schema", "teacher", "temporal", "ui"}
	if got := slices.Sorted(maps.Keys(p.Services)); !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
	pinned := regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+[\w.-]*$`)
	for name, s := range p.Services {
		if s.Build == nil && !pinned.MatchString(s.Image) {
			t.Errorf("%s: image %q is not pinned to a version", name, s.Image)
		}
		if s.Privileged || s.NetworkMode == "host" || s.Pid == "host" {
			t.Errorf("%s: has rights on the host", name)
		}
		oneShot := name == "schema" || name == "namespace"
		if !oneShot && (s.HealthCheck == nil || s.HealthCheck.Disable || len(s.HealthCheck.Test) == 0) {
			t.Errorf("%s: no health check", name)
		}
		if s.Restart == "" {
			t.Errorf("%s: no restart policy", name)
		}
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeVolume {
				t.Errorf("%s: mounts %s of the host", name, v.Source)
			} else if _, ok := p.Volumes[v.Source]; !ok {
				t.Errorf("%s: volume %s is not declared", name, v.Source)
			}
		}
	}
	for _, name := range []string{"postgresql", "s3", "control", "teacher", "engine", "prometheus", "grafana"} {
		if len(p.Services[name].Volumes) == 0 {
			t.Errorf("%s: its data is lost with the container", name)
		}
	}
	if a, b := tag(p.Services["temporal"].Image), tag(p.Services["schema"].Image); a != b || b != tag(p.Services["namespace"].Image) {
		t.Errorf("Temporal %s and its tools %s differ in version", a, b)
	}
}

func tag(image string) string { return image[strings.LastIndex(image, ":")+1:] }

func TestPortsAreOnLoopback(t *testing.T) {
	t.Parallel()
	published := map[string][]string{}
	for name, s := range project(t).Services {
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is open on %q", name, port.Published, port.HostIP)
			}
			published[name] = append(published[name], port.Published)
		}
	}
	for name, want := range map[string]string{"temporal": "7233", "ui": "8080", "s3": "7070", "prometheus": "9090", "grafana": "3000"} {
		if !slices.Contains(published[name], want) {
			t.Errorf("%s: port %s is not published", name, want)
		}
	}
	for _, name := range []string{"postgresql", "control", "teacher", "engine"} {
		if len(published[name]) > 0 {
			t.Errorf("%s is published", name)
		}
	}
}

func TestOrderOfStart(t *testing.T) {
	t.Parallel()
	p := project(t)
	for _, edge := range [][3]string{
		{"schema", "postgresql", types.ServiceConditionHealthy},
		{"temporal", "schema", types.ServiceConditionCompletedSuccessfully},
		{"namespace", "temporal", types.ServiceConditionHealthy},
		{"ui", "temporal", types.ServiceConditionHealthy},
		{"control", "namespace", types.ServiceConditionCompletedSuccessfully},
		{"control", "s3", types.ServiceConditionHealthy},
		{"teacher", "namespace", types.ServiceConditionCompletedSuccessfully},
		{"teacher", "s3", types.ServiceConditionHealthy},
		{"grafana", "prometheus", types.ServiceConditionHealthy},
		{"engine", "namespace", types.ServiceConditionCompletedSuccessfully},
		{"engine", "s3", types.ServiceConditionHealthy},
	} {
		if got := p.Services[edge[0]].DependsOn[edge[1]].Condition; got != edge[2] {
			t.Errorf("%s waits for %s until %q, want %q", edge[0], edge[1], got, edge[2])
		}
	}
}

func TestNoDefaultPasswords(t *testing.T) {
	t.Parallel()
	for _, missing := range secrets {
		env := map[string]string{}
		for _, name := range secrets {
			if name != missing {
				env[name] = "x"
			}
		}
		if _, err := load(t, env); err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("without %s: %v", missing, err)
		}
	}
	secret := regexp.MustCompile(`(?i)password|_pwd$|secret|access_key|api_key`)
	for name, s := range project(t).Services {
		for key, value := range s.Environment {
			if secret.MatchString(key) && value != nil && *value != "" && !strings.HasPrefix(*value, "value-of-") {
				t.Errorf("%s: %s has a value in the file", name, key)
			}
		}
		for _, arg := range append(slices.Clone(s.Command), s.Entrypoint...) {
			if strings.Contains(arg, "value-of-") {
				t.Errorf("%s: a secret is on the command line", name)
			}
		}
	}
}

func TestWorkers(t *testing.T) {
	t.Parallel()
	p := project(t)
	var queues []string
	for _, name := range []string{"control", "teacher", "engine"} {
		s := p.Services[name]
		if s.Build == nil || len(s.Command) < 3 || s.Command[0] != "worker" || s.Command[1] != "--queue" {
			t.Fatalf("%s: build %v, command %v", name, s.Build, s.Command)
		}
		if !slices.Equal(s.Command[3:], []string{"--metrics-address", "0.0.0.0:9464", "--metrics-remote", "--log-format", "json"}) || !slices.Equal(s.HealthCheck.Test, []string{"CMD", "/character", "ready", "--address", "127.0.0.1:9464"}) {
			t.Errorf("%s: command %v, health check %v", name, s.Command, s.HealthCheck.Test)
		}
		queues = append(queues, strings.Split(s.Command[2], ",")...)
		for key, want := range map[string]string{
			"CHARACTER_TEMPORAL": "temporal:7233", "CHARACTER_S3_ENDPOINT": "http://s3:7070", "CHARACTER_MODELS": "/models",
			"AWS_ACCESS_KEY_ID": *p.Services["s3"].Environment["ROOT_ACCESS_KEY"], "AWS_SECRET_ACCESS_KEY": *p.Services["s3"].Environment["ROOT_SECRET_KEY"],
		} {
			if got := s.Environment[key]; got == nil || *got != want {
				t.Errorf("%s: %s is not %s", name, key, want)
			}
		}
	}
	slices.Sort(queues)
	if !slices.Equal(queues, []string{"data", "engine", "teacher"}) {
		t.Errorf("queues served: %v", queues)
	}
	for _, name := range []string{"control", "engine"} {
		if _, ok := p.Services[name].Environment["DEEPSEEK_API_KEY"]; ok {
			t.Errorf("%s holds an API key it does not need", name)
		}
	}
}

func TestSearchAttributesAreCreated(t *testing.T) {
	t.Parallel()
	script := strings.Join(project(t).Services["namespace"].Command, "\n")
	for _, name := range workflows.SearchAttributes() {
		if !strings.Contains(script, name) {
			t.Errorf("search attribute %s is not created", name)
		}
	}
	if !strings.Contains(script, `"$name"`) {
		t.Errorf("a variable of the script was taken for one of Compose: %s", script)
	}
}

func TestDockerfile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(dockerfile)
	if err != nil {
		t.Fatal(err)
	}
	gomod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(gomod)
	if version == nil || !strings.Contains(string(text), "FROM golang:"+string(version[1])+"-") {
		t.Errorf("the Dockerfile does not build with the Go version of go.mod (%s)", version)
	}
	for _, want := range []string{"CGO_ENABLED=0", "./cmd/character", ":nonroot", `ENTRYPOINT ["/character"]`, `HEALTHCHECK`, `CMD ["/character", "ready"]`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the Dockerfile lacks %s", want)
		}
	}
	if strings.Contains(string(text), ":latest") {
		t.Error("an image is not pinned")
	}
}
