package temporalserver_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/testenv/temporalserver"
)

// twoSteps needs two signals: a test can kill something between them.
func twoSteps(ctx workflow.Context) (string, error) {
	var a, b string
	workflow.GetSignalChannel(ctx, "step").Receive(ctx, &a)
	if err := workflow.Sleep(ctx, 10*time.Millisecond); err != nil {
		return "", err
	}
	workflow.GetSignalChannel(ctx, "step").Receive(ctx, &b)
	return a + b, nil
}

var stage = temporal.NewSearchAttributeKeyKeyword("Stage")

// One server: everything a user meets on it, then a second start on the same file.
func TestServer(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	o := temporalserver.Options{Dir: filepath.Join(t.TempDir(), "a dir"), SearchAttributes: map[string]string{"Stage": "Keyword"}}
	s, err := temporalserver.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, s.Address)

	// Ready means ready: no waiting, no retry.
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "one", TaskQueue: "q", TypedSearchAttributes: temporal.NewSearchAttributes(stage.ValueSet("dpo"))}, twoSteps)
	if err != nil {
		t.Fatalf("start a workflow at once: %v", err)
	}
	ns, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	if got := ns.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration(); got != 30*24*time.Hour {
		t.Errorf("retention = %v", got)
	}
	for url, want := range map[string]string{
		s.UIURL + "/": "<html",
		s.UIURL + "/api/v1/namespaces/default/workflows/one":                   `"workflowId":"one"`,
		"http://" + s.HTTPAddress + "/api/v1/namespaces/default/workflows/one": `"one"`,
	} {
		if got := fetch(t, http.MethodGet, url, ""); !strings.Contains(got, want) {
			t.Errorf("GET %s: no %s in %.300s", url, want, got)
		}
	}
	fetch(t, http.MethodPost, "http://"+s.HTTPAddress+"/api/v1/namespaces/default/workflows/two", `{"workflowType":{"name":"twoSteps"},"taskQueue":{"name":"q"}}`)

	if _, err := temporalserver.Start(ctx, o); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("already in use by pid %d", os.Getpid())) || !strings.Contains(err.Error(), "--data") {
		t.Errorf("second start on the same directory: %v", err)
	}
	stop(t, s)

	o.SearchAttributes["Loss"] = "Double"
	o.Retention = 48 * time.Hour
	o.Namespace = "default"
	if s, err = temporalserver.Start(ctx, o); err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	c = dial(t, s.Address)
	loss := temporal.NewSearchAttributeKeyFloat64("Loss")
	if _, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "three", TaskQueue: "q", TypedSearchAttributes: temporal.NewSearchAttributes(loss.ValueSet(0.69))}, twoSteps); err != nil {
		t.Errorf("a search attribute added to an old file: %v", err)
	}
	if ns, err = c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: "default"}); err != nil {
		t.Fatal(err)
	}
	if got := ns.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration(); got != o.Retention {
		t.Errorf("retention of the old file = %v", got)
	}
	w := worker.New(c, "q", worker.Options{})
	w.RegisterWorkflow(twoSteps)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for _, id := range []string{"one", "two"} {
		for _, v := range []string{"a", "b"} {
			if err := c.SignalWorkflow(ctx, id, "", "step", v); err != nil {
				t.Fatal(err)
			}
		}
		var got string
		if err := c.GetWorkflow(ctx, id, "").Get(ctx, &got); err != nil || got != "ab" {
			t.Errorf("workflow %s = %q, %v", id, got, err)
		}
	}
	_ = run

	o.SearchAttributes = map[string]string{"Stage": "Double"}
	stop(t, s)
	if s, err := temporalserver.Start(ctx, o); err == nil || !strings.Contains(err.Error(), "Stage is a Keyword") {
		if err == nil {
			stop(t, s)
		}
		t.Errorf("another type for an attribute: %v", err)
	}
}

// kill -9 between two steps of a workflow, and a start on the same file.
func TestKill(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	o := temporalserver.Options{Dir: t.TempDir(), GRPCPort: freePort(t)}
	addr := fmt.Sprintf("127.0.0.1:%d", o.GRPCPort)
	first := startChild(t, o)
	c := dial(t, addr)
	w := worker.New(c, "q", worker.Options{})
	w.RegisterWorkflow(twoSteps)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "half", TaskQueue: "q"}, twoSteps)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SignalWorkflow(ctx, run.GetID(), "", "step", "a"); err != nil {
		t.Fatal(err)
	}
	first.kill()
	if first.said.Len() > 0 {
		t.Errorf("the server wrote to the terminal: %s", first.said)
	}
	startChild(t, o)
	if err := c.SignalWorkflow(ctx, run.GetID(), "", "step", "b"); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := run.Get(ctx, &got); err != nil || got != "ab" {
		t.Fatalf("after the restart: %q, %v", got, err)
	}
}

