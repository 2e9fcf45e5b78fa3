package workers

import (
	"context"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"

	"github.com/opencharacter/opencharacter/workflows"
)

// attempt names one attempt at an activity.
type attempt struct {
	run, activity string
	n             int32
}

// held is what the workers of this process are at.
type held struct {
	interceptor.WorkerInterceptorBase
	mu     sync.Mutex
	at     map[attempt]time.Time // when it ended; the zero time while it lasts
	pruned time.Time             // when what is over was last forgotten
}

// answering is how long the outcome of an attempt may be on its way: see Connection.
const answering = workflows.Outage

func newHeld() *held { return &held{at: map[attempt]time.Time{}} }

// has says whether an attempt is made here, or its outcome may be on its way.
func (h *held) has(a attempt) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	ended, ok := h.at[a]
	return ok && (ended.IsZero() || time.Since(ended) < answering)
}

func (h *held) begin(a attempt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at[a] = time.Time{}
}

func (h *held) end(a attempt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.at[a] = now
	if now.Sub(h.pruned) < answering/10 {
		return
	}
	h.pruned = now
	for k, t := range h.at { // has says no to it
		if !t.IsZero() && now.Sub(t) > answering {
			delete(h.at, k)
		}
	}
}

// InterceptActivity counts every activity of the worker.
func (h *held) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &counted{interceptor.ActivityInboundInterceptorBase{Next: next}, h}
}

type counted struct {
	interceptor.ActivityInboundInterceptorBase
	h *held
}

func (c *counted) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	info := activity.GetInfo(ctx)
	a := attempt{info.WorkflowExecution.RunID, info.ActivityID, info.Attempt}
	c.h.begin(a)
	defer c.h.end(a)
	return c.Next.ExecuteActivity(ctx, in)
}
