//go:build !noserver

package s3server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/opencharacter/opencharacter/testenv/s3server"
)

const parentEnv = "CHARACTER_S3_TEST_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentEnv); dir != "" {
		parent(dir)
		return
	}
	s3server.Main(m)
}

// parent is a process that owns a server and waits to be killed.
func parent(dir string) {
	s, err := s3server.Start(context.Background(), s3server.Options{Dir: dir, SecretKey: "x", Env: []string{"CHARACTER_S3_CHILD=1", parentEnv + "="}})
	if err != nil {
		fmt.Println("ERROR", err)
		os.Exit(1)
	}
	fmt.Println("ENDPOINT", s.Endpoint)
	time.Sleep(time.Hour)
}

func client(s *s3server.Server) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(s.Endpoint), Region: "us-east-1", UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, ""),
	})
}

func put(t *testing.T, c *s3.Client, key, body string) {
	t.Helper()
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: &key, Body: strings.NewReader(body)})
	if err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, c *s3.Client, key string) string {
	t.Helper()
	o, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Body.Close()
	b, err := io.ReadAll(o.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestServeStopServeAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	before, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	s := s3server.ForTestDir(t, dir)
	c := client(s)
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")}); err != nil {
		t.Fatal(err)
	}
	put(t, c, "a/one", "first")
	if _, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("a/copy"), CopySource: aws.String("bucket/a/one")}); err != nil {
		t.Fatalf("copy: %v", err)
	}
	if after, _ := os.Getwd(); after != before {
		t.Errorf("working directory moved from %s to %s", before, after)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "bucket", "a", "one")); err != nil || string(b) != "first" {
		t.Errorf("object as a plain file: %q, %v", b, err)
	}
	if _, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: aws.String("a/copy")}); err != nil {
		t.Fatalf("delete: %v", err)
	}
	s.Stop()
	if err := s.Wait(); err != nil {
		t.Errorf("Wait after Stop: %v", err)
	}
	again := s3server.ForTestDir(t, dir)
	if got := get(t, client(again), "a/one"); got != "first" {
		t.Errorf("after a restart: %q", got)
	}
}

func TestMultipartComplete(t *testing.T) {
	t.Parallel()
	c := client(s3server.ForTest(t))
	b, k := aws.String("bucket"), aws.String("m/big")
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: b}); err != nil {
		t.Fatal(err)
	}
	plain := func(o *s3.Options) { o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired }
	up, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: b, Key: k}, plain)
	if err != nil {
		t.Fatal(err)
	}
	part, err := c.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: b, Key: k, UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("multipart")}, plain)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{Bucket: b, Key: k, UploadId: up.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: part.ETag}}}}, plain)
	if err != nil {
		t.Fatal(err)
	}
	if got := get(t, c, "m/big"); got != "multipart" {
		t.Errorf("read back %q", got)
	}
}

func TestWrongSecretIsRefused(t *testing.T) {
	t.Parallel()
	s := s3server.ForTest(t)
	wrong := &s3server.Server{Endpoint: s.Endpoint, AccessKey: s.AccessKey, SecretKey: "other"}
	if _, err := client(wrong).ListBuckets(t.Context(), nil); err == nil {
		t.Fatal("a wrong secret key was accepted")
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	child := []string{"CHARACTER_S3_CHILD=1"}
	for name, tc := range map[string]struct {
		o    s3server.Options
		want string
	}{
		"all interfaces": {s3server.Options{Dir: t.TempDir(), Addr: ":9000"}, "not on loopback"},
		"other machine":  {s3server.Options{Dir: t.TempDir(), Addr: "10.0.0.1:9000"}, "not on loopback"},
		"no port":        {s3server.Options{Dir: t.TempDir(), Addr: "127.0.0.1"}, "missing port"},
		"no dir":         {s3server.Options{}, "Dir is empty"},
		"dir is a file":  {s3server.Options{Dir: file, Env: child}, "data folder"},
		"busy port":      {s3server.Options{Dir: t.TempDir(), Addr: l.Addr().String(), Env: child}, "port in use"},
		"no program":     {s3server.Options{Dir: t.TempDir(), Exe: file}, "start"},
		"child says no":  {s3server.Options{Dir: t.TempDir(), Exe: "/bin/false"}, "ended before it was ready"},
		"child is mute":  {s3server.Options{Dir: t.TempDir(), Exe: "/bin/sleep", Args: []string{"60"}, StartTimeout: 200 * time.Millisecond}, "not ready in time"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.o.SecretKey = "secret-word"
			s, err := s3server.Start(t.Context(), tc.o)
			if err == nil {
				s.Stop()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not contain %q", err, tc.want)
			}
			if strings.Contains(err.Error(), "secret-word") {
				t.Errorf("the secret is in the error: %v", err)
			}
		})
	}
	if _, err := s3server.Start(t.Context(), s3server.Options{Dir: t.TempDir()}); err == nil {
		t.Error("an empty secret key was accepted")
	}
}

func TestUnexpectedEndIsSeen(t *testing.T) {
	t.Parallel()
	s := s3server.ForTest(t)
	p, err := os.FindProcess(s.PID())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("Done stays open")
	}
	if err := s.Wait(); err == nil || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("Wait: %v", err)
	}
}

func TestSecondServerOnOneFolderIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s3server.ForTestDir(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	_, err := s3server.Start(ctx, s3server.Options{Dir: dir, SecretKey: "x", Env: []string{"CHARACTER_S3_CHILD=1"}})
	if err == nil || !strings.Contains(err.Error(), "already served") {
		t.Fatalf("second server: %v", err)
	}
}

func TestHalfMadeBucketIsRepaired(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bucket"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := client(s3server.ForTestDir(t, dir))
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")}); err != nil {
		t.Fatalf("create after a cut-off create: %v", err)
	}
	put(t, c, "k", "v")
}

// The server must never outlive a parent that was killed without a chance to clean up.
func TestServerDiesWithKilledParent(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), parentEnv+"="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	endpoint, ok := strings.CutPrefix(strings.TrimSpace(line), "ENDPOINT ")
	if err != nil || !ok {
		t.Fatalf("parent said %q, %v", line, err)
	}
	resp, err := http.Get(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(endpoint, "http://")
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("the server still listens 10 s after its parent was killed")
		}
		time.Sleep(20 * time.Millisecond)
	}
}
