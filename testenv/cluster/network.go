// Package cluster makes several computers out of one, so that a test can run a fleet: each machine has a network of its own, joined
// with the others' by a bridge, a host name and processes of its own. A machine can lose its power, its cable can be pulled and put
// back, and others can join. It also puts PostgreSQL on a machine, and TLS in front of a server.
//
// It is made of Linux namespaces inside one user namespace, so it needs no root, and nothing of it touches the network of the
// computer itself: the addresses exist inside only. All ends with the process that made it, however that ends. Start reading at New.
package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrUnsupported is what errors.Is finds when this computer does not permit network namespaces, or lacks the programs for them.
var ErrUnsupported = errors.New("network namespaces are not to be had here")

// subnet is inside the namespaces only: no packet of it reaches the computer's own network.
const subnet = "10.77.0."

// Network is a bridge in a namespace of its own, with machines on it.
type Network struct {
	hub *Machine

	mu       sync.Mutex
	machines []*Machine
}

// Machine is one computer of a network.
type Machine struct {
	Name string
	Addr string // IP address, that the network's machines reach

	network *Network
	holder  *exec.Cmd // ends when its standard input closes; all processes of the machine end with it
	stdin   io.Closer
	pid     int // of the machine's first process, as the computer sees it
	off     sync.Once
}

// New makes a network without machines.
func New(ctx context.Context) (*Network, error) {
	for _, name := range []string{"unshare", "nsenter", "ip", "hostname", "sh", "cat"} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, fmt.Errorf("cluster: %w: %w; install util-linux, iproute2 and hostname (Linux only)", ErrUnsupported, err)
		}
	}
	hub, err := hold(ctx, "hub", exec.Command("unshare", append([]string{"--user", "--map-root-user"}, spaces("hub")...)...))
	if err != nil {
		return nil, fmt.Errorf("cluster: %w: %w; is kernel.unprivileged_userns_clone off, or a container's profile in the way?", ErrUnsupported, err)
	}
	n := &Network{hub: hub}
	if err := hub.run(ctx, "ip link set lo up && ip link add lan type bridge && ip link set lan up"); err != nil {
		hub.PowerOff()
		return nil, fmt.Errorf("cluster: %w: %w", ErrUnsupported, err)
	}
	return n, nil
}

// spaces are the arguments of unshare for one machine: all that make it one, and the name that it gives itself. What it says is its
// first process's number.
func spaces(name string) []string {
	return []string{"--net", "--uts", "--pid", "--fork", "--kill-child", "sh", "-c",
		"hostname " + name + ` && read pid rest </proc/self/stat && echo "$pid" && exec cat >/dev/null`}
}

// hold starts the first process of a machine.
func hold(ctx context.Context, name string, c *exec.Cmd) (*Machine, error) {
	m := &Machine{Name: name, holder: c}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said bytes.Buffer
	c.Stderr = &said
	var err error
	if m.stdin, err = c.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	line := make(chan string, 1)
	go func() {
		s, _ := bufio.NewReader(out).ReadString('\n') // nothing: it has ended, and said why
		line <- s
	}()
	select {
	case s := <-line:
		if m.pid, err = strconv.Atoi(strings.TrimSpace(s)); err == nil {
			return m, nil
		}
		err = errors.New("it ended at once")
	case <-time.After(time.Minute):
		err = errors.New("not there after a minute")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	m.PowerOff()
	return nil, fmt.Errorf("machine %s: %w: %s", name, err, bytes.TrimSpace(said.Bytes()))
}

// Machine adds a machine. Its name becomes its host name: letters, digits and dashes.
func (n *Network) Machine(ctx context.Context, name string) (*Machine, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || name == "" {
		return nil, fmt.Errorf("cluster: machine %q: want small letters, digits and dashes", name)
	}
	number := len(n.machines) + 1
	if number > 254 {
		return nil, errors.New("cluster: a network has room for 254 machines")
	}
	args := append([]string{"--target", strconv.Itoa(n.hub.pid), "--user", "--preserve-credentials", "--", "unshare"}, spaces(name)...)
	m, err := hold(ctx, name, exec.Command("nsenter", args...))
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	m.network, m.Addr = n, subnet+strconv.Itoa(number)
	n.machines = append(n.machines, m)
	cable := m.cable(number)
	err = n.hub.run(ctx, fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d && ip link set %s master lan up", cable, m.pid, cable))
	if err == nil {
		err = m.run(ctx, "ip link set lo up && ip addr add "+m.Addr+"/24 dev eth0 && ip link set eth0 up")
	}
	if err != nil {
		m.PowerOff()
		return nil, fmt.Errorf("cluster: machine %s: %w", name, err)
	}
	return m, nil
}

func (*Machine) cable(number int) string { return "cable" + strconv.Itoa(number) }

// Pull pulls the machine's network cable: what was under way is neither delivered nor refused.
func (m *Machine) Pull(ctx context.Context) error { return m.plug(ctx, "down") }

// Plug puts the cable back.
func (m *Machine) Plug(ctx context.Context) error { return m.plug(ctx, "up") }

func (m *Machine) plug(ctx context.Context, state string) error {
	number, err := strconv.Atoi(strings.TrimPrefix(m.Addr, subnet))
	if err == nil {
		err = m.network.hub.run(ctx, "ip link set "+m.cable(number)+" "+state)
	}
	if err != nil {
		return fmt.Errorf("cluster: cable of machine %s: %w", m.Name, err)
	}
	return nil
}

// Command is a command that will run on the machine, in a process group of its own. Files are the computer's.
func (m *Machine) Command(name string, args ...string) *exec.Cmd {
	return m.enter([]string{"--net", "--uts", "--pid"}, name, args...)
}

func (m *Machine) enter(spaces []string, name string, args ...string) *exec.Cmd {
	all := append([]string{"--target", strconv.Itoa(m.pid), "--user", "--preserve-credentials"}, spaces...)
	c := exec.Command("nsenter", append(append(all, "--", name), args...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return c
}

// Kill kills a command of [Machine.Command], and what it started in its group, with -9.
func Kill(c *exec.Cmd) { Signal(c, syscall.SIGKILL) }

// Signal sends a signal to a command of [Machine.Command] and what it started in its group.
func Signal(c *exec.Cmd, s syscall.Signal) {
	if c.Process != nil {
		_ = syscall.Kill(-c.Process.Pid, s) // it may have ended
	}
}

// run runs a shell command on the machine's network and waits for its end. It sees the computer's processes, not the machine's: a
// cable is laid by their numbers.
func (m *Machine) run(ctx context.Context, script string) error {
	c := m.enter([]string{"--net"}, "sh", "-c", script)
	stop := context.AfterFunc(ctx, func() { Kill(c) })
	defer stop()
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, bytes.TrimSpace(out))
	}
	return nil
}

// PowerOff ends every process of the machine at once, as loss of power does. It does not come back.
func (m *Machine) PowerOff() {
	m.off.Do(func() {
		_ = m.stdin.Close()
		Kill(m.holder)
		_ = m.holder.Wait() // killed
	})
}

// Close ends every process of every machine.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.machines {
		m.PowerOff()
	}
	n.hub.PowerOff()
}
