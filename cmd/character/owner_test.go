package main_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var listening = regexp.MustCompile(`(?m)^ *\d+: ([0-9A-F]+):([0-9A-F]{4}) [0-9A-F:]+ 0A (?:\S+ +){5}(\d+)`)

// open lists the addresses on which the processes listen, as the kernel writes them.
func open(t *testing.T, pids []int) (addresses []string) {
	t.Helper()
	ours := map[string]bool{}
	for _, p := range pids {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p))
		for _, f := range fds {
			if to, err := os.Readlink(f); err == nil && strings.HasPrefix(to, "socket:[") {
				ours[strings.Trim(to[len("socket:"):], "[]")] = true
			}
		}
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, m := range listening.FindAllStringSubmatch(string(b), -1) {
			if ours[m[3]] {
				addresses = append(addresses, m[1])
			}
		}
	}
	return addresses
}

// TestOnlyForTheOwner: everything listens on loopback, and with the laxest umask files and folders are their owner's only.
func TestOnlyForTheOwner(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := m.command(append([]string{"up", "--codec-key-file", m.key("k")}, ports(t)...)...)
	lax := exec.Command("sh", append([]string{"-c", `umask 000; exec "$@"`, "sh"}, c.Args...)...)
	lax.SysProcAttr = c.SysProcAttr
	m.await(lax, func(line string) bool { return strings.Contains(line, "Temporal UI") })
	addresses := open(t, append(children(lax.Process.Pid), lax.Process.Pid))
	if len(addresses) < 5 { // gRPC, HTTP, UI, S3, codec
		t.Errorf("only %d sockets listen: the test is blind", len(addresses))
	}
	for _, a := range addresses {
		if a != "0100007F" && a != "0000000000000000FFFF00000100007F" && a != "00000000000000000000000001000000" {
			t.Errorf("listens on %s, which is not loopback", a)
		}
	}
	for name, want := range map[string]fs.FileMode{
		".": 0o700, "logs": 0o700, "s3": 0o700, "temporal": 0o700, "credentials.json": 0o600, "stack.json": 0o600, "temporal/temporal.db": 0o600,
		"logs/worker.log": 0o600, "logs/s3.log": 0o600, "logs/stack.log": 0o600, "logs/temporal.log": 0o600,
	} {
		if st, err := os.Stat(filepath.Join(m.data, name)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", name, st, err, want)
		}
	}
	// Without the keys of credentials.json S3 answers nobody.
	res, err := http.Get(m.info().S3 + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("S3 without keys: %s", res.Status)
	}
	// The JSON API answers nobody under a foreign name: a page there would have had its name point here.
	for host, want := range map[string]int{"": http.StatusOK, "evil.example": http.StatusForbidden} {
		req, _ := http.NewRequest(http.MethodGet, "http://"+m.info().TemporalHTTP+"/api/v1/namespaces/default/workflows", nil)
		req.Host = host
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("JSON API as %q: %s", host, res.Status)
		}
	}
	killAll(t, lax)
	for _, address := range []string{"0.0.0.0", "::", "192.0.2.1", "example.com"} {
		out, err := m.command("up", "--bind", address).CombinedOutput()
		x, ok := err.(*exec.ExitError)
		if !ok || x.ExitCode() != 2 || !bytes.Contains(out, []byte("tunnel")) {
			t.Errorf("up --bind %s: %v\n%s", address, err, out)
		}
	}
}
