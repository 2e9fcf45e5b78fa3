// Package s3server runs an S3 server on this machine for development and tests: versitygw over a plain folder.
//
// Objects are ordinary files at Dir/bucket/key. The server always runs as a child process (this same binary, started
// again with a hidden subcommand), because the server library changes the working directory of its whole process.
// The child lives exactly as long as its parent: it ends when its standard input closes, and on Linux the kernel
// also kills it when the parent dies. It listens on loopback only.
//
// It does not know what is stored, and it does not restart itself: watch Server.Done. Start reading at Start; ServeChild
// is the other side. Tests call Main from TestMain and ForTest from a test.
package s3server

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Options says where and how to run the server.
type Options struct {
	Dir       string   // folder of the data; made if missing; on a filesystem with user extended attributes
	Addr      string   // host:port on loopback; "" = "127.0.0.1:0"; port 0 = any free port
	AccessKey string   // "" = "character"
	SecretKey string   // required; reaches the child through a pipe, never through its command line
	Exe       string   // program to start; "" = os.Executable()
	Args      []string // its arguments; nil = {"_s3"}; the program must then call ServeChild
	Env       []string // added to the child's environment
	LogFile   string   // what the server prints is appended here; "" = only kept for error messages

	StartTimeout time.Duration // 0 = 30 s
}

// Server is a running child process.
type Server struct {
	Endpoint  string // http://127.0.0.1:port
	AccessKey string
	SecretKey string
	Dir       string // absolute; an object is the plain file Dir/bucket/key

	pid   int
	stdin io.Closer
	kill  func() error
	done  chan struct{}
	err   error // valid after done
	tail  *tail

	stopOnce sync.Once
	stopping chan struct{}
}

// request is the first line on the child's standard input.
type request struct {
	Dir, Addr, AccessKey, SecretKey string
}

// Lines of the child on its standard output. Anything else it prints goes to the log.
const (
	readyPrefix = "CHARACTER-S3 READY "
	errorPrefix = "CHARACTER-S3 ERROR "
	busyPrefix  = "CHARACTER-S3 BUSY " // the port is taken: with a port of our choice, try another
)

// ErrPortInUse is what errors.Is finds when somebody else listens on the wished port.
var ErrPortInUse = errors.New("port in use")

