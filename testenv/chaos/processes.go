package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// process is a living process of a run, found by its command line: every one but the S3 server's names the data directory.
type process struct {
	pid  int
	args []string
}

// processes lists what runs on a data directory: the commands that name it and all that these have started.
func processes(data string) []process {
	var out []process
	seen := map[int]bool{}
	add := func(pid int) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || seen[pid] || !running(pid) {
			return
		}
		seen[pid] = true
		out = append(out, process{pid, strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")})
	}
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is right
	for _, path := range all {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil || !slices.Contains(strings.Split(string(b), "\x00"), data) {
			continue
		}
		add(pid)
		for _, child := range descendants(pid) {
			add(child)
		}
	}
	return out
}

// role is worker, s3, temporal (the process with the Temporal server) or client.
func (p process) role(data string) string {
	switch {
	case slices.Contains(p.args, "_s3"):
		return "s3"
	case slices.Contains(p.args, "worker"):
		return "worker"
	}
	if stackPID(data) == p.pid {
		return "temporal"
	}
	return "client"
}

// stackPID is the process that holds the data directory's servers, as it says itself; 0 when there is none.
func stackPID(data string) int {
	s, err := readStack(data)
	if err != nil {
		return 0
	}
	return s.PID
}

// withRole lists process ids by role; "" is every role.
func withRole(data, role string) []int {
	var out []int
	for _, p := range processes(data) {
		if role == "" || p.role(data) == role {
			out = append(out, p.pid)
		}
	}
	return out
}

func signalAll(pids []int, s syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, s) // it may have ended by itself
	}
}
