package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	"go.temporal.io/api/serviceerror"
	taskqueue "go.temporal.io/api/taskqueue/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/s3server"
	"github.com/opencharacter/opencharacter/testenv/stack"
	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

// want checks one finding's level and words.
func want(t *testing.T, f finding, level string, words ...string) {
	t.Helper()
	if f.Level != level {
		t.Errorf("%+v is not %s", f, level)
	}
	for _, w := range words {
		if !strings.Contains(f.What+" "+f.Todo, w) {
			t.Errorf("%+v does not say %q", f, w)
		}
	}
	if f.Level == levelFail && f.Todo == "" {
		t.Errorf("%+v does not say what to do", f)
	}
}

func TestDoctorDisk(t *testing.T) {
	free := func(n uint64, err error) func(string) (uint64, error) {
		return func(string) (uint64, error) { return n, err }
	}
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	want(t, checkDisk(dir, free(2e9, nil)), levelOK)
	want(t, checkDisk(dir, free(5e8, nil)), levelFail, "nearly full", "0.5 GB", "character gc")
	want(t, checkDisk(dir, free(1<<20, nil)), levelFail, "full: 1 MB", "they go on")
	want(t, checkDisk(dir, free(0, errors.New("no such disk"))), levelFail, "no such disk")
}

func TestDoctorDirectory(t *testing.T) {
	want(t, checkDirectory(stack.Info{Dir: "d", PID: 7, Ready: true, UI: "http://x"}, true, nil), levelOK, "in use by pid 7", "http://x")
	want(t, checkDirectory(stack.Info{Dir: "d", PID: 7}, true, nil), levelFail, "starting")
	want(t, checkDirectory(stack.Info{Dir: "d", PID: 7}, false, nil), levelNote, "left by pid 7", "nothing is lost")
	want(t, checkDirectory(stack.Info{Dir: "d"}, false, nil), levelNote, "nothing runs")
	want(t, checkDirectory(stack.Info{}, false, errors.New("stack.json: bad")), levelFail, "stack.json: bad")
}

