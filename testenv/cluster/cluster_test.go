package cluster_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/testenv/cluster"
)

// serveEnv makes this test binary a server on that address: it tells everybody its host's name.
const serveEnv = "CLUSTER_TEST_SERVE"

func TestMain(m *testing.M) {
	if addr := os.Getenv(serveEnv); addr != "" {
		serve(addr)
	}
	os.Exit(m.Run())
}

func serve(addr string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("READY")
	for {
		c, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		host, _ := os.Hostname()
		_, _ = fmt.Fprintln(c, host, c.RemoteAddr())
		_ = c.Close()
	}
}

func newNetwork(t *testing.T) *cluster.Network {
	t.Helper()
	n, err := cluster.New(t.Context())
	if errors.Is(err, cluster.ErrUnsupported) && !strings.Contains(os.Getenv("CHARACTER_REQUIRE"), "netns") {
		t.Skipf("%v (CHARACTER_REQUIRE=netns makes this a failure)", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func machine(t *testing.T, n *cluster.Network, name string) *cluster.Machine {
	t.Helper()
	m, err := n.Machine(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// listen serves on a machine's port 7000.
func listen(t *testing.T, m *cluster.Machine) *exec.Cmd {
	t.Helper()
	c := m.Command(os.Args[0], "-test.run=^$")
	c.Env = append(os.Environ(), serveEnv+"="+m.Addr+":7000")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "READY\n" {
		t.Fatalf("%q %v", line, err)
	}
	return c
}

// ask is what the server of one machine tells another, by the shell's own means.
func ask(t *testing.T, from, to *cluster.Machine) (string, error) {
	t.Helper()
	c := from.Command("timeout", "5", "bash", "-c", "cat </dev/tcp/"+to.Addr+"/7000")
	out, err := c.Output()
	return strings.TrimSpace(string(out)), err
}

func TestMachines(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	if _, err := exec.LookPath("bash"); err != nil {
		t.Fatal("needs bash to open a connection: install it")
	}
	one, two := machine(t, n, "one"), machine(t, n, "two")
	c := listen(t, one)
	said, err := ask(t, two, one)
	if err != nil || !strings.HasPrefix(said, "one "+two.Addr+":") {
		t.Errorf("over the network: %q %v", said, err)
	}
	// The computer itself has no part in that network.
	if addrs, err := net.InterfaceAddrs(); err != nil {
		t.Error(err)
	} else {
		for _, a := range addrs {
			if strings.HasPrefix(a.String(), one.Addr[:strings.LastIndex(one.Addr, ".")+1]) {
				t.Errorf("the computer has the address %v", a)
			}
		}
	}
	if err := one.Pull(t.Context()); err != nil {
		t.Fatal(err)
	}
	if said, err := ask(t, two, one); err == nil {
		t.Errorf("without a cable: %q", said)
	}
	if err := one.Plug(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ { // addresses are looked up again
		if said, err = ask(t, two, one); err == nil {
			break
		}
		if i == 12 {
			t.Fatalf("with the cable in again: %q %v", said, err)
		}
	}
	three := machine(t, n, "three")
	if said, err := ask(t, three, one); err != nil || !strings.HasPrefix(said, "one ") {
		t.Errorf("a machine that joined: %q %v", said, err)
	}
	one.PowerOff()
	if err := c.Wait(); err == nil {
		t.Error("a process outlives its machine")
	}
	if said, err := ask(t, two, one); err == nil {
		t.Errorf("a machine without power answers %q", said)
	}
	if _, err := n.Machine(t.Context(), "a b"); err == nil {
		t.Error("a machine named \"a b\"")
	}
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	m, other := machine(t, n, "database"), machine(t, n, "other")
	p, err := cluster.StartPostgres(t.Context(), m, filepath.Join(t.TempDir(), "pg"), "the-password")
	if errors.Is(err, cluster.ErrNoPostgres) && !strings.Contains(os.Getenv("CHARACTER_REQUIRE"), "postgres") {
		t.Skipf("%v (CHARACTER_REQUIRE=postgres makes this a failure)", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	psql := func(password, query string) (string, error) {
		host, port, _ := net.SplitHostPort(p.Addr)
		c := other.Command("psql", "--no-psqlrc", "-AtX", "-h", host, "-p", port, "-U", p.User, "-d", "postgres", "-c", query)
		c.Env = append(os.Environ(), "PGPASSWORD="+password)
		out, err := c.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if _, err := exec.LookPath("psql"); err != nil {
		t.Skip("needs psql to ask it something")
	}
	if out, err := psql("wrong", "SELECT 1"); err == nil {
		t.Errorf("another password: %s", out)
	}
	if out, err := psql("the-password", "CREATE TABLE t AS SELECT 7 AS x"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	p.Kill()
	if out, err := psql("the-password", "SELECT x FROM t"); err == nil {
		t.Errorf("it lives: %s", out)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := psql("the-password", "SELECT x FROM t"); err != nil || out != "7" {
		t.Errorf("after kill -9: %q %v", out, err)
	}
}

func TestFront(t *testing.T) {
	t.Parallel()
	a, err := cluster.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	front := issue(t, a, "front", "127.0.0.1")
	f, err := cluster.NewFront("127.0.0.1:0", server.Addr().String(), front, "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	client := issue(t, a, "client")
	other, err := cluster.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	echo := func(with *cluster.Files) error {
		c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
		ca, err := os.ReadFile(front.CA)
		if err != nil || !c.RootCAs.AppendCertsFromPEM(ca) {
			t.Fatal(err)
		}
		if with != nil {
			pair, err := tls.LoadX509KeyPair(with.Cert, with.Key)
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		conn, err := (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", f.Addr())
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "hello"); err != nil {
			return err
		}
		if err := conn.(*tls.Conn).CloseWrite(); err != nil {
			return err
		}
		b, err := io.ReadAll(conn)
		if err == nil && string(b) != "hello" {
			err = fmt.Errorf("it said %q", b)
		}
		return err
	}
	if err := echo(&client); err != nil {
		t.Error(err)
	}
	foreign := issue(t, other, "client")
	for name, with := range map[string]*cluster.Files{"no certificate": nil, "another authority's": &foreign} {
		if err := echo(with); err == nil {
			t.Errorf("%s: let in", name)
		}
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := echo(&client); err == nil {
		t.Error("a closed front takes connections")
	}
}

func issue(t *testing.T, a *cluster.Authority, name string, addresses ...string) cluster.Files {
	t.Helper()
	f, err := a.Issue(name, addresses...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
