package temporalserver

import (
	"errors"
	"net"
	"path/filepath"
	"testing"
)

// TestPortTakenInBetween: a port that was free when it was chosen is taken when the server asks for it. That is an error for
// which other ports can be tried, not the end of the process.
func TestPortTakenInBetween(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	o, err := Options{Dir: t.TempDir()}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	p, err := choosePorts(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.uiHeld.Close() })
	p.grpc = l.Addr().(*net.TCPAddr).Port
	s := &Server{}
	if s.log, err = openLog(filepath.Join(o.Dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.log.close() })
	if err := prepareFile(o); err != nil {
		t.Fatal(err)
	}
	err = s.survive(func() error {
		srv, err := newServer(o, p, s.log.logger)
		if err == nil {
			err = srv.Stop()
		}
		return err
	})
	if !errors.Is(err, ErrPortInUse) {
		t.Errorf("%v", err)
	}
}
