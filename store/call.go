package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// call runs one request, again and again while its failure may pass: with growing pauses, at most MaxAttempts times and
// within CallTimeout plus one second for each MiB of size. f must be safe to repeat; the context it gets ends when the request makes
// no progress for IdleTimeout (see progress).
func (s *bucket) call(ctx context.Context, op, key string, size int, f func(ctx context.Context) error) error {
	limit := s.cfg.CallTimeout + time.Duration(max(size, 0)>>20)*time.Second
	callCtx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	pause := 50 * time.Millisecond
	for attempt := 1; ; attempt++ {
		began := time.Now()
		err := s.attempt(callCtx, f)
		s.observe(op, time.Since(began), err)
		if err == nil {
			return nil
		}
		if attempt < s.cfg.MaxAttempts && callCtx.Err() == nil && retryable(err) {
			// The pause is drawn from its upper half, so that many clients do not come back together.
			if sleep(callCtx, pause/2+rand.N(pause/2)) {
				pause = min(2*pause, 5*time.Second)
				continue
			}
		}
		what := op
		if key != "" {
			what += " " + key
		}
		if ctx.Err() == nil && callCtx.Err() != nil {
			err = fmt.Errorf("no success within %s: %w", limit, err)
		}
		return fmt.Errorf("store: %s (%s): %w%s", what, s.Where(), err, hint(err))
	}
}

// observe tells of a request.
func (s *bucket) observe(op string, took time.Duration, err error) {
	if s.cfg.Observe == nil {
		return
	}
	r := Request{Operation: op, Outcome: "ok", Took: took}
	status := httpStatus(err)
	switch {
	case err == nil:
	case errors.Is(err, ErrNotFound), status == http.StatusNotFound:
		r.Outcome = "not_found"
	case status == http.StatusPreconditionFailed, status == http.StatusConflict:
		r.Outcome = "precondition"
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable, errorCode(err) == "SlowDown":
		r.Outcome = "throttled"
	default:
		r.Outcome = "error"
	}
	s.cfg.Observe(r)
}

var errIdle = errors.New("the server made no progress")

func (s *bucket) attempt(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(s.cfg.IdleTimeout, func() {
		cancel(fmt.Errorf("%w for %s", errIdle, s.cfg.IdleTimeout))
	})
	defer idle.Stop()
	err := f(context.WithValue(ctx, progressKey{}, func() { idle.Reset(s.cfg.IdleTimeout) }))
	if err != nil && errors.Is(context.Cause(ctx), errIdle) {
		return context.Cause(ctx)
	}
	return err
}

type progressKey struct{}

// progress is a body that reports each read of it, so that a long transfer is not taken for a stalled one.
type progress struct {
	r      io.Reader
	report func()
}

func newProgress(ctx context.Context, r io.Reader) *progress {
	report, _ := ctx.Value(progressKey{}).(func())
	return &progress{r: r, report: report}
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 && p.report != nil {
		p.report()
	}
	return n, err
}

// upload is a request body: seekable, because the signature needs its hash first.
type upload struct {
	progress
	seek io.Seeker
}

func newUpload(ctx context.Context, data []byte) *upload {
	r := bytes.NewReader(data)
	return &upload{progress: *newProgress(ctx, r), seek: r}
}

func (u *upload) Seek(offset int64, whence int) (int64, error) { return u.seek.Seek(offset, whence) }

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func httpStatus(err error) int {
	if re, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		return re.HTTPStatusCode()
	}
	return 0
}

func errorCode(err error) string {
	if ae, ok := errors.AsType[smithy.APIError](err); ok {
		return ae.ErrorCode()
	}
	return ""
}

// notFound is true for a missing key only: 404 is also the answer for a missing bucket, and of some servers for an
// unknown access key.
func notFound(err error) bool {
	if httpStatus(err) != http.StatusNotFound {
		return false
	}
	switch errorCode(err) {
	case "NoSuchKey", "NotFound", "":
		return true
	}
	return false
}

// lostRace is true when the condition of a write did not hold.
func lostRace(err error) bool { return errors.Is(err, ErrCondition) }

func retryable(err error) bool {
	switch httpStatus(err) {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	case http.StatusConflict: // nothing was written: two conditional requests met
		switch errorCode(err) {
		case "ConditionalRequestConflict", "OperationAborted", "Conflict", "":
			return true
		}
		return false
	}
	switch errorCode(err) {
	case "SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded", "InternalError", "ServiceUnavailable":
		return true
	}
	// Refused because our clock is minutes off the server's: the SDK has learnt the server's time from that very answer, and
	// signs the next attempt by it.
	var skewed interface{ RetryableError() bool }
	if errors.As(err, &skewed) && skewed.RetryableError() {
		return true
	}
	if errors.Is(err, errIdle) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	// The request was sent and no answer came. What failed before (credentials, a bad option) does not pass by itself.
	if send, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		return !errors.Is(send, context.Canceled)
	}
	if _, ok := errors.AsType[*bodyError](err); ok {
		return true
	}
	return false
}

// bodyError is a failure while the answer was read.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "read the answer: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// hint says the next step for failures with a known cause.
func hint(err error) string {
	switch errorCode(err) {
	case "NoSuchBucket":
		return "; create the bucket or correct its name"
	case "InvalidAccessKeyId", "XAdminUserNotFound", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed":
		return "; check access key, secret key and region"
	case "AccessDenied":
		return "; the keys are valid but may not do this: allow it in the bucket's policy"
	case "RequestTimeTooSkewed":
		return "; set the clock of this machine"
	case "InvalidBucketName":
		return "; bucket names have 3 to 63 small letters, digits and hyphens"
	case "BucketAlreadyExists":
		return "; the name belongs to somebody else: choose another bucket name"
	case "QuotaExceeded", "XMinioStorageFull", "NoSpaceLeftOnDevice", "InsufficientStorage":
		return "; the storage is full: free space there, nothing already written is lost"
	}
	switch httpStatus(err) {
	case http.StatusForbidden, http.StatusUnauthorized:
		return "; check access key, secret key and the rights on the bucket"
	case http.StatusInsufficientStorage:
		return "; the storage is full: free space there, nothing already written is lost"
	}
	if errors.Is(err, errIdle) || errors.Is(err, context.DeadlineExceeded) {
		return "; the server does not answer: check that it runs and is reachable"
	}
	if _, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		return "; check that the S3 server runs and that the endpoint is right"
	}
	if _, ok := errors.AsType[*aws.MissingRegionError](err); ok {
		return "; set the region"
	}
	return ""
}
