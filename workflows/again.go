package workflows

import (
	"encoding/json"

	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/store"
)

// maxEvents is the length of a history at which a stage goes on in a new one, and runEvents the same for a whole run,
// which can do so between stages only and hears at most some hundred reports of each (law: under 2,000 events).
const (
	maxEvents = 1500
	runEvents = 1000
)

// Continued is what a stage that goes on in a new history keeps of the old one; the store has all else.
type Continued struct {
	Reference *store.Ref       `json:"reference,omitempty"` // stored reference log-probs of a training
	Work      map[string]*Work `json:"work,omitempty"`      // of a generation or a scoring, by the kind of rows
	Progress  StageProgress    `json:"progress"`
	Told      int              `json:"told"`
	// Stream names the training's checkpoints, also after an adjustment has given the stage another key.
	Stream string           `json:"stream,omitempty"`
	Finish bool             `json:"finish,omitempty"` // end early, asked for by update Asked
	Asked  string           `json:"asked,omitempty"`
	Sizes  activities.Sizes `json:"sizes"`
}

// restore takes over what the history before left.
func (s *stage) restore(c *Continued) {
	if c == nil {
		return
	}
	s.StageProgress, s.told, s.heard = c.Progress, c.Told, c.Progress.State
	s.finish, s.asked, s.sizes = c.Finish, c.Asked, c.Sizes
}

// goOn ends this history and starts the next with what the stage must keep. Nobody who follows the stage notices: the
// workflow's id stays, and a parent goes on waiting for the last history's result.
func (s *stage) goOn(ctx workflow.Context, in StageInput, self any, c Continued) error {
	if err := settle(ctx, func() {
		for s.pauses.ReceiveAsync(&s.paused) {
		}
	}); err != nil {
		return err
	}
	var a ask
	for s.asks.ReceiveAsync(&a) {
		s.take(ctx, a)
		a = ask{}
	}
	if err := workflow.Await(ctx, func() bool { return s.answering == 0 }); err != nil { // one that is not delivered now is lost
		return err
	}
	in.Brief, in.Paused = &s.brief, s.paused
	c.Progress, c.Told = s.StageProgress, s.told
	c.Finish, c.Asked, c.Sizes = s.finish, s.asked, s.sizes
	in.Continued = &c
	raw, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return workflow.NewContinueAsNewError(ctx, self, NewInput(raw))
}

// settle waits until every update that was accepted is answered, and takes what signals brought. One that arrives after
// it makes the server refuse the end of this history, and the same is done again with it.
func settle(ctx workflow.Context, drain func()) error {
	err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) })
	drain()
	return err
}

// ContinuedRun is what a whole run that goes on in a new history keeps: a run's input has it under "continued".
type ContinuedRun struct {
	Brief  activities.Brief   `json:"brief"`
	Paused bool               `json:"paused,omitempty"`
	Stages []StageProgress    `json:"stages"`
	Done   []activities.Stage `json:"done"`
	// Adjusted is what was changed so far.
	Adjusted []activities.Adjustment `json:"adjusted,omitempty"`
}

// continuedRun reads what an earlier history of the run left, nil when this is its first. Unknown fields and all else
// that a user may have written are looked at when the spec is resolved.
func continuedRun(in Input) *ContinuedRun {
	var c struct {
		Continued *ContinuedRun `json:"continued"`
	}
	if json.Unmarshal(in.raw, &c) != nil {
		return nil
	}
	return c.Continued
}

// goOn ends this history of a run between two stages, and starts the next.
func (r *run) goOn(ctx workflow.Context) error {
	if err := settle(ctx, func() {
		var p StageProgress
		for r.reports.ReceiveAsync(&p) {
			r.hear(ctx, p)
		}
		for _, s := range r.signals {
			for s.ch.ReceiveAsync(nil) {
				r.paused = s.to
			}
		}
	}); err != nil {
		return err
	}
	raw, err := json.Marshal(map[string]any{"continued": ContinuedRun{Brief: r.brief, Paused: r.paused, Stages: r.Stages, Done: r.done, Adjusted: r.Adjusted}})
	if err != nil {
		return err
	}
	return workflow.NewContinueAsNewError(ctx, CharacterTraining, NewInput(raw))
}
