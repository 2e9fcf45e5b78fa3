package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// fullDisk is the room under which neither Temporal nor S3 can be relied on to write.
const fullDisk = 16 << 20

func freeBytes(dir string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return fs.Bavail * uint64(fs.Bsize), nil
}

// leastRoom is the room without which not even a server can start.
const leastRoom = 1 << 20

// roomToStart refuses to start on a full disk: a server that cannot write says so late, and in words of its own. What only
// reads, or makes room, needs next to nothing.
func roomToStart(dir string, work bool, free func(string) (uint64, error)) error {
	at := existing(dir)
	n, err := free(at)
	if err != nil {
		return fmt.Errorf("look at the disk of %s: %w; choose another --data", dir, err)
	}
	if n >= fullDisk || !work && n >= leastRoom {
		return nil
	}
	return fmt.Errorf("the disk of %s is full (%d KB free): nothing can be started on it, and nothing already made is lost; make room (%d MB at least) and give the same command again. "+
		"`character gc` needs %d MB to start, and shows what no run needs; old logs and temporal.damaged-* folders of the data directory can go", dir, n>>10, fullDisk>>20, leastRoom>>20)
}

// existing is dir, or the folder above it that exists: the data directory may not be there yet.
func existing(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// watchDisk says when the disk of the data directory is full, and when there is room again. Runs only wait meanwhile,
// and without this line nobody would know what for.
func watchDisk(dir string, warn io.Writer, done <-chan struct{}) {
	full := false
	for {
		if free, err := freeBytes(dir); err == nil && warn != nil && (free < fullDisk) != full {
			full = !full
			if full {
				fmt.Fprintf(warn, "\ncharacter: the disk of %s is full (%d MB free): runs wait, nothing already made is lost; make room and they go on\n", dir, free>>20)
			} else {
				fmt.Fprintf(warn, "\ncharacter: there is room on the disk of %s again: runs go on\n", dir)
			}
		}
		select {
		case <-done:
			return
		case <-time.After(2 * time.Second):
		}
	}
}
