package serve

import (
	"context"
	"errors"
	"sync"

	"github.com/opencharacter/opencharacter/lm/sample"
)

var (
	errFull    = errors.New("serve: as many answers wait as may")
	errStopped = errors.New("serve: the server is stopping")
)

// engine is the one goroutine that uses the batch. Rows come to it through submit, and their
// answers leave by the rows' own functions, which it calls.
type engine struct {
	live   *sample.Live
	limit  int // rows in work and waiting together
	cancel context.CancelFunc
	done   chan struct{}
	wake   chan struct{} // one place: there are new rows

	mu              sync.Mutex
	incoming        []sample.Row
	rows            int // in work, waiting and incoming
	active, waiting int // as of the last step
	pages           int
	err             error // why nothing is taken any more
}

func startEngine(live *sample.Live, limit int) *engine {
	ctx, cancel := context.WithCancel(context.Background())
	e := &engine{live: live, limit: limit, cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	go e.run(ctx)
	return e
}

// submit hands rows to the engine, all or none.
func (e *engine) submit(rows []sample.Row) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return e.err
	}
	if e.rows+len(rows) > e.limit {
		return errFull
	}
	e.rows += len(rows)
	for _, r := range rows {
		end := r.End
		r.End = func(finish string, err error) {
			e.mu.Lock()
			e.rows--
			e.mu.Unlock()
			end(finish, err)
		}
		e.incoming = append(e.incoming, r)
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
	return nil
}

func (e *engine) run(ctx context.Context) {
	defer close(e.done)
	for {
		for _, r := range e.take() {
			if err := e.live.Add(r); err != nil {
				r.End("", err)
			}
		}
		e.note()
		if !e.live.Busy() {
			select {
			case <-e.wake:
			case <-ctx.Done():
				e.end(errStopped)
				return
			}
			continue
		}
		if err := e.live.Step(ctx); err != nil {
			if ctx.Err() != nil {
				err = errStopped
			}
			e.end(err)
			return
		}
	}
}

func (e *engine) take() []sample.Row {
	e.mu.Lock()
	defer e.mu.Unlock()
	rows := e.incoming
	e.incoming = nil
	return rows
}

func (e *engine) note() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.active, e.waiting, e.pages = e.live.Active(), e.live.Waiting(), e.live.Pages()
}

// end ends all rows; nothing is taken any more.
func (e *engine) end(err error) {
	e.mu.Lock()
	e.err = err
	e.mu.Unlock()
	for _, r := range e.take() {
		r.End("", err)
	}
	e.live.Abort(err)
	e.note()
}

// counts are the answers in work and waiting, and why there will be no more.
func (e *engine) counts() (active, waiting int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.active, max(0, e.rows-e.active), e.err
}

func (e *engine) usedPages() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pages
}

func (e *engine) stop() {
	e.cancel()
	<-e.done
}
