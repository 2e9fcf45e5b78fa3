package temporalserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"go.temporal.io/server/common/log"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// maxLog is where a log is put aside (as NAME.1) at the next start.
const maxLog = 16 << 20

// serverLog is the server's logger on a file. The server reports errors it cannot live with as fatal log lines,
// which would end the process; here they end the goroutine and close fatal instead.
type serverLog struct {
	path   string
	file   *logFile
	logger log.Logger
	once   sync.Once
	fatal  chan struct{}
	err    error // set before fatal is closed
}

func openLog(path string) (*serverLog, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("temporal: log: %w", err)
	}
	if st, err := os.Stat(path); err == nil && st.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("temporal: log: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("temporal: log: %w", err)
	}
	l := &serverLog{path: path, file: &logFile{f: f}, fatal: make(chan struct{})}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(log.DefaultZapEncoderConfig), l.file, zap.WarnLevel)
	l.logger = log.NewZapLogger(zap.New(core, zap.WithFatalHook(l)))
	return l, nil
}

// OnWrite is called by zap after a fatal line is written.
func (l *serverLog) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	l.once.Do(func() {
		l.err = errors.New(e.Message)
		for _, f := range fields {
			if err, ok := f.Interface.(error); ok {
				l.err = fmt.Errorf("%s: %w", e.Message, err)
			}
		}
		close(l.fatal)
	})
	runtime.Goexit()
}

// failure is the error of the fatal line, once fatal is closed. A port that somebody took since it was chosen is ErrPortInUse.
func (l *serverLog) failure() error {
	if errors.Is(l.err, syscall.EADDRINUSE) {
		return &portInUse{l.err.Error()}
	}
	return l.err
}

func (l *serverLog) close() error { return l.file.close() }

// logFile takes what the server's last goroutines say after its Stop has come back, and drops it.
type logFile struct {
	mu sync.Mutex
	f  *os.File // nil when closed
}

func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return len(p), nil
	}
	return l.f.Write(p)
}

func (*logFile) Sync() error { return nil }

func (l *logFile) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.f
	l.f = nil
	return f.Close()
}
