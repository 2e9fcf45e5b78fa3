package s3server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

const childEnv = "CHARACTER_S3_CHILD"

// Main runs the tests of a package whose tests use ForTest. Call it from TestMain:
//
//	func TestMain(m *testing.M) { s3server.Main(m) }
//
// In the child process that ForTest starts (the same test binary) it serves S3 instead.
func Main(m *testing.M) {
	if IsChild() {
		if err := ServeChild(nil); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if s := shared.server; s != nil {
		s.Stop()
		_ = os.RemoveAll(filepath.Dir(s.Dir))
	}
	os.Exit(code)
}

var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Shared returns one server for all tests of a test binary, started at the first call and stopped by Main. Let every test use a bucket
// or a prefix of its own.
func Shared(t testing.TB) *Server {
	t.Helper()
	shared.once.Do(func() {
		dir, err := os.MkdirTemp("", "s3server-*")
		if err != nil {
			shared.err = err
			return
		}
		shared.server, shared.err = startForTest(filepath.Join(dir, "s3"))
	})
	if shared.err != nil {
		t.Fatalf("%v (does TestMain of this package call s3server.Main?)", shared.err)
	}
	return shared.server
}

// IsChild says whether this process is the child that ForTest started, for a TestMain with duties of its own.
func IsChild() bool { return os.Getenv(childEnv) == "1" }

// ForTest starts a server on a free port over an empty folder and stops it when the test ends.
func ForTest(t testing.TB) *Server {
	t.Helper()
	return ForTestDir(t, filepath.Join(t.TempDir(), "s3"))
}

// ForTestDir is ForTest over a given folder, to start again on the data of an earlier server.
func ForTestDir(t testing.TB, dir string) *Server {
	t.Helper()
	s, err := startForTest(dir)
	if err != nil {
		t.Fatalf("%v (does TestMain of this package call s3server.Main?)", err)
	}
	t.Cleanup(s.Stop)
	return s
}

func startForTest(dir string) (*Server, error) {
	return Start(context.Background(), Options{
		Dir: dir, AccessKey: "test", SecretKey: "test-secret",
		Args: []string{"-test.run=^$"}, Env: []string{childEnv + "=1"},
	})
}
