package main

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

func TestIsDead(t *testing.T) {
	own := localIdentity()
	if isDead(own) {
		t.Errorf("this process is dead: %s", own)
	}
	child := exec.Command(os.Args[0], "-test.run=^$")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	f := strings.Split(own, "/")
	with := func(i int, s string) string {
		g := append([]string{}, f...)
		g[i] = s
		return strings.Join(g, "/")
	}
	if ended := with(2, strconv.Itoa(child.Process.Pid)); !isDead(ended) {
		t.Errorf("%s is alive", ended)
	}
	if before := with(3, "1"); runtime.GOOS == "linux" && !isDead(before) {
		t.Errorf("%s: a process that has the number of an older one is taken for it", before)
	}
	// Of these nobody here can tell.
	for _, s := range []string{"", "1234@host@", with(0, "worker"), with(1, "elsewhere"), with(2, "x"), with(2, "-1"), with(2, "0"), own + "/x"} {
		if isDead(s) {
			t.Errorf("%q is dead", s)
		}
	}
}
