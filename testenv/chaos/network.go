package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencharacter/opencharacter/testenv/faultproxy"
)

// How bad the network between a worker and its servers is.
const (
	s3Rate  = .12             // of the calls to S3 meet a fault
	netTime = 4 * time.Second // between two faults of the connection to Temporal
)

// network is what lies between the worker and the servers: a proxy for each.
type network struct {
	seed uint64
	data string

	mu       sync.Mutex
	s3       *faultproxy.S3
	temporal *faultproxy.TCP
}

func newNetwork(seed uint64, data string) *network { return &network{seed: seed, data: data} }

// address is where a server of the data directory is now; an address that nobody listens on while none is known.
func (n *network) address(of func(stackFile) string) string {
	s, err := readStack(n.data)
	if err != nil || of(s) == "" {
		return "127.0.0.1:1"
	}
	return strings.TrimPrefix(of(s), "http://")
}

// stackFile is what the servers say about themselves in the data directory.
type stackFile struct {
	PID      int    `json:"pid"`
	Temporal string `json:"temporal"`
	S3       string `json:"s3"`
	Bucket   string `json:"bucket"`
}

func readStack(data string) (s stackFile, err error) {
	b, err := os.ReadFile(filepath.Join(data, "stack.json"))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// open waits for the servers' first start, starts the proxies and gives a worker's arguments and environment.
func (n *network) open(ctx context.Context) (args, env []string, err error) {
	var s stackFile
	for s.Temporal == "" || s.S3 == "" {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		time.Sleep(20 * time.Millisecond)
		s, _ = readStack(n.data) // not there yet
	}
	var keys struct {
		AccessKey string `json:"access_key"`
		SecretKey string `json:"secret_key"`
	}
	b, err := os.ReadFile(filepath.Join(n.data, "credentials.json"))
	if err == nil {
		err = json.Unmarshal(b, &keys)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("chaos: S3 keys: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.s3, err = faultproxy.NewS3(func() string { return n.address(func(s stackFile) string { return s.S3 }) },
		faultproxy.Options{Seed: n.seed, Rate: s3Rate}); err != nil {
		return nil, nil, err
	}
	if n.temporal, err = faultproxy.NewTCP(func() string { return n.address(func(s stackFile) string { return s.Temporal }) },
		faultproxy.Options{Seed: n.seed, Every: netTime}); err != nil {
		return nil, nil, err
	}
	return []string{"--temporal", n.temporal.Addr, "--s3-endpoint", n.s3.URL, "--s3-bucket", s.Bucket},
		[]string{"AWS_ACCESS_KEY_ID=" + keys.AccessKey, "AWS_SECRET_ACCESS_KEY=" + keys.SecretKey, "AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true"}, nil
}

// counts is what the proxies did.
func (n *network) counts() map[string]int {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.s3 == nil || n.temporal == nil {
		return nil
	}
	out := map[string]int{}
	for k, v := range n.s3.Counts() {
		out["s3 "+k] = v
	}
	for k, v := range n.temporal.Counts() {
		out["temporal "+k] = v
	}
	return out
}

func (n *network) close() {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.s3 != nil {
		n.s3.Close()
		n.s3 = nil
	}
	if n.temporal != nil {
		n.temporal.Close()
		n.temporal = nil
	}
}
