package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Operations of a small model take tens of microseconds, less than waking a
// goroutine costs. So workers spin for a short while after each job before
// they sleep; an idle process uses no time.
const (
	workerSpins = 4000 // about 50 to 100 microseconds of PAUSE
	callerSpins = 4000
)

type job struct {
	fn         func(i int)
	n          int32
	next, done atomic.Int32
	// The caller sets state to callerSleeps and waits on wake; the worker that
	// finishes last sets allDone. Whoever comes second sees the other.
	state atomic.Int32
	wake  chan struct{}
}

const (
	callerSleeps = 1
	allDone      = 2
)

func (j *job) run() {
	for {
		i := j.next.Add(1) - 1
		if i >= j.n {
			return
		}
		j.fn(int(i))
		if j.done.Add(1) == j.n && !j.state.CompareAndSwap(0, allDone) {
			j.wake <- struct{}{}
		}
	}
}

type pool struct {
	busy    sync.Mutex // held by the caller whose job runs
	threads atomic.Int32
	workers int // started so far; guarded by busy
	job     atomic.Pointer[job]
	mu      sync.Mutex
	cond    *sync.Cond
	asleep  atomic.Int32
}

var workers = newPool()

func newPool() *pool {
	p := &pool{}
	p.cond = sync.NewCond(&p.mu)
	return p
}

// SetThreads sets how many threads operations use; 0 means GOMAXPROCS.
func SetThreads(n int) { workers.threads.Store(int32(max(n, 0))) }

func threads() int {
	if n := int(workers.threads.Load()); n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// worker number w takes part in a job when fewer than w+1 threads are not
// enough.
func (p *pool) worker(w int, last *job) {
	for {
		j := p.job.Load()
		for s := 0; j == last; s++ {
			if s < workerSpins {
				pause()
			} else {
				p.mu.Lock()
				p.asleep.Add(1)
				for p.job.Load() == last {
					p.cond.Wait()
				}
				p.asleep.Add(-1)
				p.mu.Unlock()
			}
			j = p.job.Load()
		}
		last = j
		if w < threads() {
			j.run()
		}
	}
}

// parallel runs fn(0) to fn(n-1) on up to threads() threads, the caller among
// them, and returns when all are done. While one goroutine's job runs, other
// callers run theirs alone.
func parallel(n int, fn func(i int)) {
	t := threads()
	if n <= 1 || t <= 1 || !workers.busy.TryLock() {
		for i := range n {
			fn(i)
		}
		return
	}
	p := workers
	j := &job{fn: fn, n: int32(n), wake: make(chan struct{}, 1)}
	for ; p.workers < t-1; p.workers++ {
		go p.worker(p.workers+1, p.job.Load())
	}
	p.job.Store(j)
	if p.asleep.Load() > 0 {
		p.mu.Lock()
		p.cond.Broadcast()
		p.mu.Unlock()
	}
	j.run()
	for s := 0; j.done.Load() < j.n; s++ {
		if s < callerSpins {
			pause()
		} else if j.state.CompareAndSwap(0, callerSleeps) {
			<-j.wake
		}
	}
	p.busy.Unlock()
}

// spread splits n items into tasks of at least grain items and runs them.
func spread(n, grain int, fn func(lo, hi int)) {
	tasks := min(max(n/max(grain, 1), 1), 4*threads())
	parallel(tasks, func(i int) { fn(i*n/tasks, (i+1)*n/tasks) })
}
