package workflows

import (
	"errors"
	"fmt"
	"slices"

	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/store"
)

// Work is how far one kind of rows of a generation stage is. It is all that a new history needs to go on.
type Work struct {
	Set    activities.PromptSet `json:"set"`
	From   int                  `json:"from"` // the prompts before it are tried, and in the chains
	Kept   int64                `json:"kept"`
	Tried  int64                `json:"tried"`
	Chains []store.Ref          `json:"chains,omitempty"` // one a role
	Plan   string               `json:"plan,omitempty"`   // whose prompts these are

	begun int // the prompts before it are tried, or in flight
}

// piece is one chunk on its way: prompts [from, to).
type piece struct {
	from, to int
	// linked says that the piece appends itself to the chains, as one does that runs alone. Others are linked later.
	linked bool
	// Results, when done: one node a role, rows tried and rows kept.
	nodes       []store.Ref
	tried, kept int64
	done        bool // without an error
}

// previous is what a role's chunk is appended to.
func (w *Work) previous(p *piece, role int) *store.Ref {
	if !p.linked || role >= len(w.Chains) {
		return nil
	}
	return ref(w.Chains[role])
}

const (
	// pieceEvents is the most events that one piece costs: two activities, three reports to the parent, a part of a link.
	pieceEvents = 24
	// linkAfter is how many finished pieces are linked at once; their refs stay far below the limit of a payload.
	linkAfter = 16
	// fewest is the least number of prompts in a piece that does not end the table.
	fewest = 8
)

// errLong says that the work goes on in a new history.
var errLong = errors.New("this history is long enough")

// room is how many events this history may still grow by before the work goes on in a new one.
func room(ctx workflow.Context) int {
	return maxEvents - workflow.GetInfo(ctx).GetCurrentHistoryLength()
}

// chunks runs generation chunk by chunk, as many at once as lanes says, until enough rows are kept or the prompts are
// used up. Sizes follow the pass rate so far; by the row law neither sizes nor lanes change a row. It returns when every
// chunk that was started is over and in its place, so that the chains hold all prompts up to w.From without a gap: what
// the joins take from them, the first target passing rows, is then the same however the prompts were cut.
//
// target and size may change on the way (an adjustment), and with the plan the table of prompts, which refresh writes
// again; it is nil where there is none. An early end begins no more chunks.
func (s *stage) chunks(ctx workflow.Context, w *Work, target, size, lanes func() int, refresh func(workflow.Context) error, each func(workflow.Context, *piece) error) error {
	work, cancel := workflow.WithCancel(ctx)
	defer cancel()
	quiet, _ := workflow.NewDisconnectedContext(ctx) // waiting for what was cancelled must not be cancelled
	var open []*piece                                // in the order of the prompts, not linked yet
	var failed error
	next, flying := w.From, 0
	w.begun = max(w.begun, next)
	stale := func() bool { return refresh != nil && !s.finish && w.Plan != s.brief.Plan.Key }
	for {
		if failed == nil && ctx.Err() == nil && stale() {
			if failed = refresh(ctx); failed != nil {
				cancel()
			}
		}
		for failed == nil && ctx.Err() == nil && !s.paused && !s.finish && s.running < max(1, lanes()) && room(ctx)-pieceEvents*s.running > 0 {
			n := w.next(next, target(), size(), max(1, lanes())-s.running, flying)
			if n == 0 {
				break
			}
			alone := s.running == 0 && lanes() <= 1
			if alone && len(open) > 0 {
				if failed = s.link(ctx, w, &open); failed != nil {
					break
				}
			}
			p := &piece{from: next, to: next + n, linked: alone}
			next, flying, open = p.to, flying+n, append(open, p)
			w.begun = next
			s.running++
			workflow.Go(work, func(ctx workflow.Context) {
				err := each(ctx, p)
				s.running, flying, p.done = s.running-1, flying-(p.to-p.from), err == nil
				if err == nil {
					w.Kept, w.Tried = w.Kept+p.kept, w.Tried+p.tried
				} else if failed == nil {
					failed = err
					cancel() // what the others make would be for nothing
				}
			})
		}
		before, was := s.running, s.paused
		if before > 0 {
			if err := workflow.Await(quiet, func() bool { return s.running != before || s.paused != was }); err != nil {
				return err
			}
		}
		if failed == nil && (s.running == 0 || finished(open) >= linkAfter) {
			if failed = s.link(ctx, w, &open); failed != nil {
				cancel()
			}
		}
		if s.running > 0 {
			continue
		}
		switch {
		case failed != nil:
			return failed
		case ctx.Err() != nil:
			return ctx.Err()
		case s.finish:
			return nil
		case stale():
		case w.next(next, target(), size(), 1, 0) == 0:
			return nil
		case s.paused:
			if err := s.gate(ctx); err != nil {
				return err
			}
		case room(ctx) <= 0:
			w.Set.Engines, w.Set.Teachers = s.engines, s.teachers
			return errLong
		}
	}
}

