package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

// Front takes TLS connections from other machines for a server that listens on loopback only, and only from clients with a
// certificate of its authority: what docs/security.md asks for before a server without passwords is shown to others.
type Front struct {
	listener net.Listener
	server   string
	running  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // nil when closed
}

// NewFront listens on addr. protocols are what the server speaks, as TLS names it: h2, http/1.1.
func NewFront(addr, server string, f Files, protocols ...string) (*Front, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	authority, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("cluster: %s holds no certificate", f.CA)
	}
	l, err := tls.Listen("tcp", addr, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, NextProtos: protocols})
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	front := &Front{listener: l, server: server, conns: map[net.Conn]bool{}}
	front.running.Go(front.accept)
	return front, nil
}

// Addr is host:port for clients.
func (f *Front) Addr() string { return f.listener.Addr().String() }

func (f *Front) accept() {
	for {
		c, err := f.listener.Accept()
		if err != nil {
			return // closed
		}
		f.running.Go(func() { f.carry(c) })
	}
}

// carry joins a client with the server until one of them ends it.
func (f *Front) carry(client net.Conn) {
	defer f.forget(client)
	if !f.keep(client) || client.(*tls.Conn).Handshake() != nil { // who has no certificate learns it by the handshake
		return
	}
	server, err := net.Dial("tcp", f.server)
	if err != nil {
		return // to the client: the connection ends, as if there were no front
	}
	defer f.forget(server)
	if !f.keep(server) {
		return
	}
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.(*net.TCPConn).CloseWrite()
	})
	_, _ = io.Copy(client, server)
	f.forget(client)
	up.Wait()
}

func (f *Front) keep(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conns != nil {
		f.conns[c] = true
	}
	return f.conns != nil
}

func (f *Front) forget(c net.Conn) {
	f.mu.Lock()
	delete(f.conns, c)
	f.mu.Unlock()
	_ = c.Close() // a second time, perhaps
}

// Close ends it and all connections.
func (f *Front) Close() error {
	err := f.listener.Close()
	f.mu.Lock()
	conns := f.conns
	f.conns = nil
	f.mu.Unlock()
	for c := range conns {
		_ = c.Close() // whatever it was at
	}
	f.running.Wait()
	return err
}
