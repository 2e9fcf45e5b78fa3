package workers

import (
	"strings"
	"testing"

	"go.temporal.io/api/deployment/v1"
	"go.temporal.io/api/enums/v1"
)

func TestDeploymentNames(t *testing.T) {
	for _, d := range []Deployment{{}, {"character", "1.2.3"}, {"team-a_character", "0f3c2a+b:c"}} {
		if err := d.Check(); err != nil {
			t.Errorf("%+v: %v", d, err)
		}
	}
	for _, d := range []Deployment{{"", "1"}, {"character", ""}, {"a.b", "1"}, {"a:b", "1"}, {"__a", "1"}, {"a", "__1"}, {"a", "1\n2"}, {"a", `1"`}, {"a b", "1"}, {"a", "é"}, {"a", strings.Repeat("1", 200)}} {
		if err := d.Check(); err == nil {
			t.Errorf("%+v passes", d)
		}
	}
	if o := (Deployment{}).options(); o.UseVersioning {
		t.Errorf("versioned by default: %+v", o)
	}
}

// TestLanesOfAVersion: chunks are counted for the workers of the run's own version.
func TestLanesOfAVersion(t *testing.T) {
	one, two := Deployment{"character", "1"}, Deployment{"character", "2"}
	poller := func(d Deployment) *deployment.WorkerDeploymentOptions {
		return &deployment.WorkerDeploymentOptions{DeploymentName: d.Name, BuildId: d.Build, WorkerVersioningMode: enums.WORKER_VERSIONING_MODE_VERSIONED}
	}
	report := func(d Deployment) *deployment.WorkerDeploymentVersion {
		return &deployment.WorkerDeploymentVersion{DeploymentName: d.Name, BuildId: d.Build}
	}
	for _, c := range []struct {
		name      string
		got, want bool
	}{
		{"own poller", one.polls(poller(one)), true},
		{"another version's", one.polls(poller(two)), false},
		{"an unversioned one", one.polls(nil), false},
		{"unversioned, own", Deployment{}.polls(nil), true},
		{"unversioned with a build", Deployment{}.polls(&deployment.WorkerDeploymentOptions{BuildId: "x", WorkerVersioningMode: enums.WORKER_VERSIONING_MODE_UNVERSIONED}), true},
		{"unversioned, a version's", Deployment{}.polls(poller(one)), false},
		{"own report", one.reports(report(one)), true},
		{"another version's report", one.reports(report(two)), false},
		{"report without a version", one.reports(nil), false},
		{"unversioned, own report", Deployment{}.reports(nil), true},
		{"unversioned report with a build", Deployment{}.reports(&deployment.WorkerDeploymentVersion{BuildId: "checksum"}), true},
		{"unversioned, a version's report", Deployment{}.reports(report(one)), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: counts %v", c.name, c.got)
		}
	}
}