// next is how many prompts the next piece takes, 0 for none: free lanes share what the pass rate so far says is needed
// beyond the flying rows. Before there is a rate no more than target rows are begun beside each other: so many must be
// tried at any rate.
func (w *Work) next(from, target, size, free, flying int) int {
	left := w.Set.Count - from
	if left <= 0 || w.Kept >= int64(target) {
		return 0
	}
	var need int
	switch {
	case w.Tried > 0:
		rate := max(float64(w.Kept)/float64(w.Tried), .05)
		need = int(float64(int64(target)-w.Kept)/rate*1.1) + 1
	case free == 1 && flying == 0:
		need = max(fewest, 2*target) // of few rows, most of a whole chunk would be for nothing
	default:
		need = target
	}
	if need <= flying {
		return 0
	}
	return min(left, size, max(fewest, (need-flying+free-1)/free))
}

// finished counts the finished pieces that no unfinished one stands before.
func finished(open []*piece) int {
	for i, p := range open {
		if !p.done {
			return i
		}
	}
	return len(open)
}

// link appends the finished pieces to the chains, in the order of their prompts.
func (s *stage) link(ctx workflow.Context, w *Work, open *[]*piece) error {
	for len(*open) > 0 && (*open)[0].done {
		if p := (*open)[0]; p.linked { // it is alone, and its nodes are the chains
			w.Chains, w.From = p.nodes, p.to
			*open = (*open)[1:]
			continue
		}
		n := min(finished(*open), linkAfter)
		var in activities.LinkInput
		for role := range (*open)[0].nodes {
			l := activities.Link{}
			if role < len(w.Chains) {
				l.Previous = ref(w.Chains[role])
			}
			for _, p := range (*open)[:n] {
				l.Chunks = append(l.Chunks, p.nodes[role])
			}
			in.Chains = append(in.Chains, l)
		}
		var out activities.LinkOutput
		what := fmt.Sprintf("put chunks in the order of their prompts, %d to %d", (*open)[0].from, (*open)[n-1].to)
		if err := workflow.ExecuteActivity(onData(ctx, what), data.LinkChunks, in).Get(ctx, &out); err != nil {
			return err
		}
		w.Chains, w.From = out.Chains, (*open)[n-1].to
		*open = (*open)[n:]
	}
	return nil
}

// lanes is how many chunks can be made at once: one a live engine worker. An endpoint answers several chunks at once,
// and the engines take their turns at the students' halves; recorded answers take no time, so that nothing is gained.
func (s *stage) lanes() int {
	if s.Name == activities.KindPreferences && askable(s.brief.Teacher) {
		return max(s.engines, s.teachers)
	}
	return s.engines
}

// doing shows what a piece does, and that others go on beside it.
func (s *stage) doing(ctx workflow.Context, step string) {
	s.Step = step
	if s.running > 1 {
		s.Step += fmt.Sprintf(" (%d chunks at once)", s.running)
	}
	s.tell(ctx)
}

// started takes over what a prompt set says of its workers.
func (s *stage) started(set activities.PromptSet) { s.engines, s.teachers = set.Engines, set.Teachers }

// heardOf remembers how many chunks a queue can make at once, when that is known, and what is to be said.
func (s *stage) heardOf(lanes *int, o activities.ChunkOutput) {
	if o.Lanes > 0 {
		*lanes = o.Lanes
	}
	if o.Said != "" && !slices.Contains(s.Said, s.Name+": "+o.Said) {
		s.Said = append(s.Said, s.Name+": "+o.Said)
	}
}
