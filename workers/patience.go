package workers

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"github.com/opencharacter/opencharacter/activities"
)

// Pauses of an engine worker that could not serve a task: the first, and the longest.
const (
	firstPause   = 15 * time.Second
	longestPause = time.Minute // where no other worker is, this is what somebody waits who has put the file there
)

// patience is an engine worker's slots, held back for a while when the worker lacks what a run needs. The task goes to
// another worker at once; this one, idle as it is, would only take it again and again, and use up its attempts.
type patience struct {
	interceptor.WorkerInterceptorBase
	taken chan struct{} // as many as there are slots

	mu    sync.Mutex
	pause time.Duration
	until time.Time
}

func newPatience(slots int) *patience { return &patience{taken: make(chan struct{}, slots)} }

// tuner gives the worker's activities this supplier's slots. An engine worker runs nothing else; the SDK wants
// suppliers for all kinds of tasks all the same.
func (p *patience) tuner() (worker.WorkerTuner, error) {
	o := worker.CompositeTunerOptions{ActivitySlotSupplier: p}
	for _, s := range []*worker.SlotSupplier{&o.WorkflowSlotSupplier, &o.LocalActivitySlotSupplier, &o.NexusSlotSupplier, &o.SessionActivitySlotSupplier} {
		var err error
		if *s, err = worker.NewFixedSizeSlotSupplier(2); err != nil {
			return nil, err
		}
	}
	return worker.NewCompositeTuner(o)
}

// ReserveSlot waits for a slot, and then until the pause is over.
func (p *patience) ReserveSlot(ctx context.Context, _ worker.SlotReservationInfo) (*worker.SlotPermit, error) {
	select {
	case p.taken <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.mu.Lock()
	wait := time.Until(p.until)
	p.mu.Unlock()
	select {
	case <-time.After(wait):
		return &worker.SlotPermit{}, nil
	case <-ctx.Done():
		<-p.taken
		return nil, ctx.Err()
	}
}

// TryReserveSlot is for activities that skip the queue: these do not.
func (p *patience) TryReserveSlot(worker.SlotReservationInfo) *worker.SlotPermit { return nil }

// MarkSlotUsed does nothing: a slot counts from when it is reserved.
func (p *patience) MarkSlotUsed(worker.SlotMarkUsedInfo) {}

// ReleaseSlot gives a slot back.
func (p *patience) ReleaseSlot(worker.SlotReleaseInfo) { <-p.taken }

// MaxSlots is the number of slots.
func (p *patience) MaxSlots() int { return cap(p.taken) }

// heard takes how a task ended.
func (p *patience) heard(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var app *temporal.ApplicationError
	switch {
	case err == nil:
		p.pause = 0
	case errors.As(err, &app) && app.Type() == activities.NotHere:
		p.pause = min(max(firstPause, 2*p.pause), longestPause)
		p.until = time.Now().Add(p.pause)
	}
}

// InterceptActivity lets heard know how every activity of the worker ended.
func (p *patience) InterceptActivity(ctx context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &listening{interceptor.ActivityInboundInterceptorBase{Next: next}, p}
}

type listening struct {
	interceptor.ActivityInboundInterceptorBase
	p *patience
}

func (l *listening) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	out, err := l.Next.ExecuteActivity(ctx, in)
	l.p.heard(err)
	return out, err
}
