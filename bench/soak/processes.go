package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// usage is what a process holds.
type usage struct {
	rss, heap                  float64 // MB; heap is what lives after two collections
	files, threads, goroutines int
}

func sorted[T any](m map[string]T) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// heaps asks the processes of a stack for their heaps (CHARACTER_HEAP_PROFILES=dir) and adds what they answer. The
// profiles stay in dir as ROLE-WORD.heap.
func heaps(dir, word string, into map[string]usage) error {
	if err := os.WriteFile(filepath.Join(dir, "wanted"), []byte(word), 0o600); err != nil {
		return err
	}
	for _, name := range sorted(into) {
		path := filepath.Join(dir, strings.TrimPrefix(name, "_")+"-"+word+".json")
		var b []byte
		var err error
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
			if b, err = os.ReadFile(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s did not write its heap for a minute: %w", name, err)
			}
		}
		var m struct {
			Alloc      float64 `json:"heap_alloc"`
			Goroutines int     `json:"goroutines"`
		}
		if err == nil {
			err = json.Unmarshal(b, &m)
		}
		if err != nil {
			return fmt.Errorf("heap of %s: %w", name, err)
		}
		u := into[name]
		u.heap, u.goroutines = m.Alloc/(1<<20), m.Goroutines
		into[name] = u
	}
	return nil
}

// processes measures a process and its descendants, named by their command.
func processes(pid int) (map[string]usage, error) {
	out := map[string]usage{}
	proc := fmt.Sprintf("/proc/%d", pid)
	args, err := os.ReadFile(proc + "/cmdline")
	if err == nil && len(args) == 0 { // it has ended, and nobody has looked yet
		err = os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("%w; soak needs Linux's /proc, and a stack that lives", err)
	}
	var u usage
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(status)) {
		var kb float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f", &kb); err == nil {
			u.rss = kb / 1024
		}
		_, _ = fmt.Sscanf(line, "Threads: %d", &u.threads) // other lines do not match
	}
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return nil, err
	}
	u.files = len(fds)
	out[command(strings.Split(strings.TrimRight(string(args), "\x00"), "\x00"))] = u
	tasks, _ := filepath.Glob(proc + "/task/*/children") // the pattern is well formed
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that has ended
		}
		for s := range strings.FieldsSeq(string(b)) {
			var child int
			if _, err := fmt.Sscan(s, &child); err != nil {
				return nil, err
			}
			more, err := processes(child)
			if err != nil {
				continue // a process that has ended
			}
			for n, u := range more {
				out[n] = u
			}
		}
	}
	return out, nil
}

// command is the first argument that is neither a flag nor a path.
func command(args []string) string {
	for _, a := range args[min(1, len(args)):] {
		if !strings.HasPrefix(a, "-") && !strings.ContainsRune(a, filepath.Separator) {
			return a
		}
	}
	return filepath.Base(args[0])
}
