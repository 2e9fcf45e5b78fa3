package workers

import (
	"context"
	"errors"
	"strings"
	"sync"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"

	"github.com/opencharacter/opencharacter/store"
)

// Damaged is the type of the failure of an activity that found committed data missing or changed again and again. It is
// final: no retry brings the bytes back, `character repair` does.
const Damaged = "Damaged"

// damageLooks is how many attempts in one process must find damage before it is believed: a network can damage, too.
const damageLooks = 4

// damage counts the attempts at an activity that found damage.
type damage struct {
	interceptor.WorkerInterceptorBase
	mu    sync.Mutex
	looks map[attempt]int // by run and activity
}

func newDamage() *damage { return &damage{looks: map[attempt]int{}} }

// verdict gives the outcome of an attempt: err, or the final failure in its place.
func (d *damage) verdict(workflow string, a attempt, err error) error {
	a.n = 0
	d.mu.Lock()
	defer d.mu.Unlock()
	if !errors.Is(err, store.ErrCorrupt) && !errors.Is(err, store.ErrNotFound) {
		if err == nil {
			delete(d.looks, a)
		}
		return err
	}
	if d.looks[a]++; d.looks[a] < damageLooks {
		return err
	}
	delete(d.looks, a)
	run, _, _ := strings.Cut(workflow, "/")
	return temporal.NewNonRetryableApplicationError(err.Error()+"; `character repair "+run+"` sets what is damaged aside, makes it again and goes on with the run", Damaged, err)
}

// InterceptActivity judges every activity of the worker.
func (d *damage) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &judged{interceptor.ActivityInboundInterceptorBase{Next: next}, d}
}

type judged struct {
	interceptor.ActivityInboundInterceptorBase
	d *damage
}

func (j *judged) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	out, err := j.Next.ExecuteActivity(ctx, in)
	info := activity.GetInfo(ctx)
	return out, j.d.verdict(info.WorkflowExecution.ID, attempt{run: info.WorkflowExecution.RunID, activity: info.ActivityID}, err)
}
