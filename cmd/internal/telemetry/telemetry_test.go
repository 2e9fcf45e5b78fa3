package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/cmd/internal/telemetry"
)

func flags(t *testing.T, args ...string) (m telemetry.Metrics, l telemetry.Logs) {
	t.Helper()
	fs := flag.NewFlagSet("test", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	m.Register(fs)
	l.Register(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return m, l
}

func TestLogs(t *testing.T) { // it changes slog's default logger: not in parallel
	was, to, how := slog.Default(), log.Writer(), log.Flags()
	defer func() {
		slog.SetDefault(was)
		log.SetOutput(to)
		log.SetFlags(how)
	}()
	for _, c := range []struct {
		args, want, not string
	}{
		{"", "warn", "info"},
		{"-log-level info", "info", "debug"},
		{"-log-format json", "info", "debug"},
		{"-log-format json -log-level error", "error", "warn"},
		{"-log-format json -log-level debug", "debug", "nothing"},
	} {
		var b bytes.Buffer
		_, l := flags(t, strings.Fields(c.args)...)
		logger, err := l.Start(&b)
		if err != nil {
			t.Fatal(err)
		}
		logger.Debug("it is debug", "n", 1)
		slog.Info("it is info", "n", 2, "group", slog.GroupValue(slog.String("in", "it")))
		telemetry.Temporal().Warn("it is warn", "error", errors.New("what went\nwrong"), "Attempt", 3)
		telemetry.Temporal().Error("it is error", "n", 4)
		log.Print("it is warn") // a library's
		text := b.String()
		if !strings.Contains(text, "it is "+c.want) || strings.Contains(text, "it is "+c.not) || !strings.Contains(text, "it is error") || strings.Count(text, "it is warn") == 1 {
			t.Errorf("%q:\n%s", c.args, text)
		}
		if !l.JSON() {
			continue
		}
		for line := range strings.Lines(text) {
			var x map[string]any
			if err := json.Unmarshal([]byte(line), &x); err != nil {
				t.Errorf("%v: %s", err, line)
			}
			if _, err := time.Parse(time.RFC3339Nano, fmt.Sprint(x["time"])); err != nil || x["msg"] != "it is "+fmt.Sprint(x["level"]) {
				t.Errorf("%v: %s", err, line)
			}
			if x["level"] == "warn" && x["Attempt"] != nil && (x["error"] != "what went\nwrong" || x["Attempt"] != 3.) {
				t.Errorf("fields are lost: %s", line)
			}
			if x["stacktrace"] != nil || x["caller"] != nil {
				t.Errorf("noise: %s", line)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-log-format xml": "want console or json", "-log-level fatal": "want debug, info, warn or error", "-log-level panic -log-format json": "want debug",
		"-metrics-address x": "HOST:PORT", "-metrics-address 0.0.0.0:1": "--metrics-remote", "-metrics-remote": "needs --metrics-address",
	} {
		m, l := flags(t, strings.Fields(args)...)
		if err := errors.Join(m.Check(), l.Check()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	if m, l := flags(t, "-metrics-address", "0.0.0.0:9464", "-metrics-remote"); errors.Join(m.Check(), l.Check()) != nil {
		t.Error("an address that was allowed is refused")
	}
}

// TestLines: what is written in any pieces comes out as lines.
func TestLines(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&b, nil))
	w := telemetry.Lines(logger, slog.LevelInfo)
	for _, s := range []string{"one", " and\n\n  two\nthr", "ee\n", strings.Repeat("x", 70<<10)} {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { _, _ = w.Write([]byte("same\n")) })
	}
	wg.Wait()
	var got []string
	for line := range strings.Lines(b.String()) {
		var x struct{ Msg string }
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			t.Fatal(err)
		}
		got = append(got, x.Msg)
	}
	if len(got) != 8 || got[0] != "one and" || got[1] != "two" || got[2] != "three" || len(got[3]) != 70<<10 || got[4] != "same" {
		t.Errorf("%d lines, %.40q", len(got), got)
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	none, err := (telemetry.Metrics{}).Start("test")
	if err != nil || none.Set != nil || none.URL != "" {
		t.Errorf("without an address: %+v, %v", none, err)
	}
	if err := none.Close(); err != nil {
		t.Error(err)
	}
	m, err := (telemetry.Metrics{Address: "127.0.0.1:0"}).Reserve()
	if err != nil || strings.HasSuffix(m.Address, ":0") {
		t.Fatalf("%+v, %v", m, err)
	}
	r, err := m.Start("test")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := m.Reserve(); err == nil || !strings.Contains(err.Error(), "choose another") {
		t.Errorf("a port in use: %v", err)
	}
	resp, err := http.Get(r.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil || !bytes.Contains(b, []byte(`character_build_info{kernels="`)) {
		t.Errorf("%v: %.300s", err, b)
	}
	if err := telemetry.Ask(t.Context(), m.Address); err == nil || !strings.Contains(err.Error(), "starting") {
		t.Errorf("while it starts: %v", err)
	}
	r.Health.Stopping()
	if err := telemetry.Ask(t.Context(), m.Address); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("while it stops: %v", err)
	}
	if err := telemetry.Ask(t.Context(), "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "is it the --metrics-address") {
		t.Errorf("nobody: %v", err)
	}
}
