package chaos_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/testenv/chaos"
)

// The test binary plays the program: a parent, with a child in a process group of its own that ignores signals.
func TestMain(m *testing.M) {
	switch os.Getenv("CHAOS_ROLE") {
	case "parent":
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "CHAOS_ROLE=child")
		child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := child.Start(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Printf("URL http://127.0.0.1:%d\nchild is %d\n", 4242, child.Process.Pid)
		_ = child.Wait()
	case "child":
		time.Sleep(time.Hour)
	case "three":
		fmt.Print("last words, no newline")
		os.Exit(3)
	default:
		code := m.Run()
		if err := chaos.Clean(); err != nil {
			fmt.Println(err)
			code = 1
		}
		os.Exit(code)
	}
}

func TestKill9(t *testing.T) {
	p := chaos.Start(t, os.Args[0], chaos.Options{Env: []string{"CHAOS_ROLE=parent"}})
	if m := p.WaitFor(`^URL (http://\S+)$`, time.Minute); m[0] != "http://127.0.0.1:4242" {
		t.Errorf("submatches %q", m)
	}
	var child int
	if _, err := fmt.Sscan(strings.TrimPrefix(p.WaitFor("child is [0-9]+", time.Minute)[0], "child is "), &child); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "linux" {
		if d := p.Descendants(); len(d) != 1 || d[0] != child {
			t.Errorf("descendants %v, want %d", d, child)
		}
	}
	p.Kill9()
	if code := p.Wait(time.Minute); code != -1 {
		t.Errorf("exit code %d", code)
	}
	if runtime.GOOS == "linux" {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child)); err == nil && !strings.Contains(string(b), ") Z ") {
			t.Errorf("the child lives: %s", b)
		}
	}
	p.Kill9() // harmless
}

func TestRun(t *testing.T) {
	out, code := chaos.Run(t, os.Args[0], chaos.Options{Env: []string{"CHAOS_ROLE=three"}}, time.Minute)
	if out != "last words, no newline" || code != 3 {
		t.Errorf("output %q, code %d", out, code)
	}
	p := chaos.Start(t, os.Args[0], chaos.Options{Env: []string{"CHAOS_ROLE=three"}})
	p.WaitFor("no newline", time.Minute) // a last line needs no newline
}

func TestBuild(t *testing.T) {
	exe := chaos.Build(t, "../../testenv/chaos/testdata/hello", "")
	if again := chaos.Build(t, "../../testenv/chaos/testdata/hello", ""); again != exe {
		t.Errorf("built twice: %s and %s", exe, again)
	}
	if out, code := chaos.Run(t, exe, chaos.Options{}, time.Minute); code != 0 || out != "hello\n" {
		t.Errorf("output %q, code %d", out, code)
	}
	if got := chaos.Build(t, "", exe); got != exe {
		t.Errorf("prebuilt %s", got)
	}
}
