package wallclock_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/testenv/wallclock"
)

// TestMain lets this program be the process whose clock is shifted: it answers each line with its wall clock and with the time
// since its start.
func TestMain(m *testing.M) {
	if os.Getenv("WALLCLOCK_CHILD") == "" {
		os.Exit(m.Run())
	}
	began := time.Now()
	go func() { // a busy reader of the clock, which the change must not catch half way
		for time.Now().Unix() != 0 {
		}
	}()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Printf("%d %d\n", time.Now().UnixMilli(), time.Since(began).Milliseconds())
	}
}

func TestShift(t *testing.T) {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "WALLCLOCK_CHILD=1", "GOMAXPROCS=2")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() }) // it never ends by itself
	answers := bufio.NewScanner(out)
	ask := func() (wall time.Time, since time.Duration) {
		t.Helper()
		if _, err := fmt.Fprintln(in); err != nil || !answers.Scan() {
			t.Fatalf("the process does not answer: %v", err)
		}
		var w, s int64
		if _, err := fmt.Sscan(answers.Text(), &w, &s); err != nil {
			t.Fatal(err)
		}
		return time.UnixMilli(w), time.Duration(s) * time.Millisecond
	}
	_, last := ask()
	for _, by := range []time.Duration{time.Hour, -time.Hour, 0, 26 * time.Hour} {
		err := wallclock.Shift(c.Process.Pid, by)
		if errors.Is(err, wallclock.ErrUnsupported) && !strings.Contains(os.Getenv("CHARACTER_REQUIRE"), "wallclock") {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		wall, since := ask()
		after := time.Now()
		if wall.Before(before.Add(by-time.Second)) || wall.After(after.Add(by+time.Second)) {
			t.Errorf("shifted by %v: the process has %v, here it is %v", by, wall, after)
		}
		if since < last || since > last+time.Minute {
			t.Errorf("shifted by %v: the steady clock went from %v to %v", by, last, since)
		}
		last = since
	}
}
