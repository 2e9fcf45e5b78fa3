package temporalserver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
)

// ErrDamaged: the server's file is no database any more, or not a whole one.
var ErrDamaged = errors.New("damaged")

// Check looks whether the file of a server in dir is there (else fs.ErrNotExist), whole (else ErrDamaged) and of a release that this
// program can open. No server may run on it.
func Check(ctx context.Context, dir string) error {
	db := filepath.Join(dir, dbName)
	f, err := os.Open(db)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("temporal: %s: %w", db, fs.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("temporal: %w", err)
	}
	const magic = "SQLite format 3\x00"
	var head [len(magic)]byte
	_, err = io.ReadFull(f, head[:])
	if err = errors.Join(err, f.Close()); err != nil || string(head[:]) != magic {
		return fmt.Errorf("temporal: %s is %w: it does not begin like a SQLite file", db, ErrDamaged)
	}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: db}).EscapedPath(), RawQuery: "mode=rw"}
	c, err := sql.Open("sqlite", u.String()) // the server's own driver
	if err != nil {
		return fmt.Errorf("temporal: open %s: %w", db, err)
	}
	var said string
	err = c.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&said)
	if ctx.Err() != nil {
		return errors.Join(fmt.Errorf("temporal: check %s: %w", db, context.Cause(ctx)), c.Close())
	}
	if err == nil && said != "ok" {
		err = errors.New(said)
	}
	if err == nil {
		err = c.QueryRowContext(ctx, "SELECT name FROM namespaces LIMIT 1").Scan(&said)
	}
	err = errors.Join(err, c.Close())
	switch {
	case cannotTell(err):
		return fmt.Errorf("temporal: %s cannot be checked: %w; make room on its disk, or mend the disk or the rights on the file: it may be whole", db, err)
	case err != nil:
		return fmt.Errorf("temporal: %s is %w: %w", db, ErrDamaged, err)
	}
	return checkVersion(db, filepath.Join(dir, versionName))
}

// cannotTell is true for errors of SQLite that are the machine's and not the file's: to look at a file that was not closed in order,
// SQLite must write beside it.
func cannotTell(err error) bool {
	var e interface{ Code() int }
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff { // the rest is detail
	case 5, 6, 7, 8, 10, 13, 14: // busy, locked, out of memory, read-only, input or output, full, cannot open
		return true
	}
	return false
}
