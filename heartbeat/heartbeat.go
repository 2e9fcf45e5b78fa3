// Package heartbeat keeps a long Temporal activity in touch with the server while it works.
//
// The SDK's own heartbeats cancel an activity when one of them cannot be sent for the throttle interval (at most
// a minute), whatever the heartbeat timeout is: a server that restarts would end every training attempt. Run sends
// its own heartbeats instead and lets the work go on until the server has said that the attempt is over, the worker
// stops, nothing got through for the whole heartbeat timeout, or the work itself stands still (watchdog.go).
//
// It knows nothing of what the work is. Inside Run do not call activity.RecordHeartbeat. Start reading at Run.
package heartbeat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/grpc"
)

// Causes of the work's context beside the SDK's own, which are *temporal.CanceledError (someone canceled it),
// activity.ErrActivityPaused and activity.ErrActivityReset.
var (
	// ErrWorkerStopping: the worker shuts down; another attempt starts a second later where details or checkpoint say.
	ErrWorkerStopping = errors.New("the worker is stopping")
	// ErrAttemptOver: the server does not know the attempt any more: it timed out or its workflow is closed.
	ErrAttemptOver = errors.New("the server has given this attempt up")
	// ErrUnheard: no heartbeat got through for the heartbeat timeout, so the server counts the attempt as dead.
	ErrUnheard = errors.New("no heartbeat reached the server within the heartbeat timeout")
)

var errDetails = errors.New("heartbeat details cannot be encoded")

// StoppedType is the type of the application error that Run returns when the worker stops.
const StoppedType = "WorkerStopping"

// Options of Run.
type Options struct {
	// Every is the time between heartbeats; 0 means 5 s, and never more than a third of the heartbeat timeout.
	Every time.Duration
	// Details are sent with each heartbeat and found by the next attempt (activity.GetHeartbeatDetails).
	// It is called from another goroutine while the work runs. nil sends none.
	Details func() any
	// Progress counts what the work has done, in any unit: it must change whenever the work gets on. It is called from
	// another goroutine. nil switches the watchdog off.
	Progress func() int64
	// Stall is how long Progress may stand still before the attempt ends with ErrStalled; 0 means DefaultStall.
	Stall time.Duration
	// Converter encodes the details; nil means that of the context (see WithConverter), else the SDK's default (JSON).
	// Give the client's own when it encrypts.
	Converter converter.DataConverter
}

type converterKey struct{}

// WithConverter makes c the converter of every Run under ctx that names none. A worker whose client encrypts puts it
// into worker.Options.BackgroundActivityContext. A nil c changes nothing.
func WithConverter(ctx context.Context, c converter.DataConverter) context.Context {
	if c == nil {
		return ctx
	}
	return context.WithValue(ctx, converterKey{}, c)
}

const (
	// flushTime bounds the last heartbeat, which the end of the activity waits for.
	flushTime = 5 * time.Second
	// again is the time between heartbeats while none gets through, or Every where that is less.
	again = time.Second
)

// Run calls work and sends heartbeats until it returns. ctx is the activity's context. The context that work gets
// carries ctx's values and ends with a cause (context.Cause): see the errors above.
//
// When work succeeds, so does Run, even if it was told to end meanwhile. When work fails for a reason of its own, Run
// returns that error. When work returns because its context ended, Run returns what closes the attempt right: a
// cancellation for a canceled activity, a retryable error with a delay of a second for a stopping worker, and the
// cause for all others. Before any error the newest details are sent once more. Work that stalls and does not even look
// at its context is left behind: it may still run when Run has returned.
func Run(ctx context.Context, o Options, work func(context.Context) error) error {
	// The service itself, not the client's RecordActivityHeartbeat: that one tries again for as long as it may, so a
	// short outage would be noticed late, and it does not work in the SDK's test environments.
	return run(ctx, activity.GetClient(ctx).WorkflowService().RecordActivityTaskHeartbeat, o, work)
}

// send is one call of the service.
type send func(context.Context, *workflowservice.RecordActivityTaskHeartbeatRequest, ...grpc.CallOption) (*workflowservice.RecordActivityTaskHeartbeatResponse, error)

