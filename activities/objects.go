package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
)

// Failure types that a workflow must not retry.
const (
	BadInput    = "BadInput"    // the user's input cannot work, now or later
	StageFailed = "StageFailed" // the stage cannot do its job (a floor was not met)
	NonFinite   = "NonFinite"   // training produced NaN or Inf
)

// NotHere is the type of the failure of a worker that lacks what others may have, a run's model above all. It is
// retried, and the worker leaves the next tasks to others for a while.
const NotHere = "NotHere"

// notHere makes a NotHere failure of an error.
func notHere(err error) error {
	return temporal.NewApplicationErrorWithOptions(err.Error()+" (tried again, on another worker if there is one)", NotHere,
		temporal.ApplicationErrorOptions{Cause: err, NextRetryDelay: 2 * time.Second})
}

// fatal wraps an error that no retry can mend.
func fatal(kind string, err error) error {
	if err == nil {
		return nil
	}
	return temporal.NewNonRetryableApplicationError(err.Error(), kind, err)
}

// putJSON stores v under its content's name.
func putJSON(ctx context.Context, s *store.Store, prefix string, v any) (store.Ref, error) {
	return s.Put(ctx, prefix, ".json", mustJSON(v))
}

func getJSON[T any](ctx context.Context, s *store.Store, r store.Ref) (T, error) {
	var v T
	b, err := s.Get(ctx, r)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("object %s: %w", r.Key, err)
	}
	return v, nil
}

func getPlan(ctx context.Context, s *store.Store, r store.Ref) (Plan, error) {
	p, err := getJSON[Plan](ctx, s, r)
	if err != nil {
		return p, fmt.Errorf("read the run's plan: %w", err)
	}
	return p, nil
}

func getConstitution(ctx context.Context, s *store.Store, p Plan) (*constitution.Constitution, error) {
	b, err := s.Get(ctx, p.Constitution)
	if err != nil {
		return nil, fmt.Errorf("read the run's constitution: %w", err)
	}
	return constitution.Parse(b, p.Name+".json")
}

// chain reads the nodes of a chain, oldest first.
func chain(ctx context.Context, s *store.Store, last *store.Ref) ([]chunk, error) {
	var nodes []chunk
	for r := last; r != nil; {
		n, err := getJSON[chunk](ctx, s, *r)
		if err != nil {
			return nil, fmt.Errorf("read chunk chain: %w", err)
		}
		nodes = append(nodes, n)
		r = n.Previous
	}
	slices.Reverse(nodes)
	return nodes, nil
}

// uploaded reads an object that the CLI put into the store and that a spec names as "ref:KEY". Only the uploads
// folder can be named, so that a spec cannot reach other objects of the bucket.
func uploaded(ctx context.Context, s *store.Store, field, value string) ([]byte, string, error) {
	key, err := spec.CheckUpload(field, value)
	if err != nil {
		return nil, "", fatal(BadInput, err)
	}
	b, err := s.GetKey(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, "", fatal(BadInput, fmt.Errorf("spec: %s names %q, which is not in the bucket; upload it with `character run`", field, value))
	}
	return b, key, err
}
