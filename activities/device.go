package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/opencharacter/opencharacter/heartbeat"
	"github.com/opencharacter/opencharacter/lm/sample"
	"github.com/opencharacter/opencharacter/lm/train"
)

// progress is what a running engine activity tells by its heartbeats.
type progress struct {
	mu sync.Mutex
	Live
	signs   atomic.Int64 // of life
	loading atomic.Int32
}

// Live is the heartbeat detail of a running activity: rows or steps done inside the present chunk or segment.
type Live struct {
	Done   int                `json:"done"`
	Total  int                `json:"total"`
	Tokens int                `json:"tokens,omitempty"`
	Values map[string]float64 `json:"values,omitempty"`
}

func (p *progress) set(f func(*Live)) { p.mu.Lock(); f(&p.Live); p.mu.Unlock(); p.alive() }

// alive is a sign of life between two of set.
func (p *progress) alive() { p.signs.Add(1) }

// count tells the watchdog whether the work got on. While a model is loaded it always did: a disk may be slow, and
// reading gives no sign of life.
func (p *progress) count() int64 {
	if p.loading.Load() > 0 {
		p.alive()
	}
	return p.signs.Load()
}

// details is a copy as JSON, so that the heartbeat never races with the work.
func (p *progress) details() any {
	p.mu.Lock()
	defer p.mu.Unlock()
	return json.RawMessage(mustJSON(p.Live))
}

// errBusy ends an attempt on a worker whose device never came back from an attempt before it.
var errBusy = errors.New("engine: an earlier attempt hangs on this worker's device and was left behind; stop this worker and start it again (other workers go on)")

// onDevice does the work of an engine activity: under heartbeats, under the watchdog, alone on the device, and so that the
// end of its context reaches the kernels between two layers of a pass.
func onDevice[T any](ctx context.Context, e *Engine, live *progress, work func(context.Context) (T, error)) (T, error) {
	result := make(chan T, 1) // work that was left behind must not write where we read
	o := heartbeat.Options{Details: live.details, Progress: live.count, Stall: e.Stall}
	err := heartbeat.Run(ctx, o, func(ctx context.Context) error {
		if !e.device.TryLock() {
			return errBusy
		}
		defer e.device.Unlock()
		ws := e.workspace()
		ws.Interrupt = func() error {
			live.alive()
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return nil
		}
		defer func() { ws.Interrupt = nil }()
		out, err := work(ctx)
		result <- out
		return err
	})
	var out T
	select {
	case out = <-result:
	default:
	}
	return out, err
}

// notFinite makes the fatal error of scores that are not finite, naming the row by its id. Other errors pass.
func notFinite(err error, what string, id func(i int) string) error {
	var drawn *sample.ScoreError
	var scored *train.ScoreError
	switch {
	case errors.As(err, &drawn):
		return fatal(NonFinite, fmt.Errorf("%s: row %s, token %d: the model's score is %w; its weights or an adapter are damaged, or its training diverged: check the model file, or lower the learning rate", what, id(drawn.Request), drawn.Token, train.ErrNonFinite))
	case errors.As(err, &scored):
		return fatal(NonFinite, fmt.Errorf("%s: row %s: its log-prob is %v, %w; the model's weights or an adapter are damaged, or its training diverged: check the model file, or lower the learning rate", what, id(scored.Row), scored.Value, train.ErrNonFinite))
	}
	return err
}