func TestDoctorPorts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := l.Addr().String()
	info := stack.Info{Temporal: taken, S3: "http://" + taken}
	got := checkPorts(info, false, portFree)
	if len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	want(t, got[0], levelNote, taken, "--temporal-port")
	want(t, got[1], levelNote, taken, "--s3-port")
	if got := checkPorts(info, true, portFree); len(got) != 0 {
		t.Errorf("our own ports: %+v", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := checkPorts(info, false, portFree); len(got) != 0 {
		t.Errorf("free ports: %+v", got)
	}
}

func TestDoctorCredentials(t *testing.T) {
	dir := t.TempDir()
	if got := checkSecrets(dir); len(got) != 0 {
		t.Errorf("no file: %+v", got)
	}
	path := filepath.Join(dir, "credentials.json")
	for mode, level := range map[os.FileMode]string{0o600: levelOK, 0o640: levelFail, 0o604: levelFail} {
		if err := os.WriteFile(path, []byte("{}"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		got := checkSecrets(dir)
		if len(got) != 1 {
			t.Fatal(got)
		}
		want(t, got[0], level, path)
	}
}

// runRoot is an inventory with one run.
func runRoot(id, state string, p activities.Plan) *activities.Inventory {
	return &activities.Inventory{Objects: map[string]store.Object{"runs/" + id + "/HEAD.json": {}},
		Roots: []activities.Root{{Kind: activities.RootRun, Name: id, Record: activities.Record{ID: id, State: state}, Plan: p}}}
}

func TestDoctorTemporalFile(t *testing.T) {
	v := runRoot("captain", "running", activities.Plan{})
	want(t, checkTemporalFile(stack.TemporalWhole, nil, v), levelOK)
	want(t, checkTemporalFile(stack.TemporalMissing, nil, v), levelFail, "1 unfinished", "character repair")
	want(t, checkTemporalFile(stack.TemporalMissing, nil, &activities.Inventory{}), levelNote)
	want(t, checkTemporalFile(stack.TemporalDamaged, errors.New("not a database"), v), levelFail, "not a database", "character repair")
	want(t, checkTemporalFile(stack.TemporalWhole, errors.New("made by server 1.0"), v), levelFail, "1.0")
}

func TestDoctorClocks(t *testing.T) {
	for ahead, level := range map[time.Duration]string{0: levelOK, 90 * time.Second: levelOK, 3 * time.Minute: levelFail, -16 * time.Minute: levelFail} {
		want(t, checkS3Clock(time.Time{}, ahead, nil), level, "S3")
	}
	want(t, checkS3Clock(time.Time{}, -time.Hour, nil), levelFail, "1h0m0s behind", "NTP")
	want(t, checkS3Clock(time.Time{}, 0, errors.New("away")), levelFail, "away")
	now := time.Now()
	polled := func(d time.Duration) map[string][]*taskqueue.PollerInfo {
		return map[string][]*taskqueue.PollerInfo{"q": {{LastAccessTime: timestamppb.New(now.Add(d))}, {LastAccessTime: timestamppb.New(now.Add(d - time.Hour))}}}
	}
	want(t, checkTemporalClock(polled(-50*time.Second), now), levelOK) // a long poll
	want(t, checkTemporalClock(polled(10*time.Minute), now), levelFail, "10m0s before")
	want(t, checkTemporalClock(polled(-10*time.Minute), now), levelFail, "9m0s behind")
	want(t, checkTemporalClock(nil, now), levelNote)
}

func TestDoctorWorkers(t *testing.T) {
	ours := "1@here character=abc kernels=avx512"
	polled := func(id string) map[string][]*taskqueue.PollerInfo {
		return map[string][]*taskqueue.PollerInfo{activities.EngineQueue: {{Identity: id}}}
	}
	v := runRoot("captain", "running", activities.Plan{Variant: "avx512"})
	for id, c := range map[string]struct{ level, word string }{
		"2@there character=abc kernels=avx512": {levelOK, "1 workers"},
		"2@there character=def kernels=avx512": {levelNote, "release def"},
		"2@there":                              {levelNote, "another kind"},
		"2@there character=abc kernels=avx2":   {levelFail, "captain began with avx512"},
	} {
		got := checkWorkers(polled(id), ours, v)
		if len(got) != 1 {
			t.Fatalf("%s: %+v", id, got)
		}
		want(t, got[0], c.level, c.word)
	}
	if got := checkWorkers(polled("2@there character=abc kernels=avx2"), ours, runRoot("captain", "completed", activities.Plan{Variant: "avx512"})); got[0].Level != levelOK {
		t.Errorf("a finished run does not care: %+v", got)
	}
	if id := identity(); part(id, "kernels") == "" || part(id, "character") == "" || !strings.Contains(id, fmt.Sprint(os.Getpid())) {
		t.Errorf("identity %q", id)
	}
}

func TestDoctorLostRuns(t *testing.T) {
	runs := []bucketRun{{ID: "a", Recorded: "running", Temporal: "running"}, {ID: "b", Recorded: "completed", Temporal: unknown}}
	want(t, checkLostRuns(runs)[0], levelOK)
	want(t, checkLostRuns(append(runs, bucketRun{ID: "c", Recorded: "running", Temporal: unknown}))[0], levelFail, "does not know c", "character repair")
}

func TestDoctorObjects(t *testing.T) {
	d := &doctor{}
	v := runRoot("captain", "running", activities.Plan{})
	want(t, d.checkObjects(v, nil)[0], levelOK, "--deep")
	got := d.checkObjects(v, []activities.Damage{{Key: "parts/x", What: "it is missing", Next: "`character repair captain` ..."}, {Key: "train/y", What: "cut", Next: "nothing", Harmless: true}})
	want(t, got[0], levelFail, "parts/x", "missing", "character repair captain")
	want(t, got[1], levelNote, "train/y")
}

// TestDoctorModelChanged: the model's file was changed, or removed, since the run began.
func TestDoctorModelChanged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tiny")
	if err := tinymodel.Write(dir, 1); err != nil {
		t.Fatal(err)
	}
	o := hub.Options{CacheDir: t.TempDir()}
	m, err := hub.Resolve(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	v := runRoot("captain", "running", activities.Plan{Model: activities.ModelInfo{Name: dir, SHA256: m.SHA256}})
	if got := checkModelsOfRuns(v, o); len(got) != 0 {
		t.Fatalf("the same file: %+v", got)
	}
	if err := tinymodel.Write(dir, 2); err != nil {
		t.Fatal(err)
	}
	got := checkModelsOfRuns(v, o)
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	want(t, got[0], levelFail, "captain", "changed", m.SHA256)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got = checkModelsOfRuns(v, o); len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	want(t, got[0], levelFail, "captain", dir)
}

func TestDoctorStuckRuns(t *testing.T) {
	d := &workflowservice.DescribeWorkflowExecutionResponse{PendingActivities: []*workflowpb.PendingActivityInfo{
		{ActivityType: &commonpb.ActivityType{Name: "JoinPairs"}, Attempt: 9, LastFailure: &failurepb.Failure{Message: "store: get parts/x: corrupt object: 3 bytes"}},
		{ActivityType: &commonpb.ActivityType{Name: "AskTeacher"}, Attempt: 4, LastFailure: &failurepb.Failure{Message: "teacher: status 503"}},
		{ActivityType: &commonpb.ActivityType{Name: "Generate"}, Attempt: 2, LastFailure: &failurepb.Failure{Message: "worker was killed"}},
	}, PendingWorkflowTask: &workflowpb.PendingWorkflowTaskInfo{Attempt: 5}}
	got := checkAttempts(1, attemptsOf("captain/preferences", d))
	if len(got) != 3 {
		t.Fatalf("%+v", got)
	}
	want(t, got[0], levelFail, "JoinPairs", "9th", "parts/x", "character repair captain`")
	want(t, got[1], levelFail, "AskTeacher", "status 503", "goes on by itself")
	want(t, got[2], levelFail, "own code", "another release")
	d.PendingActivities, d.PendingWorkflowTask = d.PendingActivities[2:], nil
	want(t, checkAttempts(1, attemptsOf("captain", d))[0], levelOK)
}

// TestDoctorReadsPlainFiles: without servers the bucket is read from the disk, as the server keeps it.
func TestDoctorReadsPlainFiles(t *testing.T) {
	dir := t.TempDir()
	b := localBucket(dir)
	if l, err := b.List(t.Context(), ""); err != nil || len(l) != 0 {
		t.Errorf("an empty directory: %v, %v", l, err)
	}
	for _, key := range []string{"runs/a/HEAD.json", ".sgwtmp/multipart/x", "parts/pairs/1.parquet"} {
		path := filepath.Join(dir, "s3", stack.Bucket, key)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(key), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := b.List(t.Context(), "")
	if err != nil || len(l) != 2 || l[0].Key != "parts/pairs/1.parquet" || l[1].Size != int64(len(l[1].Key)) {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err := b.List(t.Context(), "runs/"); err != nil || len(l) != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	if got, err := b.GetKey(t.Context(), "runs/a/HEAD.json"); err != nil || string(got) != "runs/a/HEAD.json" {
		t.Errorf("%q, %v", got, err)
	}
	for _, key := range []string{"none", "runs/a/HEAD.json/x"} {
		if _, err := b.GetKey(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// denying refuses some requests as a bucket's policy does.
type denying struct{ what func(r *http.Request) bool }

func (d denying) RoundTrip(r *http.Request) (*http.Response, error) {
	if !d.what(r) {
		return http.DefaultTransport.RoundTrip(r)
	}
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body) // as a server does
	}
	body := `<Error><Code>AccessDenied</Code><Message>no</Message></Error>`
	return &http.Response{StatusCode: http.StatusForbidden, Status: "403 Forbidden", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/xml"}},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r}, nil
}

func TestDoctorRights(t *testing.T) {
	server := s3server.ForTest(t)
	never := func(*http.Request) bool { return false }
	for name, c := range map[string]struct {
		deny        func(r *http.Request) bool
		level, word string
	}{
		"all":       {never, levelOK, "are allowed"},
		"no list":   {func(r *http.Request) bool { return r.URL.Query().Get("list-type") == "2" }, levelFail, "s3:ListBucket"},
		"no write":  {func(r *http.Request) bool { return r.Method == http.MethodPut }, levelFail, "s3:PutObject"},
		"no delete": {func(r *http.Request) bool { return r.Method == http.MethodDelete }, levelNote, "s3:DeleteObject"},
	} {
		s, err := store.Open(t.Context(), store.Config{Endpoint: server.Endpoint, Bucket: "rights", AccessKey: server.AccessKey, SecretKey: server.SecretKey})
		if err != nil {
			t.Fatal(err)
		}
		if s, err = store.Open(t.Context(), store.Config{Endpoint: server.Endpoint, Bucket: "rights", AccessKey: server.AccessKey, SecretKey: server.SecretKey, Transport: denying{c.deny}}); err != nil {
			t.Fatal(err)
		}
		got := checkRights(t.Context(), s)
		want(t, got[len(got)-1], c.level, c.word)
		if bad := name == "no write"; bad != (got[0].Level == levelFail) {
			t.Errorf("%s: %+v", name, got[0])
		}
	}
}

// pollers is a Temporal client that knows who polls.
type pollers struct {
	client.Client
	n   map[string]int
	err error
}

func (p pollers) DescribeTaskQueue(_ context.Context, queue string, _ enums.TaskQueueType) (*workflowservice.DescribeTaskQueueResponse, error) {
	return &workflowservice.DescribeTaskQueueResponse{Pollers: make([]*taskqueue.PollerInfo, p.n[queue])}, p.err
}

func TestDoctorQueues(t *testing.T) {
	polled, got := queues(t.Context(), pollers{n: map[string]int{activities.DataQueue: 1, activities.EngineQueue: 2}})
	if len(got) != 3 || len(polled[activities.EngineQueue]) != 2 {
		t.Fatalf("%+v", got)
	}
	want(t, got[0], levelOK, activities.DataQueue+": 1")
	want(t, got[1], levelFail, activities.TeacherQueue+": 0", "character worker")
	want(t, got[2], levelOK, ": 2")
	_, got = queues(t.Context(), pollers{err: serviceerror.NewPermissionDenied("not yours", "")})
	want(t, got[0], levelFail, "not yours", "credentials")
}
