package main

import (
	"testing"

	"github.com/opencharacter/opencharacter/activities"
)

func TestDoctorVersions(t *testing.T) {
	everywhere := func(builds ...string) map[string]map[string]bool {
		m := map[string]map[string]bool{}
		for _, q := range []string{activities.DataQueue, activities.TeacherQueue, activities.EngineQueue} {
			m[q] = map[string]bool{}
			for _, b := range builds {
				m[q][b] = true
			}
		}
		return m
	}
	if got := checkVersions(versioned{polled: everywhere("")}); len(got) != 0 {
		t.Errorf("no versions: %+v", got)
	}
	current := map[string]string{"character": "2"}
	pinned := map[string][]string{"character:1": {"old"}, "character:2": {"new"}}
	if got := checkVersions(versioned{polled: everywhere("character:1", "character:2"), current: current, pinned: pinned}); len(got) != 0 {
		t.Errorf("a deploy under way: %+v", got)
	}
	got := checkVersions(versioned{polled: everywhere("character:2"), current: current, pinned: pinned})
	if len(got) != 1 {
		t.Fatalf("a build is gone: %+v", got)
	}
	want(t, got[0], levelFail, "build 1 of deployment character has no worker, and old stay on it", "--build-id 1", "Moving a run")
	got = checkVersions(versioned{polled: everywhere("character:2"), current: map[string]string{"character": ""}})
	if len(got) != 1 {
		t.Fatalf("nothing is current: %+v", got)
	}
	want(t, got[0], levelFail, "no build of deployment character is the current one", "set-current-version")
	if got := checkVersions(versioned{polled: everywhere("", "character:2"), current: map[string]string{"character": ""}}); len(got) != 0 {
		t.Errorf("workers without a version take the runs: %+v", got)
	}
	lacks := everywhere("character:2")
	delete(lacks[activities.EngineQueue], "character:2")
	got = checkVersions(versioned{polled: lacks, current: current})
	if len(got) != 1 {
		t.Fatalf("a queue is not served: %+v", got)
	}
	want(t, got[0], levelFail, activities.EngineQueue, "--build-id 2")
}