// A start that was killed in the middle of its set-up leaves nothing that harms the next.
func TestHalfMadeFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"temporal.db.new-1-1", "temporal.db.new-1-1-journal", "temporal.db-wal", "temporal.db-shm"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("SQLite format 3\x00 half made"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := temporalserver.Start(t.Context(), temporalserver.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	stop(t, s)
	if left, _ := filepath.Glob(filepath.Join(dir, "*.new*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// Every refusal says what, where and what next.
func TestRefusals(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	port := busy.Addr().(*net.TCPAddr).Port
	db := func(files ...string) string {
		dir := t.TempDir()
		for i := 0; i < len(files); i += 2 {
			if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	tests := []struct {
		name string
		o    temporalserver.Options
		want []string
	}{
		{"no directory", temporalserver.Options{}, []string{"Options.Dir is empty"}},
		{"not loopback", temporalserver.Options{Dir: db(), IP: "0.0.0.0"}, []string{`"0.0.0.0"`, "no authentication", "127.0.0.1"}},
		{"not an address", temporalserver.Options{Dir: db(), IP: "localhost"}, []string{`"localhost"`, "127.0.0.1"}},
		{"gRPC port busy", temporalserver.Options{Dir: db(), GRPCPort: port}, []string{fmt.Sprint(port), "in use", "--temporal-port"}},
		{"HTTP port busy", temporalserver.Options{Dir: db(), HTTPPort: port}, []string{fmt.Sprint(port), "in use", "--http-port"}},
		{"UI port busy", temporalserver.Options{Dir: db(), UIPort: port}, []string{fmt.Sprint(port), "in use", "--ui-port"}},
		{"short retention", temporalserver.Options{Dir: db(), Retention: time.Hour}, []string{"1h", "24h"}},
		{"attribute type", temporalserver.Options{Dir: db(), SearchAttributes: map[string]string{"Loss": "Float"}}, []string{"Loss", `"Float"`, "Double"}},
		{"too many attributes", temporalserver.Options{Dir: db(), SearchAttributes: map[string]string{"a": "Text", "b": "Text", "c": "Text", "d": "Text"}}, []string{"more than 3"}},
		{"other server", temporalserver.Options{Dir: db("temporal.db", "x", "version.json", `{"server":"1.29.1"}`)}, []string{"temporal.db", "1.29.1", "--data OTHER"}},
		{"unknown maker", temporalserver.Options{Dir: db("temporal.db", "x")}, []string{"version.json", "not made by this program", "--data OTHER"}},
		{"damaged version", temporalserver.Options{Dir: db("temporal.db", "x", "version.json", `{"serv`)}, []string{"version.json", "--data OTHER"}},
		{"damaged file", temporalserver.Options{Dir: db("temporal.db", strings.Repeat("not SQLite. ", 999), "version.json", `{"server":"1.32.1"}`)}, []string{"temporal.db", "damaged", "move"}},
		{"directory is a file", temporalserver.Options{Dir: filepath.Join(db("f", "x"), "f")}, []string{"directory", "f"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := temporalserver.Start(t.Context(), tt.o)
			if err == nil {
				stop(t, s)
				t.Fatal("started")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q not in: %v", w, err)
				}
			}
			// A refusal leaves the directory free.
			if tt.o.Dir != "" {
				if _, err := temporalserver.Start(t.Context(), tt.o); err != nil && strings.Contains(err.Error(), "already in use") {
					t.Error(err)
				}
			}
		})
	}
}

// A start whose context has ended gives up, cleans up, and says why.
func TestCanceledStart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if _, err := temporalserver.Start(ctx, temporalserver.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Fatalf("error = %v", err)
	}
}

// fetch gives the answer without blanks, which the JSON encoder sprinkles at random.
func fetch(t *testing.T, method, url, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		t.Errorf("%s %s: %s %s", method, url, res.Status, b)
	}
	return strings.ReplaceAll(string(b), " ", "")
}

// TestOwner: a server serves its owner and those who name nobody, and is not there for others.
func TestOwner(t *testing.T) {
	t.Parallel()
	s, err := temporalserver.Start(t.Context(), temporalserver.Options{Dir: t.TempDir(), Owner: "me"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	for _, c := range []struct {
		means  temporalserver.Headers // "" sends none
		served bool
	}{{"", true}, {"me", true}, {"you", false}} {
		o := client.Options{HostPort: s.Address, Logger: silent{}}
		if c.means != "" {
			o.HeadersProvider = c.means
		}
		c2, err := client.NewLazyClient(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err = c2.WorkflowService().GetClusterInfo(ctx, &workflowservice.GetClusterInfoRequest{})
		cancel()
		c2.Close()
		if (err == nil) != c.served || err != nil && !strings.Contains(err.Error(), "another data directory") {
			t.Errorf("%q: %v", c.means, err)
		}
	}
}
