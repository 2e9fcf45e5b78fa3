package main

import (
	"fmt"
	"io"
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
