package temporalserver

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// ErrPortInUse is what errors.Is finds when somebody else listens on a wished port.
var ErrPortInUse = errors.New("port in use")

// portInUse is that error with its own words.
type portInUse struct{ text string }

func (e *portInUse) Error() string        { return e.text }
func (e *portInUse) Is(target error) bool { return target == ErrPortInUse }

// ports are the six the server needs; the last three are for its own services to talk to each other.
type ports struct {
	grpc, http, ui            int
	history, matching, worker int
	uiHeld                    net.Listener // keeps others off the UI's port, for which the UI asks last
}

func (ports) address(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }

// choosePorts checks the wished ports and finds free ones for the rest. All are held until every one is chosen, so
// that no number comes twice; that of the UI until the UI takes it, seconds later. The server and the UI take numbers, not listeners, and end the process when a number is taken:
// this check is where a busy port becomes a plain error.
func choosePorts(o Options) (p ports, err error) {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			if err == nil && l.Addr().(*net.TCPAddr).Port == p.ui {
				p.uiHeld = l
				continue
			}
			err = errors.Join(err, l.Close())
		}
	}()
	for _, w := range []struct {
		dst        *int
		want       int
		what, flag string
	}{ // wished ones first, or a free one might take a wished number
		{&p.grpc, o.GRPCPort, "Temporal's gRPC API", "--temporal-port"},
		{&p.http, o.HTTPPort, "Temporal's HTTP API", "--http-port"},
		{&p.ui, o.UIPort, "the Temporal UI", "--ui-port"},
	} {
		if w.want == 0 {
			continue
		}
		l, err := net.Listen("tcp", p.address(o.IP, w.want))
		if errors.Is(err, syscall.EADDRINUSE) {
			return p, &portInUse{fmt.Sprintf("temporal: port %d on %s, wanted for %s, is in use: stop the program that has it, or choose another with %s", w.want, o.IP, w.what, w.flag)}
		}
		if err != nil {
			return p, fmt.Errorf("temporal: port %d for %s: %w; choose another with %s", w.want, w.what, err, w.flag)
		}
		held = append(held, l)
		*w.dst = w.want
	}
	for _, dst := range []*int{&p.grpc, &p.http, &p.ui, &p.history, &p.matching, &p.worker} {
		if *dst != 0 {
			continue
		}
		l, err := net.Listen("tcp", p.address(o.IP, 0))
		if err != nil {
			return p, fmt.Errorf("temporal: find a free port on %s: %w", o.IP, err)
		}
		held = append(held, l)
		*dst = l.Addr().(*net.TCPAddr).Port
	}
	return p, nil
}
