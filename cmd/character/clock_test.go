package main

import (
	"strings"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/store"
)

func TestClockNews(t *testing.T) {
	for by, word := range map[time.Duration]string{0: "", 9 * time.Second: "", -9 * time.Second: "", time.Hour: "1h0m0s ahead", -time.Hour: "set back by 1h0m0s"} {
		if got := clockNews(by); (word == "") != (got == "") || !strings.Contains(got, word) {
			t.Errorf("%v: %q", by, got)
		}
	}
	// Two readings of a clock that nobody touched.
	a := time.Now()
	b := time.Now()
	if d := jump(a, b).Abs(); d > time.Second {
		t.Errorf("a jump of %v", d)
	}
}

// TestDoctorFuture: objects from the future say that a clock was set back.
func TestDoctorFuture(t *testing.T) {
	now := time.Now()
	v := &activities.Inventory{Objects: map[string]store.Object{"a": {Modified: now.Add(-time.Hour)}, "b": {Modified: now.Add(time.Minute)}}}
	if got := checkFuture(v, now); len(got) != 0 {
		t.Errorf("a minute: %+v", got)
	}
	v.Objects["c"] = store.Object{Modified: now.Add(time.Hour)}
	got := checkFuture(v, now)
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	want(t, got[0], levelNote, "1h0m0s from now", "character repair")
}
