package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// service is a command that is started again whenever it ends, as a user or an init system would.
type service struct {
	name string
	exe  string
	args []string
	env  []string
	log  string // file that takes its output
	// ended is told of each end with what the command wrote since its start; true ends the service.
	ended func(output string, code int) bool
	gate  *sync.RWMutex // who holds it for writing keeps the command from starting

	starts int
}

// keep runs the service until it is over or ctx ends; then it is asked to end, and killed after a minute.
func (s *service) keep(ctx context.Context) error {
	f, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("chaos: %w", err)
	}
	defer func() { _ = f.Close() }()
	for ctx.Err() == nil {
		st, err := f.Stat()
		if err != nil {
			return fmt.Errorf("chaos: %w", err)
		}
		from := st.Size()
		cmd := exec.Command(s.exe, s.args...)
		cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), s.env...), f, f
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		s.gate.RLock()
		err = cmd.Start()
		s.gate.RUnlock()
		if err != nil {
			return fmt.Errorf("chaos: start %s: %w", s.name, err)
		}
		s.starts++
		code, err := wait(ctx, cmd)
		if err != nil {
			return fmt.Errorf("chaos: %s: %w", s.name, err)
		}
		end, err := f.Stat()
		if err != nil {
			return fmt.Errorf("chaos: %w", err)
		}
		said := make([]byte, end.Size()-from)
		if _, err := f.ReadAt(said, from); err != nil {
			return fmt.Errorf("chaos: read %s: %w", s.log, err)
		}
		_, _ = fmt.Fprintf(f, "--- %s %s ended with code %d\n", time.Now().Format("15:04:05.000"), s.name, code) // a note for people
		if s.ended != nil && s.ended(string(said), code) {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
	return nil
}

func wait(ctx context.Context, cmd *exec.Cmd) (code int, err error) {
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM) // if it has ended, Wait says so
		select {
		case err = <-done:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			err = <-done
		}
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}
