package faultproxy

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// TCP is a proxy in front of any server. Faults come by time: all connections end, or none is taken for a while, or
// nothing passes for a while.
type TCP struct {
	counter
	// Addr is host:port for clients.
	Addr string

	o        Options
	upstream func() string
	listener net.Listener
	over     chan struct{}
	running  sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	away   bool
	silent chan struct{} // closed when bytes may pass
}

// NewTCP starts a proxy on a free port of the loopback interface. upstream gives host:port of the server for each new connection.
func NewTCP(upstream func() string, o Options) (*TCP, error) {
	if o.Every == 0 {
		o.Every = 3 * time.Second
	}
	if o.Longest == 0 {
		o.Longest = 3 * time.Second
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("faultproxy: %w", err)
	}
	p := &TCP{Addr: l.Addr().String(), o: o, upstream: upstream, listener: l, over: make(chan struct{}), conns: map[net.Conn]bool{}, silent: make(chan struct{})}
	close(p.silent)
	p.running.Go(p.accept)
	p.running.Go(p.disturb)
	return p, nil
}

// Close ends the proxy and its connections.
func (p *TCP) Close() {
	close(p.over)
	_ = p.listener.Close()
	p.mu.Lock()
	p.away = true
	p.mu.Unlock()
	p.drop()
	p.running.Wait()
}

func (p *TCP) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.carry(c) })
	}
}

// carry joins a client with the server until one of them, or a fault, ends it.
func (p *TCP) carry(client net.Conn) {
	defer func() { _ = client.Close() }()
	p.mu.Lock()
	away := p.away
	p.mu.Unlock()
	if away {
		p.reset(client)
		return
	}
	server, err := net.DialTimeout("tcp", p.upstream(), 5*time.Second)
	if err != nil {
		p.reset(client)
		return
	}
	defer func() { _ = server.Close() }()
	p.add("connections")
	p.mu.Lock()
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, client)
		delete(p.conns, server)
		p.mu.Unlock()
	}()
	var both sync.WaitGroup
	pipe := func(to, from net.Conn) {
		_, _ = io.Copy(gated{p, to}, from) // how it ends does not matter
		_ = to.Close()
		_ = from.Close()
	}
	both.Go(func() { pipe(server, client) })
	both.Go(func() { pipe(client, server) })
	both.Wait()
}

// gated is a connection that is written to when the network is not silent.
type gated struct {
	p    *TCP
	conn net.Conn
}

func (g gated) Write(b []byte) (int, error) {
	g.p.mu.Lock()
	open := g.p.silent
	g.p.mu.Unlock()
	select {
	case <-open:
	case <-g.p.over:
	}
	return g.conn.Write(b)
}

// reset ends a connection so that the client sees a refusal.
func (p *TCP) reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

func (p *TCP) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		p.reset(c)
	}
}

// disturb makes the faults.
func (p *TCP) disturb() {
	for n := int64(0); ; n++ {
		if !p.sleep(time.Duration(2 * draw(p.o.Seed, "pause", n) * float64(p.o.Every))) {
			return
		}
		outage := time.Duration(draw(p.o.Seed, "outage", n) * float64(p.o.Longest))
		switch int(3 * draw(p.o.Seed, "tcp", n)) {
		case 0:
			p.add(Dropped)
			p.drop()
		case 1:
			p.add(Away)
			p.setAway(true)
			p.drop()
			p.sleep(outage)
			p.setAway(false)
		case 2:
			p.add(Silent)
			open := make(chan struct{})
			p.mu.Lock()
			p.silent = open
			p.mu.Unlock()
			p.sleep(outage)
			close(open)
		}
	}
}

func (p *TCP) setAway(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.over:
	default:
		p.away = away
	}
}

// sleep is false when the proxy is closed.
func (p *TCP) sleep(d time.Duration) bool {
	select {
	case <-p.over:
		return false
	case <-time.After(d):
		return true
	}
}