// Start starts the server and returns when it accepts connections. ctx limits the start only: the server then runs
// until Stop, or until this process ends.
func Start(ctx context.Context, o Options) (*Server, error) {
	o.Addr = cmp.Or(o.Addr, "127.0.0.1:0")
	o.AccessKey = cmp.Or(o.AccessKey, "character")
	o.StartTimeout = cmp.Or(o.StartTimeout, 30*time.Second)
	if o.Args == nil {
		o.Args = []string{"_s3"}
	}
	if o.SecretKey == "" {
		return nil, errors.New("s3server: SecretKey is empty; give the embedded S3 server a secret key")
	}
	if o.Dir == "" {
		return nil, errors.New("s3server: Dir is empty; name the folder that holds the objects")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("s3server: folder %q: %w", o.Dir, err)
	}
	o.Dir = dir
	host, port, err := checkLoopback(o.Addr)
	if err != nil {
		return nil, err
	}
	if o.Exe == "" {
		if o.Exe, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("s3server: find this program to start it again: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.StartTimeout)
	defer cancel()
	// The server library cannot take an open listener, so a free port is looked up and may be lost to another
	// program before the child binds it: then try again.
	for attempt := 0; ; attempt++ {
		addr := net.JoinHostPort(host, port)
		if port == "0" {
			if addr, err = freeAddr(host); err != nil {
				return nil, err
			}
		}
		s, err := start(ctx, o, addr)
		if err == nil {
			return s, nil
		}
		if errors.Is(err, ErrPortInUse) && port == "0" && attempt < 20 && ctx.Err() == nil {
			continue
		}
		if errors.Is(err, ErrPortInUse) {
			return nil, fmt.Errorf("s3server: %s: %w; stop the program that listens there or choose another port", addr, err)
		}
		return nil, err
	}
}

// checkLoopback refuses every address that other machines could reach.
func checkLoopback(addr string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(addr)
	if err != nil {
		return "", "", fmt.Errorf("s3server: address %q: %w; write 127.0.0.1:PORT", addr, err)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", "", fmt.Errorf("s3server: address %q is not on loopback; the embedded server has no TLS, so use 127.0.0.1:PORT (for other machines run a real S3 server)", addr)
	}
	return host, port, nil
}

func freeAddr(host string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", fmt.Errorf("s3server: find a free port on %s: %w", host, err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

func start(ctx context.Context, o Options, addr string) (*Server, error) {
	req, err := json.Marshal(request{Dir: o.Dir, Addr: addr, AccessKey: o.AccessKey, SecretKey: o.SecretKey})
	if err != nil {
		return nil, fmt.Errorf("s3server: encode options: %w", err)
	}
	cmd := exec.Command(o.Exe, o.Args...)
	cmd.Env = append(os.Environ(), o.Env...)
	cmd.WaitDelay = 2 * time.Second
	dieWithParent(cmd)
	s := &Server{
		Endpoint: "http://" + addr, AccessKey: o.AccessKey, SecretKey: o.SecretKey, Dir: o.Dir,
		done: make(chan struct{}), stopping: make(chan struct{}), tail: &tail{},
	}
	var logFile *os.File
	if o.LogFile != "" {
		if err := os.MkdirAll(filepath.Dir(o.LogFile), 0o700); err != nil {
			return nil, fmt.Errorf("s3server: make the folder of the log file: %w", err)
		}
		if logFile, err = os.OpenFile(o.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return nil, fmt.Errorf("s3server: open the log file: %w", err)
		}
		s.tail.also = logFile
	}
	cmd.Stderr = s.tail
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("s3server: %w", err)
	}
	stdoutR, stdoutW := io.Pipe()
	cmd.Stdout = stdoutW
	s.stdin = stdin

	started := make(chan error, 1)
	go func() {
		// The parent-death signal of Linux is sent when the forking THREAD ends, so that thread is kept for the
		// whole life of the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			_ = stdoutW.Close()
			s.finish(err, logFile)
			return
		}
		err = cmd.Wait()
		_ = stdoutW.Close()
		s.finish(err, logFile)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("s3server: start %s: %w", o.Exe, err)
	}
	s.pid = cmd.Process.Pid
	s.kill = cmd.Process.Kill

	answer := make(chan string, 1)
	go func() {
		sc := bufio.NewScanner(stdoutR)
		for sc.Scan() {
			line := sc.Text()
			if strings.HasPrefix(line, "CHARACTER-S3 ") {
				select {
				case answer <- line:
				default:
				}
				if strings.HasPrefix(line, readyPrefix) {
					continue
				}
			}
			_, _ = s.tail.Write([]byte(line + "\n"))
		}
		_, _ = io.Copy(io.Discard, stdoutR)
	}()
	if _, err := stdin.Write(append(req, '\n')); err != nil {
		// A pipe breaks because the child has ended: what it said on the way is the better error.
		select {
		case line := <-answer:
			return s.answered(line)
		case <-s.done:
			return nil, fmt.Errorf("s3server: the child ended before it was ready: %w%s", s.err, s.said())
		case <-time.After(5 * time.Second):
		}
		s.Stop()
		return nil, fmt.Errorf("s3server: hand the options to the child: %w%s", err, s.said())
	}
	select {
	case line := <-answer:
		return s.answered(line)
	case <-s.done:
		select {
		case line := <-answer: // said why, then ended
			return s.answered(line)
		case <-time.After(time.Second):
		}
		return nil, fmt.Errorf("s3server: the child ended before it was ready: %w%s", s.err, s.said())
	case <-ctx.Done():
		s.Stop()
		return nil, fmt.Errorf("s3server: not ready in time: %w%s", ctx.Err(), s.said())
	}
}

func (s *Server) answered(line string) (*Server, error) {
	if addr, ok := strings.CutPrefix(line, readyPrefix); ok {
		s.Endpoint = "http://" + addr
		return s, nil
	}
	s.Stop()
	if text, ok := strings.CutPrefix(line, busyPrefix); ok {
		return nil, fmt.Errorf("%w: %s", ErrPortInUse, text)
	}
	text, _ := strings.CutPrefix(line, errorPrefix)
	return nil, fmt.Errorf("s3server: %s", text)
}

func (s *Server) finish(err error, logFile *os.File) {
	select {
	case <-s.stopping: // asked for: how it ended does not matter
		err = nil
	default:
		if err == nil {
			err = errors.New("exit without an error")
		}
	}
	s.tail.close()
	if logFile != nil {
		_ = logFile.Close()
	}
	s.err = err
	close(s.done)
}

// Done is closed when the child has ended, asked for or not.
func (s *Server) Done() <-chan struct{} { return s.done }

// Wait waits for the end of the child. It returns nil after Stop, and else an error with the last words of the server.
func (s *Server) Wait() error {
	<-s.done
	if s.err == nil {
		return nil
	}
	return fmt.Errorf("s3server: the S3 server (process %d) ended by itself: %w%s", s.pid, s.err, s.said())
}

// PID is the process id of the child.
func (s *Server) PID() int { return s.pid }

// Stop ends the server and returns when the process is gone. It may be called more than once.
func (s *Server) Stop() {
	s.stopOnce.Do(func() {
		close(s.stopping)
		_ = s.stdin.Close()
		select {
		case <-s.done:
			return
		case <-time.After(5 * time.Second):
		}
		_ = s.kill()
	})
	<-s.done
}

func (s *Server) said() string {
	if t := strings.TrimSpace(s.tail.text()); t != "" {
		return "; it said: " + t
	}
	return ""
}

// tail keeps the last part of what is written to it, and passes all of it on to a file.
type tail struct {
	mu   sync.Mutex
	buf  []byte
	also io.Writer
}

const tailBytes = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if n := len(t.buf); n > tailBytes {
		t.buf = append(t.buf[:0], t.buf[n-tailBytes:]...)
	}
	if t.also != nil {
		// A full disk must not stop the server: its log is the lesser good.
		_, _ = t.also.Write(p)
	}
	return len(p), nil
}

func (t *tail) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.also = nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
