package workers

import (
	"context"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"

	"github.com/opencharacter/opencharacter/heartbeat"
)

// beating makes activities beat that know nothing of heartbeats, so that the server misses a worker that was killed
// within the heartbeat timeout instead of after the activity's whole time. It is for queues whose activities do not
// call heartbeat.Run themselves.
type beating struct {
	interceptor.WorkerInterceptorBase
}

func (*beating) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	b := &beatingActivity{}
	b.Next = next
	return b
}

type beatingActivity struct {
	interceptor.ActivityInboundInterceptorBase
}

func (b *beatingActivity) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (out any, err error) {
	if activity.GetInfo(ctx).HeartbeatTimeout == 0 { // scheduled by an older release: nobody listens
		return b.Next.ExecuteActivity(ctx, in)
	}
	err = heartbeat.Run(ctx, heartbeat.Options{}, func(ctx context.Context) (err error) {
		out, err = b.Next.ExecuteActivity(ctx, in)
		return err
	})
	return out, err
}
