package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"go.temporal.io/sdk/log"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
)

// Logs are the values of the flags.
type Logs struct {
	Format string // console or json
	Level  string // debug, info, warn, error; "" = warn on a console, info in JSON
}

// Register adds the flags.
func (l *Logs) Register(fs flagSet) {
	fs.StringVar(&l.Format, "log-format", "console", "console, or json: everything that is said is one JSON object a line on standard error, for a log collector")
	fs.StringVar(&l.Level, "log-level", "", "debug, info, warn or error (default: warn on a console, info in JSON)")
}

// JSON says whether a collector reads.
func (l Logs) JSON() bool { return l.Format == "json" }

// Check refuses wrong values.
func (l Logs) Check() error {
	if l.Format != "console" && l.Format != "json" {
		return fmt.Errorf("--log-format %q: want console or json", l.Format)
	}
	_, err := l.level()
	return err
}

func (l Logs) level() (zapcore.Level, error) {
	name := l.Level
	if name == "" {
		name = map[bool]string{true: "info", false: "warn"}[l.JSON()]
	}
	level, err := zapcore.ParseLevel(name)
	if err != nil || level > zapcore.ErrorLevel {
		return level, fmt.Errorf("--log-level %q: want debug, info, warn or error", l.Level)
	}
	return level, nil
}

// Start makes w the place of what is logged: slog's default logger and, by [Temporal], the Temporal SDK's. It returns the
// logger.
func (l Logs) Start(w io.Writer) (*slog.Logger, error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	level, _ := l.level() // checked
	c := zap.NewProductionEncoderConfig()
	c.TimeKey, c.MessageKey, c.StacktraceKey, c.CallerKey = "time", "msg", "", ""
	c.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoder := zapcore.NewConsoleEncoder(c)
	if l.JSON() {
		encoder = zapcore.NewJSONEncoder(c)
	}
	const never = slog.Level(127)
	logger := slog.New(zapslog.NewHandler(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), level), zapslog.AddStacktraceAt(never)))
	setDefault(logger)
	return logger, nil
}

// Quiet is the logger of commands that take no such flags: warnings, on standard error.
func Quiet() {
	setDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
}

// setDefault also takes what libraries say through package log: as warnings, or it would be lost.
func setDefault(l *slog.Logger) {
	slog.SetLogLoggerLevel(slog.LevelWarn)
	slog.SetDefault(l)
}

// Temporal is the SDK's logger: it says what slog's default logger says.
func Temporal() log.Logger { return log.NewStructuredLogger(slog.Default()) }

// Lines is a writer that logs each line that is written to it.
func Lines(l *slog.Logger, level slog.Level) io.Writer { return &lines{logger: l, level: level} }

type lines struct {
	logger *slog.Logger
	level  slog.Level
	mu     sync.Mutex
	rest   []byte // of a line that is not whole yet
}

// maxLine is where a line without an end is cut.
const maxLine = 64 << 10

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole && len(l.rest) < maxLine {
			return len(p), nil
		}
		if !whole {
			line, rest = l.rest, nil
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			l.logger.Log(context.Background(), l.level, string(line))
		}
		l.rest = bytes.Clone(rest)
	}
}
