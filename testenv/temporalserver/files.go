package temporalserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/headers"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives/timestamp"
	sqliteschema "go.temporal.io/server/schema/sqlite"
)

const (
	dbName      = "temporal.db"
	versionName = "version.json"
	lockName    = "lock"
)

// lockDir takes the directory for this process: two servers on one SQLite file are not refused by anybody else.
// The kernel gives the lock back when the process dies, however it dies.
func lockDir(dir string) (unlock func() error, err error) {
	path := filepath.Join(dir, lockName)
	l := flock.New(path)
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("temporal: lock %s: %w", path, err)
	}
	if !ok {
		owner := "another process"
		if b, err := os.ReadFile(path); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				owner = fmt.Sprintf("pid %d", pid)
			}
		}
		return nil, fmt.Errorf("temporal: %s is already in use by %s: stop that one, or use another directory with --data OTHER", dir, owner)
	}
	// Rewriting the contents keeps the file, and with it the lock.
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("temporal: write %s: %w", path, err), l.Unlock())
	}
	return l.Unlock, nil
}

// fileVersion is version.json: which server made the file beside it.
type fileVersion struct {
	Server  string    `json:"server"`
	Created time.Time `json:"created"`
}

// sqliteConfig describes one SQLite file as the server wants it: write-ahead log, each commit synced to disk.
func sqliteConfig(path string) *config.SQL {
	return &config.SQL{
		PluginName:   sqliteplugin.PluginName,
		DatabaseName: path,
		ConnectAttributes: map[string]string{
			"mode":         "rwc",
			"journal_mode": "wal",
			"synchronous":  "2", // FULL
			"busy_timeout": "10000",
		},
	}
}

// prepareFile makes the database file when it is not there, checks that this server can open it when it is, and
// registers the namespace. The server has no migrations for SQLite, so a file of another release is refused.
func prepareFile(o Options) error {
	db, ver := filepath.Join(o.Dir, dbName), filepath.Join(o.Dir, versionName)
	_, err := os.Stat(db)
	switch {
	case err == nil:
		if err := checkVersion(db, ver); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrNotExist):
		if err := createFile(o, db, ver); err != nil {
			return fmt.Errorf("temporal: set up %s: %w", db, err)
		}
	default:
		return fmt.Errorf("temporal: %w", err)
	}
	// SQLite gives the files beside it the same mode.
	if err := os.Chmod(db, 0o600); err != nil {
		return fmt.Errorf("temporal: %w", err)
	}
	if err := createNamespace(o, sqliteConfig(db)); err != nil {
		return fmt.Errorf("temporal: open %s: %w; if the file is damaged, move %s away and start anew: finished work in S3 is not touched", db, err, o.Dir)
	}
	return nil
}

func checkVersion(db, ver string) error {
	const next = "go on with the program that made it, or start with another directory (--data OTHER)"
	b, err := os.ReadFile(ver)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("temporal: %s has no %s beside it, so it was not made by this program: %s", db, versionName, next)
	}
	if err != nil {
		return fmt.Errorf("temporal: %w", err)
	}
	var v fileVersion
	if err := json.Unmarshal(b, &v); err != nil || v.Server == "" {
		return fmt.Errorf("temporal: %s does not name the server release that made %s: %s", ver, dbName, next)
	}
	// Patch releases do not change tables.
	if release(v.Server) != release(headers.ServerVersion) {
		return fmt.Errorf("temporal: %s was made by Temporal server %s and this program holds %s, whose tables differ: %s",
			db, v.Server, headers.ServerVersion, next)
	}
	return nil
}

// release is "1.32" of "1.32.1".
func release(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

// createFile makes the whole file under another name and renames it: a crash in the middle of the schema would
// leave a half-made file that nothing ever repairs.
func createFile(o Options, db, ver string) error {
	old, err := filepath.Glob(db + ".new*")
	if err != nil {
		return err
	}
	// Write-ahead files whose database is gone would be replayed into the new one.
	for _, f := range append(old, db+"-wal", db+"-shm") {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// The name is new each time: the server's connection pool keeps a handle to every name it has ever opened.
	made := sqliteConfig(fmt.Sprintf("%s.new-%d-%d", db, os.Getpid(), time.Now().UnixNano()))
	// All of it in the one file that is renamed, and one sync at the end instead of one for each table.
	made.ConnectAttributes["journal_mode"], made.ConnectAttributes["synchronous"] = "off", "0"
	if err := sqliteschema.SetupSchema(made); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	if err := errors.Join(createNamespace(o, made), syncPath(made.DatabaseName)); err != nil {
		return err
	}
	b, err := json.Marshal(fileVersion{Server: headers.ServerVersion, Created: time.Now().UTC()})
	if err != nil {
		return err
	}
	if err := writeSynced(ver, append(b, '\n')); err != nil {
		return err
	}
	if err := os.Rename(made.DatabaseName, db); err != nil {
		return err
	}
	return syncPath(o.Dir)
}

// namespaceConfig checks the search attributes too: there is room for so many of each type.
func namespaceConfig(o Options) (*sqliteschema.NamespaceConfig, error) {
	types, err := attributeTypes(o.SearchAttributes)
	if err != nil {
		return nil, err
	}
	ns, err := sqliteschema.NewNamespaceConfig(clusterName, o.Namespace, false, types)
	if err != nil {
		return nil, fmt.Errorf("temporal: namespace %s: %w", o.Namespace, err)
	}
	ns.Detail.Config.Retention = timestamp.DurationPtr(o.Retention)
	return ns, nil
}

// createNamespace writes the namespace with its search attributes into the file; it does nothing when it is there.
// Through the API a new namespace would be usable only after a refresh of the server's cache.
func createNamespace(o Options, c *config.SQL) error {
	ns, err := namespaceConfig(o)
	if err != nil {
		return err
	}
	return sqliteschema.CreateNamespaces(c, ns)
}

func writeSynced(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // after the rename there is nothing to remove
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// syncPath brings a file, or the names in a directory, to the disk.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
