package store

import (
	"context"
	"errors"
	"time"
)

// Backend keeps objects under keys for a [Store], which does all the rest: names by content, streams and their fences, checks
// of what is read. [S3] makes one on a bucket, [Memory] makes one in memory; [New] takes any other. Package storetest has the
// rules as tests.
//
// Its methods are called from many goroutines and many processes. Each does what it does wholly or not at all: nobody ever
// reads half of an object, and an object that was written is there for every reader that begins afterwards. It tries again
// by itself what may pass. Keys are valid as [CheckKey] has it.
type Backend interface {
	// Write stores data, and nonce beside it, under a condition: with ifMatch "" there must be no object of that key, else
	// the object that is there must have that version. Where the condition does not hold it writes nothing, and the error is
	// [ErrCondition]; where a write happened and its reply was lost it may be that, too. It returns the new version.
	Write(ctx context.Context, key string, data []byte, nonce, ifMatch string) (version string, err error)
	// Read returns an object with its version and nonce. A missing one gives [ErrNotFound]; one whose bytes are known to be
	// damaged gives [ErrCorrupt], or its bytes where raw is true. size is what is expected, 0 if that is not known.
	Read(ctx context.Context, key string, size int, raw bool) (data []byte, version, nonce string, err error)
	// List returns all objects whose key begins with prefix, in the order of the keys' bytes.
	List(ctx context.Context, prefix string) ([]Object, error)
	// Stat tells of an object without reading it, with the time by the backend's clock, which Object.Modified goes by too.
	Stat(ctx context.Context, key string) (o Object, now time.Time, err error)
	// Delete removes an object; one that is gone already is no error.
	Delete(ctx context.Context, key string) error
	// Now is the time by the backend's clock.
	Now(ctx context.Context) (time.Time, error)
	// Where names the place for messages; it holds no secret.
	Where() string
}

// ErrCondition is what errors.Is finds in the error of a [Backend]'s Write whose condition does not hold.
var ErrCondition = errors.New("the condition of the write does not hold")

// Store is one backend's objects. It is safe for concurrent use.
type Store struct{ b Backend }

// New makes a store on a backend of the program's own. Use [Store.Probe] to see whether it keeps its conditions.
func New(b Backend) *Store { return &Store{b} }

// Open connects to a bucket, and creates it if it does not exist and that is allowed. It does not probe.
func Open(ctx context.Context, c Config) (*Store, error) {
	b, err := S3(ctx, c)
	if err != nil {
		return nil, err
	}
	return New(b), nil
}

// Where names endpoint, bucket and prefix for messages; it holds no secret.
func (s *Store) Where() string { return s.b.Where() }

// Ping asks once, without trying again, whether the place answers. A backend without a method Ping is asked for its clock.
func (s *Store) Ping(ctx context.Context) error {
	if p, ok := s.b.(interface{ Ping(context.Context) error }); ok {
		return p.Ping(ctx)
	}
	_, err := s.b.Now(ctx)
	return err
}

// List returns all objects whose key begins with prefix, in key order.
func (s *Store) List(ctx context.Context, prefix string) ([]Object, error) {
	return s.b.List(ctx, prefix)
}

// write is the only way in which bytes are stored. With an empty ifMatch the key must not exist; else its version must be ifMatch.
func (s *Store) write(ctx context.Context, key string, data []byte, nonce, ifMatch string) (version string, err error) {
	return s.b.Write(ctx, key, data, nonce, ifMatch)
}
