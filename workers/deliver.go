package workers

import (
	"context"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/opencharacter/opencharacter/workflows"
)

// Connection is how a worker's connection to Temporal is made, for client.Options.ConnectionOptions.DialOptions: it comes
// back within seconds after an outage, and the outcome of an attempt waits for a server that is away.
func Connection() []grpc.DialOption {
	d := deliverer{offer: workflows.Outage, try: 10 * time.Second, pause: 500 * time.Millisecond}
	return []grpc.DialOption{
		// gRPC's own pause between two attempts to connect grows to two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithChainUnaryInterceptor(d.call),
	}
}

// deliverer offers outcomes of attempts until the server takes or refuses them. The SDK does so for 10 s (its default
// timeout of a call, which bounds all its tries) and then drops what may have been hours of work.
type deliverer struct {
	offer time.Duration // how long a server may be away
	try   time.Duration // how long one call may take
	pause time.Duration // between two calls
}

// call is a grpc.UnaryClientInterceptor. It lies inside the SDK's own, so that ctx ends when the SDK's patience does.
func (d deliverer) call(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	switch req.(type) {
	case *workflowservice.RespondActivityTaskCompletedRequest, *workflowservice.RespondActivityTaskFailedRequest, *workflowservice.RespondActivityTaskCanceledRequest:
	default:
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	end := time.Now().Add(d.offer)
	ill := time.Time{} // when the server began to answer that it is in trouble
	for {
		tctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.try)
		err := invoke(tctx, method, req, reply, cc, opts...)
		cancel()
		now := time.Now()
		switch status.Code(err) {
		case codes.Unavailable, codes.DeadlineExceeded: // not there
			ill = time.Time{}
		case codes.Aborted, codes.ResourceExhausted, codes.Internal, codes.Unknown:
			// It is there: the SDK knows what to do, unless its time went by while the server was away.
			if ctx.Err() == nil {
				return err
			}
			if ill.IsZero() {
				ill = now
			}
			if now.Sub(ill) > d.offer/15 {
				return err
			}
		default:
			return err
		}
		if now.After(end) {
			return err
		}
		time.Sleep(d.pause)
	}
}
