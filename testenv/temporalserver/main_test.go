package temporalserver_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"

	"github.com/opencharacter/opencharacter/testenv/s3server"
	"github.com/opencharacter/opencharacter/testenv/temporalserver"
)

// childEnv makes this test binary a server process, so that a test can kill it.
const childEnv = "TEMPORALSERVER_TEST_OPTIONS"

func TestMain(m *testing.M) {
	if o := os.Getenv(childEnv); o != "" {
		serve(o)
		return
	}
	if o := os.Getenv(fleetEnv); o != "" && !s3server.IsChild() {
		fmt.Println("ERROR", serveFleet(o))
		os.Exit(1)
	}
	s3server.Main(m)
}

func serve(options string) {
	var o temporalserver.Options
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		fmt.Println("ERROR", err)
		os.Exit(1)
	}
	s, err := temporalserver.Start(context.Background(), o)
	if err != nil {
		fmt.Println("ERROR", err)
		os.Exit(1)
	}
	fmt.Println("READY", s.Address)
	<-s.Failed()
	fmt.Println("ERROR", s.Err())
	os.Exit(1)
}

// child is a server in a process of its own.
type child struct {
	cmd  *exec.Cmd
	said *strings.Builder // after the READY line; complete after kill
	done chan struct{}
}

func startChild(t *testing.T, o temporalserver.Options) *child {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+string(b))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd, said: &strings.Builder{}, done: make(chan struct{})}
	t.Cleanup(c.kill)
	lines := bufio.NewScanner(out)
	ready := make(chan string, 1)
	go func() {
		defer close(c.done)
		if lines.Scan() {
			ready <- lines.Text()
		}
		for lines.Scan() {
			fmt.Fprintln(c.said, lines.Text())
		}
	}()
	select {
	case line := <-ready:
		if !strings.HasPrefix(line, "READY ") {
			t.Fatalf("the server process said %q", line)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("the server process is not ready after two minutes")
	}
	return c
}

// kill is kill -9.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may be dead already
	<-c.done
	_ = c.cmd.Wait()
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func dial(t *testing.T, addr string) client.Client {
	t.Helper()
	c, err := client.NewLazyClient(client.Options{HostPort: addr, Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

type silent struct{}

var _ log.Logger = silent{}

func (silent) Debug(string, ...any) {}
func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}

func stop(t *testing.T, s *temporalserver.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
}