func run(ctx context.Context, send send, o Options, work func(context.Context) error) error {
	info := activity.GetInfo(ctx)
	b := &beater{
		send:      send,
		namespace: info.Namespace,
		token:     info.TaskToken,
		every:     cmp.Or(o.Every, 5*time.Second),
		timeout:   info.HeartbeatTimeout,
		details:   o.Details,
		converter: o.Converter,
	}
	if b.converter == nil {
		b.converter, _ = ctx.Value(converterKey{}).(converter.DataConverter)
	}
	if b.converter == nil {
		b.converter = converter.GetDefaultDataConverter()
	}
	if b.timeout > 0 {
		b.every = min(b.every, b.timeout/3)
	}

	wctx, end := context.WithCancelCause(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	stop := func() { end(nil); wg.Wait() }
	defer stop() // also when work panics
	wg.Go(func() { watch(ctx, wctx, end) })
	wg.Go(func() { b.loop(wctx, end) })

	leave := flushTime // no longer than the server waits for the next heartbeat
	if b.timeout > 0 {
		leave = min(leave, b.timeout/2)
	}
	var err error
	if o.Progress == nil {
		err = work(wctx)
	} else {
		err = o.watched(wctx, end, leave, work)
	}
	cause := error(nil)
	if wctx.Err() != nil {
		cause = context.Cause(wctx)
	}
	if err == nil {
		return nil
	}
	stop()
	if cause == nil || errors.Is(cause, ErrWorkerStopping) {
		// The newest details, for the next attempt. They are a hint: if they do not arrive, older ones or the checkpoint do.
		fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
		told := final(b.beat(fctx))
		cancel()
		if told != nil && errors.Is(cause, ErrWorkerStopping) {
			cause = told
		}
	}
	if cause == nil || !errors.Is(err, context.Canceled) && !errors.Is(err, cause) {
		return err // the work's own failure
	}
	return b.close(ctx, cause)
}

// close tells the SDK why the attempt ends and gives the error that closes it.
func (b *beater) close(ctx context.Context, cause error) error {
	if errors.Is(cause, ErrWorkerStopping) {
		// Not a cancellation: the server refuses one that nobody asked for.
		return temporal.NewApplicationErrorWithOptions(cause.Error(), StoppedType, temporal.ApplicationErrorOptions{
			NextRetryDelay: time.Second, Category: temporal.ApplicationErrorCategoryBenign,
		})
	}
	canceled := temporal.IsCanceledError(cause)
	if !canceled && !errors.Is(cause, activity.ErrActivityPaused) && !errors.Is(cause, activity.ErrActivityReset) {
		return fmt.Errorf("heartbeat: %w", cause)
	}
	// The SDK takes a cancellation only when it has heard of it itself: one heartbeat of its own, in the background
	// because it waits for an absent server as long as the throttle interval.
	go func() {
		if b.details == nil {
			activity.RecordHeartbeat(ctx)
		} else {
			activity.RecordHeartbeat(ctx, b.details())
		}
	}()
	select {
	case <-ctx.Done():
	case <-time.After(flushTime):
		return fmt.Errorf("heartbeat: told to end (%w), then the server did not answer for %v", cause, flushTime)
	}
	if canceled {
		return ctx.Err()
	}
	return cause
}

// watch ends the work when the worker stops, or when the SDK ends the activity itself (its deadline passed, or the
// server told it by another way than a heartbeat).
func watch(ctx, wctx context.Context, end context.CancelCauseFunc) {
	stopping := activity.GetWorkerStopChannel(ctx)
	select {
	case <-wctx.Done():
	case <-stopping:
		end(ErrWorkerStopping)
	case <-ctx.Done():
		select {
		case <-stopping: // both are closed when the worker has no time to stop
			end(ErrWorkerStopping)
		default:
			end(context.Cause(ctx))
		}
	}
}

type beater struct {
	send      send
	namespace string
	token     []byte
	every     time.Duration
	timeout   time.Duration // 0: none
	details   func() any
	converter converter.DataConverter
}

// loop beats at once and then every b.every, until ctx ends or there is a reason to end it.
func (b *beater) loop(ctx context.Context, end context.CancelCauseFunc) {
	heard := time.Now() // it has just given us the task
	for {
		sent := time.Now()
		// A short interval must not make a slow answer a failure.
		bctx, cancel := context.WithTimeout(ctx, max(b.every, 2*time.Second))
		err := b.beat(bctx)
		cancel()
		wait := min(b.every, again)
		switch cause := final(err); {
		case err == nil:
			heard, wait = sent, b.every
		case cause != nil:
			end(cause)
			return
		case ctx.Err() != nil:
			return
		case b.timeout > 0 && time.Since(heard) > b.timeout:
			end(fmt.Errorf("%w (%v): %w", ErrUnheard, b.timeout, err))
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// beat sends one heartbeat. What the server asks for in its answer comes as an error, as the SDK has it.
func (b *beater) beat(ctx context.Context) error {
	req := &workflowservice.RecordActivityTaskHeartbeatRequest{Namespace: b.namespace, TaskToken: b.token}
	if b.details != nil {
		details, err := b.converter.ToPayloads(b.details())
		if err != nil {
			return fmt.Errorf("%w: %w", errDetails, err)
		}
		req.Details = details
	}
	res, err := b.send(ctx, req)
	switch {
	case err != nil:
		return err
	case res.GetCancelRequested():
		return temporal.NewCanceledError()
	case res.GetActivityPaused():
		return activity.ErrActivityPaused
	case res.GetActivityReset():
		return activity.ErrActivityReset
	}
	return nil
}

// final is the cause with which a heartbeat's answer ends the work; nil when the answer is none, or a passing trouble.
func final(err error) error {
	var gone *serviceerror.NotFound
	var namespace *serviceerror.NamespaceNotFound
	switch {
	case errors.As(err, &gone), errors.As(err, &namespace):
		return fmt.Errorf("%w: %w", ErrAttemptOver, err)
	case errors.Is(err, errDetails), temporal.IsCanceledError(err), errors.Is(err, activity.ErrActivityPaused), errors.Is(err, activity.ErrActivityReset):
		return err
	}
	return nil
}
