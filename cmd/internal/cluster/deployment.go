package cluster

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.temporal.io/sdk/client"
)

// Deployment says of which version of which worker deployment a worker is; zero: it is not versioned. Its fields are those of
// workers.Deployment.
type Deployment struct{ Name, Build string }

// Register adds the flags. The TEMPORAL_ names are those that Temporal's controller for Kubernetes sets.
func (d *Deployment) Register(fs Set, env func(string) string) {
	first := func(names ...string) string {
		for _, n := range names {
			if v := env(n); v != "" {
				return v
			}
		}
		return ""
	}
	fs.StringVar(&d.Name, "deployment", first("CHARACTER_DEPLOYMENT", "TEMPORAL_DEPLOYMENT_NAME"),
		"serve as a version of this worker deployment; empty: not versioned (CHARACTER_DEPLOYMENT, TEMPORAL_DEPLOYMENT_NAME)")
	fs.StringVar(&d.Build, "build-id", first("CHARACTER_BUILD_ID", "TEMPORAL_WORKER_BUILD_ID"),
		"name of the version, with --deployment; empty: this program's commit (CHARACTER_BUILD_ID, TEMPORAL_WORKER_BUILD_ID)")
}

// Complete fills in the build that is not named.
func (d *Deployment) Complete() error {
	if d.Name == "" && d.Build != "" {
		return errors.New("--build-id needs --deployment: name the worker deployment")
	}
	if d.Name == "" || d.Build != "" {
		return nil
	}
	if d.Build = commit(); d.Build == "" {
		return errors.New("--deployment: this program was not built from a clean commit, so it has no name of its own: name the version with --build-id")
	}
	return nil
}

// commit is what this program was built of; "" when its files had been changed, or there was no repository.
func commit() string {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	id := ""
	for _, s := range b.Settings {
		switch {
		case s.Key == "vcs.revision":
			id = s.Value
		case s.Key == "vcs.modified" && s.Value != "false":
			return ""
		}
	}
	return id
}

// Note is what a versioned worker adds to its first words: whether new runs come to it.
func (d Deployment) Note(ctx context.Context, c client.Client) string {
	if d.Name == "" {
		return ""
	}
	at := fmt.Sprintf(", as build %s of deployment %s", d.Build, d.Name)
	hint := fmt.Sprintf("\nNew runs come to it when it is the current one: temporal worker deployment set-current-version --deployment-name %s --build-id %s", d.Name, d.Build)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := c.WorkerDeploymentClient().GetHandle(d.Name).Describe(ctx, client.WorkerDeploymentDescribeOptions{})
	if err != nil { // it is not known before its first poll; a cluster that does not tell is asked by hand
		return at + hint
	}
	now, next := r.Info.RoutingConfig.CurrentVersion, r.Info.RoutingConfig.RampingVersion
	if now != nil && now.BuildID == d.Build || next != nil && next.BuildID == d.Build {
		return at + ", which gets new runs"
	}
	return at + hint
}
