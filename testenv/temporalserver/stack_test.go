package temporalserver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/opencharacter/opencharacter/testenv/stack"
)

// Package stack is tested here: one test binary with a Temporal server inside is enough.

const s3ChildEnv = "CHARACTER_S3_CHILD=1" // see s3server.Main

// dirEnv tells the S3 process of one stack from those of the tests that run beside.
func dirEnv(dir string) string { return "STACK_TEST_DIR=" + dir }

func stackOptions(dir string) stack.Options {
	return stack.Options{Dir: dir, S3Args: []string{"-test.run=^$"}, S3Env: []string{s3ChildEnv, dirEnv(dir)}, SearchAttributes: map[string]string{"Stage": "Keyword"}}
}

func stopStack(t *testing.T, s *stack.Stack) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func TestStack(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "data")
	if _, alive, err := stack.Read(dir); alive || err != nil {
		t.Fatalf("before the first start: alive %v, %v", alive, err)
	}
	s, err := stack.Up(ctx, stackOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { stopStack(t, s) }()
	for _, name := range []string{"stack.json", "credentials.json"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "stack.json")); err != nil || bytes.Contains(b, []byte(s.SecretKey)) {
		t.Errorf("stack.json holds the secret key, or: %v", err)
	}
	info, alive, err := stack.Read(dir)
	if err != nil || !alive || info != s.Info || !info.Ready {
		t.Errorf("Read = %+v, %v, %v, want %+v", info, alive, err, s.Info)
	}
	_, err = stack.Up(ctx, stackOptions(dir))
	var used *stack.InUseError
	if !errors.Is(err, stack.ErrInUse) || !errors.As(err, &used) || used.Info.UI != s.UI || !strings.Contains(err.Error(), s.UI) || !strings.Contains(err.Error(), "--data") {
		t.Errorf("second Up: %v", err)
	}

	c := s3Client(info)
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(info.Bucket)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(info.Bucket), Key: aws.String("k"), Body: strings.NewReader("v")}); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "linux" {
		killed := killS3(t, dir)
		if killed == 0 {
			t.Fatal("found no S3 process to kill")
		}
	}
	// The SDK's own retries bridge the outage.
	if got := getObject(t, c, info.Bucket, "k"); got != "v" {
		t.Errorf("after kill -9 of the S3 server: %q", got)
	}
	first := s.Info
	stopStack(t, s)
	if _, alive, err := stack.Read(dir); alive || err != nil {
		t.Errorf("after Stop: alive %v, %v", alive, err)
	}
	if s, err = stack.Up(ctx, stackOptions(dir)); err != nil {
		t.Fatal(err)
	}
	if s.UI != first.UI || s.Temporal != first.Temporal || s.TemporalHTTP != first.TemporalHTTP || s.S3 != first.S3 || s.SecretKey != first.SecretKey {
		t.Errorf("second start moved: %+v, was %+v", s.Info, first)
	}
	if got := getObject(t, s3Client(s.Info), info.Bucket, "k"); got != "v" {
		t.Errorf("after a second start: %q", got)
	}
}

func TestStackRefusals(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	port := busy.Addr().(*net.TCPAddr).Port
	tests := []struct {
		name  string
		files map[string]string
		o     func(*stack.Options)
		want  []string
	}{
		{"S3 port busy", nil, func(o *stack.Options) { o.S3Port = port }, []string{strconv.Itoa(port), "--s3-port"}},
		{"Temporal port busy", nil, func(o *stack.Options) { o.TemporalPort = port }, []string{strconv.Itoa(port), "in use", "--temporal-port"}},
		{"no directory", nil, func(o *stack.Options) { o.Dir = "" }, []string{"Options.Dir"}},
		{"credentials", map[string]string{"credentials.json": "{}"}, nil, []string{"credentials.json", "delete it"}},
		{"state", map[string]string{"stack.json": "{"}, nil, []string{"stack.json", "delete"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			o := stackOptions(dir)
			if tt.o != nil {
				tt.o(&o)
			}
			s, err := stack.Up(t.Context(), o)
			if err == nil {
				stopStack(t, s)
				t.Fatal("started")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q not in: %v", w, err)
				}
			}
			if _, alive, err := stack.Read(dir); alive && o.Dir != "" {
				t.Errorf("the directory stays locked: %v", err)
			}
		})
	}
}

func s3Client(i stack.Info) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(i.S3), Region: "us-east-1", UsePathStyle: true, RetryMaxAttempts: 10,
		Credentials: credentials.NewStaticCredentialsProvider(i.AccessKey, i.SecretKey, ""),
	})
}

func getObject(t *testing.T, c *s3.Client, bucket, key string) string {
	t.Helper()
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(key)})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// killS3 kills the S3 server of the stack on dir, and gives how many there were.
func killS3(t *testing.T, dir string) (n int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		var pid, parent int
		var state string
		rest := string(b[bytes.LastIndexByte(b, ')')+1:]) // the name may hold anything
		if _, err := fmt.Sscan(rest, &state, &parent); err != nil || parent != os.Getpid() {
			continue
		}
		if _, err := fmt.Sscan(string(b), &pid); err != nil {
			t.Fatal(err)
		}
		env, err := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		if err == nil && bytes.Contains(env, []byte(dirEnv(dir)+"\x00")) && syscall.Kill(pid, syscall.SIGKILL) == nil {
			n++
		}
	}
	return n
}
