package cluster_test

import (
	"flag"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/cmd/internal/cluster"
)

func TestDeploymentFlags(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  func(string) string
		args []string
		want cluster.Deployment
		err  string
	}{
		{noEnv, nil, cluster.Deployment{}, ""},
		{noEnv, []string{"-deployment", "character", "-build-id", "1"}, cluster.Deployment{Name: "character", Build: "1"}, ""},
		{env("CHARACTER_DEPLOYMENT", "a", "CHARACTER_BUILD_ID", "1"), nil, cluster.Deployment{Name: "a", Build: "1"}, ""},
		{env("TEMPORAL_DEPLOYMENT_NAME", "a", "TEMPORAL_WORKER_BUILD_ID", "1"), []string{"-build-id", "2"}, cluster.Deployment{Name: "a", Build: "2"}, ""},
		{env("TEMPORAL_DEPLOYMENT_NAME", "a", "TEMPORAL_WORKER_BUILD_ID", "1"), []string{"-deployment=", "-build-id="}, cluster.Deployment{}, ""},
		{noEnv, []string{"-build-id", "1"}, cluster.Deployment{}, "--build-id needs --deployment"},
		// A test binary is of no commit.
		{noEnv, []string{"-deployment", "character"}, cluster.Deployment{}, "name the version with --build-id"},
	} {
		var d cluster.Deployment
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		d.Register(fs, c.env)
		if err := fs.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		err := d.Complete()
		if c.err == "" && (err != nil || d != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%v: %+v, %v, want %+v %q", c.args, d, err, c.want, c.err)
		}
	}
}
