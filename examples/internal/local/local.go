// Package local finds the Temporal server and the S3 server of `character up` for the examples. A program for a cluster has
// client.Options and store.Config of its own instead.
package local

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/store"
)

// Stack is where the servers are.
type Stack struct {
	Temporal  string `json:"temporal"`  // host:port
	Namespace string `json:"namespace"` // of Temporal
	S3        string `json:"s3"`        // URL
	Bucket    string `json:"bucket"`
	Ready     bool   `json:"ready"`

	keys struct {
		AccessKey string `json:"access_key"`
		SecretKey string `json:"secret_key"`
	}
}

// Find reads what `character up` has written into its data directory.
func Find(dir string) (Stack, error) {
	var s Stack
	for name, to := range map[string]any{"stack.json": &s, "credentials.json": &s.keys} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = json.Unmarshal(b, to)
		}
		if err != nil {
			return s, fmt.Errorf("find the stack of %s: %w; start it with `character up --no-worker --data %s`", dir, err, dir)
		}
	}
	if !s.Ready {
		return s, fmt.Errorf("the stack of %s is starting, or was killed: start it with `character up --no-worker --data %s`", dir, dir)
	}
	return s, nil
}

// Client is how to reach Temporal with some plugins.
func (s Stack) Client(plugins ...client.Plugin) client.Options {
	return client.Options{HostPort: s.Temporal, Namespace: s.Namespace, Plugins: plugins}
}

// Store is how to reach the bucket.
func (s Stack) Store() store.Config {
	return store.Config{Endpoint: s.S3, Bucket: s.Bucket, AccessKey: s.keys.AccessKey, SecretKey: s.keys.SecretKey}
}
