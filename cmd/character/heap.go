package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"
)

// heapProfiles is for whoever looks for leaks (bench/soak): with CHARACTER_HEAP_PROFILES=DIR each process of a stack
// looks into DIR twice a second, and when the file "wanted" there has a new word, it collects its garbage and writes
// ROLE-WORD.heap (for go tool pprof) and ROLE-WORD.json (the runtime's counts). ROLE is the command's name.
func heapProfiles(ctx context.Context, dir string, args []string) {
	role := "character"
	for _, a := range args {
		if a == "up" || a == "worker" || a == "_s3" {
			role = strings.TrimPrefix(a, "_")
			break
		}
	}
	if role == "character" { // commands that end soon
		return
	}
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(500 * time.Millisecond):
		}
		b, err := os.ReadFile(filepath.Join(dir, "wanted"))
		word := strings.TrimSpace(string(b))
		if err != nil || word == "" || word == last || filepath.Base(word) != word {
			continue
		}
		last = word
		if err := writeHeap(filepath.Join(dir, role+"-"+word)); err != nil {
			fmt.Fprintln(os.Stderr, "character: CHARACTER_HEAP_PROFILES:", err)
		}
	}
}

// writeHeap writes path.heap and then path.json, whole.
func writeHeap(path string) (err error) {
	runtime.GC()
	runtime.GC() // what pools held went in the first
	f, err := os.Create(path + ".heap")
	if err != nil {
		return err
	}
	if err := errors.Join(pprof.Lookup("heap").WriteTo(f, 0), f.Close()); err != nil {
		return err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b, err := json.Marshal(map[string]uint64{"heap_alloc": m.HeapAlloc, "heap_inuse": m.HeapInuse, "heap_idle": m.HeapIdle, "heap_released": m.HeapReleased,
		"stack_inuse": m.StackInuse, "sys": m.Sys, "goroutines": uint64(runtime.NumGoroutine())})
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".json.part", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".json.part", path+".json")
}
