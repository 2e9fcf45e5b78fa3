package workers

import (
	"fmt"
	"strings"

	"go.temporal.io/api/deployment/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// Deployment makes workers versioned: they serve Temporal's worker deployment Name as its version Build. A run that begins on a
// version stays on it (it is pinned, and so are its stages), with its activities on every queue that workers of that version
// serve. Runs come to a version once it is made the deployment's current one; until then its workers get nothing.
// The zero value is not versioned.
type Deployment struct {
	Name  string // letters, digits, dash and underscore; "" means not versioned
	Build string // the version; required with a name
}

// longest is the most that Temporal takes of both names together, with room for what it puts before them.
const longest = 200

// Check says what Temporal would refuse only when the worker polls.
func (d Deployment) Check() error {
	switch {
	case d == Deployment{}:
		return nil
	case d.Name == "":
		return fmt.Errorf("build %q is of no deployment: name one", d.Build)
	case d.Build == "":
		return fmt.Errorf("deployment %s: which build are these workers? name it", d.Name)
	case strings.ContainsAny(d.Name, ".:") || strings.HasPrefix(d.Name, "__"):
		return fmt.Errorf("deployment %q: the name must hold no dot and no colon, and not begin with __", d.Name)
	case strings.HasPrefix(d.Build, "__"):
		return fmt.Errorf("build %q must not begin with __", d.Build)
	case len(d.Name)+len(d.Build) > longest:
		return fmt.Errorf("deployment %.20s..., build %.20s...: at most %d bytes together", d.Name, d.Build, longest)
	}
	for _, r := range d.Name + d.Build {
		if r <= ' ' || r == '"' || r == '\'' || r == '`' || r >= 0x7f { // they go into queries and commands
			return fmt.Errorf("deployment %q, build %q: the character %q has no place in a version's name", d.Name, d.Build, r)
		}
	}
	return nil
}

func (d Deployment) options() worker.DeploymentOptions {
	if d == (Deployment{}) {
		return worker.DeploymentOptions{}
	}
	return worker.DeploymentOptions{
		UseVersioning: true, Version: worker.WorkerDeploymentVersion{DeploymentName: d.Name, BuildID: d.Build},
		DefaultVersioningBehavior: workflow.VersioningBehaviorPinned,
	}
}

// polls says whether a poller is of this version; of no version, when d is zero.
func (d Deployment) polls(o *deployment.WorkerDeploymentOptions) bool {
	if o.GetWorkerVersioningMode() != enums.WORKER_VERSIONING_MODE_VERSIONED {
		return d == Deployment{}
	}
	return d == Deployment{o.GetDeploymentName(), o.GetBuildId()}
}

// reports says whether a worker's own report is of this version. A report does not tell whether its worker is
// versioned: a worker without a version may have a build, but it has no deployment.
func (d Deployment) reports(v *deployment.WorkerDeploymentVersion) bool {
	if v.GetDeploymentName() == "" {
		return d == Deployment{}
	}
	return d == Deployment{v.GetDeploymentName(), v.GetBuildId()}
}
