package temporalserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	namespacepb "go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"google.golang.org/protobuf/types/known/durationpb"
)

var attributeType = map[string]enums.IndexedValueType{
	"Keyword": enums.INDEXED_VALUE_TYPE_KEYWORD, "KeywordList": enums.INDEXED_VALUE_TYPE_KEYWORD_LIST,
	"Int": enums.INDEXED_VALUE_TYPE_INT, "Double": enums.INDEXED_VALUE_TYPE_DOUBLE, "Text": enums.INDEXED_VALUE_TYPE_TEXT,
	"Bool": enums.INDEXED_VALUE_TYPE_BOOL, "Datetime": enums.INDEXED_VALUE_TYPE_DATETIME,
}

func attributeTypes(names map[string]string) (map[string]enums.IndexedValueType, error) {
	types := make(map[string]enums.IndexedValueType, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		t, ok := attributeType[names[name]]
		if !ok {
			return nil, fmt.Errorf("temporal: search attribute %s has the unknown type %q: use one of %s", name, names[name],
				strings.Join(slices.Sorted(maps.Keys(attributeType)), ", "))
		}
		types[name] = t
	}
	return types, nil
}

// ready brings namespace and search attributes of an old file up to date, then waits until each service
// that has a part in starting a workflow answers.
func (s *Server) ready(ctx context.Context, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // a loaded machine, a large file
	defer cancel()
	// The lazy client does not fail when the server is not up yet.
	c, err := client.NewLazyClient(client.Options{HostPort: s.Address, Namespace: o.Namespace, Logger: quiet{}})
	if err != nil {
		return fmt.Errorf("temporal: %w", err)
	}
	defer c.Close()
	for _, step := range []struct {
		what string
		do   func(context.Context, client.Client, Options) error
	}{
		{"register the namespace", register},
		{"read the namespace", setRetention},
		{"add search attributes", addAttributes},
		{"reach the history service", probeHistory},
		{"reach the matching service", probeMatching},
		{"list workflows", probeVisibility},
	} {
		if err := s.retry(ctx, func(ctx context.Context) error { return step.do(ctx, c, o) }); err != nil {
			return fmt.Errorf("temporal: the server on %s does not become ready: %s: %w; its log is %s", s.Address, step.what, err, s.log.path)
		}
	}
	return nil
}

// permanent marks an error that waiting does not cure.
type permanent struct{ error }

func (s *Server) retry(ctx context.Context, do func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := do(attempt)
		cancel()
		var p permanent
		if err == nil {
			return nil
		} else if errors.As(err, &p) {
			return p.error
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-s.log.fatal:
			return s.log.err
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
	}
}

func setRetention(ctx context.Context, c client.Client, o Options) error {
	ns, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: o.Namespace})
	if err != nil || ns.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration() == o.Retention {
		return err
	}
	_, err = c.WorkflowService().UpdateNamespace(ctx, &workflowservice.UpdateNamespaceRequest{
		Namespace: o.Namespace,
		Config:    &namespacepb.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(o.Retention)},
	})
	return err
}

func addAttributes(ctx context.Context, c client.Client, o Options) error {
	want, err := attributeTypes(o.SearchAttributes)
	if err != nil {
		return permanent{err}
	}
	have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: o.Namespace})
	if err != nil {
		return err
	}
	for name, t := range have.GetCustomAttributes() {
		if w, ok := want[name]; ok && w != t {
			return permanent{fmt.Errorf("%s is a %v in %s and should be a %v: a type cannot change; use another name or another directory (--data OTHER)", name, t, o.Dir, w)}
		}
		delete(want, name)
	}
	if len(want) == 0 {
		return nil
	}
	_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: o.Namespace, SearchAttributes: want})
	var full *serviceerror.InvalidArgument
	if errors.As(err, &full) {
		return permanent{err}
	}
	return err
}

// probeHistory asks for a workflow that is not there: only a history service that owns its shard and reads its store says so.
func probeHistory(ctx context.Context, c client.Client, _ Options) error {
	_, err := c.DescribeWorkflowExecution(ctx, "readiness-probe", "")
	var notFound *serviceerror.NotFound
	if errors.As(err, &notFound) {
		return nil
	}
	return err
}

func probeMatching(ctx context.Context, c client.Client, _ Options) error {
	_, err := c.DescribeTaskQueue(ctx, "readiness-probe", enums.TASK_QUEUE_TYPE_WORKFLOW)
	return err
}

// probeVisibility names every search attribute, so that a run can use them at once.
func probeVisibility(ctx context.Context, c client.Client, o Options) error {
	var terms []string
	for _, name := range slices.Sorted(maps.Keys(o.SearchAttributes)) {
		terms = append(terms, fmt.Sprintf("`%s` is null", name))
	}
	_, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: o.Namespace, Query: strings.Join(terms, " and ")})
	return err
}

// quiet drops the probe client's log: its errors are returned.
type quiet struct{}

var _ sdklog.Logger = quiet{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}
