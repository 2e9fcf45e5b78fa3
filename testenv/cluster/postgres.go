package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrNoPostgres is what errors.Is finds when this computer has no PostgreSQL server.
var ErrNoPostgres = errors.New("PostgreSQL is not installed")

// Postgres is a PostgreSQL server on a machine of the network, or on this computer.
type Postgres struct {
	Addr     string // host:port
	User     string // may make databases
	Password string

	host, port string
	from       string // who may connect, as a subnet
	run        func(name string, args ...string) *exec.Cmd
	dir        string
	bin        func(name string) string
	mu         sync.Mutex
	cmd        *exec.Cmd
	done       chan struct{}
}

// postgresPort is the usual one: a machine has all its ports.
const postgresPort = "5432"

// someone is a user that is not root inside a user namespace of its own, whoever started the test: PostgreSQL refuses to run as root.
// Its processes are in a namespace of their own too, so that all of them end with the first.
var someone = []string{"unshare", "--user", "--map-user=1000", "--map-group=1000", "--pid", "--fork", "--kill-child", "--"}

// findPostgres finds the folder of the server's programs: where the search path has them, else where Debian's package puts them.
func findPostgres() (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return "", fmt.Errorf("cluster: %w", err)
		}
		return filepath.Dir(path), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("cluster: %w: no postgres on the search path, none under /usr/lib/postgresql; install it (Debian: postgresql)", ErrNoPostgres)
	}
	return filepath.Dir(slices.Max(found)), nil
}

// StartPostgres makes an empty database cluster in dir, whose password it takes, and serves it on m. Every commit is synced to disk.
func StartPostgres(ctx context.Context, m *Machine, dir, password string) (*Postgres, error) {
	p := &Postgres{User: "temporal", Password: password, host: m.Addr, port: postgresPort, from: subnet + "0/24", dir: dir,
		run: func(name string, args ...string) *exec.Cmd {
			return m.Command(someone[0], append(append(slices.Clone(someone[1:]), name), args...)...)
		}}
	return p.begin(ctx)
}

// StartPostgresHere is [StartPostgres] on this computer: on a loopback address, host:port, for a user of any name.
func StartPostgresHere(ctx context.Context, address, dir, user, password string) (*Postgres, error) {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("cluster: PostgreSQL on %q: want a loopback address and a port", address)
	}
	p := &Postgres{User: user, Password: password, host: host, port: port, from: "127.0.0.0/8", dir: dir, run: func(name string, args ...string) *exec.Cmd {
		if os.Geteuid() == 0 {
			name, args = someone[0], append(append(slices.Clone(someone[1:]), name), args...)
		}
		c := exec.Command(name, args...)
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		return c
	}}
	return p.begin(ctx)
}

// begin makes the database cluster, if there is none, and serves it.
func (p *Postgres) begin(ctx context.Context) (*Postgres, error) {
	bin, err := findPostgres()
	if err != nil {
		return nil, err
	}
	p.Addr, p.bin = net.JoinHostPort(p.host, p.port), func(name string) string { return filepath.Join(bin, name) }
	if _, err := os.Stat(filepath.Join(p.dir, "PG_VERSION")); errors.Is(err, fs.ErrNotExist) {
		if err := p.create(ctx); err != nil {
			return nil, fmt.Errorf("cluster: make a database cluster: %w", err)
		}
	}
	return p, p.Start(ctx)
}

// create runs initdb.
func (p *Postgres) create(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(p.dir), 0o700); err != nil {
		return err
	}
	secret := p.dir + ".password"
	if err := os.WriteFile(secret, []byte(p.Password+"\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(secret) //nolint:errcheck // a test's own folder
	c := p.run(p.bin("initdb"), "--pgdata="+p.dir, "--username="+p.User, "--pwfile="+secret, "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale")
	stop := context.AfterFunc(ctx, func() { Kill(c) })
	defer stop()
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	f, err := os.OpenFile(filepath.Join(p.dir, "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("host all all " + p.from + " scram-sha-256\n")
	return errors.Join(err, f.Close())
}

// Start serves the database and returns when it takes queries. After [Postgres.Kill] it recovers first.
func (p *Postgres) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not ready after two minutes"))
	defer cancel()
	for {
		if err := p.serve(); err != nil {
			return fmt.Errorf("cluster: start PostgreSQL: %w", err)
		}
		for ended := false; !ended; {
			if p.run(p.bin("pg_isready"), "--quiet", "--host="+p.host, "--port="+p.port).Run() == nil {
				return nil
			}
			select {
			case <-p.done: // what was killed may not be gone altogether: again
				ended = true
			case <-time.After(100 * time.Millisecond):
			}
			if ctx.Err() != nil {
				Kill(p.cmd)
				return fmt.Errorf("cluster: start PostgreSQL: %w: its log ends %s", context.Cause(ctx), tail(p.dir+".log"))
			}
		}
	}
}

// serve starts the server.
func (p *Postgres) serve() error {
	c := p.run(p.bin("postgres"), "-D", p.dir, "-c", "listen_addresses="+p.host, "-c", "port="+p.port,
		"-c", "unix_socket_directories=", "-c", "max_connections=300", "-c", "shared_buffers=32MB", "-c", "dynamic_shared_memory_type=mmap")
	log, err := os.OpenFile(p.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	c.Stdout, c.Stderr = log, log
	err = errors.Join(c.Start(), log.Close()) // the server has it
	if err != nil {
		return err
	}
	done := make(chan struct{})
	p.cmd, p.done = c, done
	go func() {
		_ = c.Wait() // its log says why
		close(done)
	}()
	return nil
}

// Kill ends every process of the server with -9, as loss of power does.
func (p *Postgres) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	Kill(p.cmd)
	<-p.done
}

func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-2000):]))
}
