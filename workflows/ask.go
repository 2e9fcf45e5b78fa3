package workflows

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/spec"
)

// This file is a stage's side of adjust and finish-early: the run asks by signal, the stage answers at once, because it
// alone knows how far it is, and acts between two chunks or segments.

const (
	signalAsk    = "stage-ask"    // parent to child
	signalAnswer = "stage-answer" // child to parent
	signalEarly  = "stage-early"  // child to parent: what a stage that ended early changes in the spec
)

// ask is what the run wants of its running stage: a new plan, or an early end.
type ask struct {
	ID     string           `json:"id"` // of the update
	Finish bool             `json:"finish,omitempty"`
	Brief  activities.Brief `json:"brief"`
	Sizes  activities.Sizes `json:"sizes"`
	// Changes are those of this stage's fields; a stage takes a plan that changes nothing of its own always.
	Changes []spec.Change `json:"changes,omitempty"`
}

// answer is empty but for the id when the stage does it.
type answer struct {
	ID    string `json:"id"`
	Error string `json:"error,omitempty"`
}

// early is what a stage did that ended early.
type early struct {
	ID      string          `json:"id"`
	Stage   string          `json:"stage"`
	Changes json.RawMessage `json:"changes"`
}

// limits are what a stage's own code knows of what can still change. Functions may be nil: nothing is made yet.
type limits struct {
	// adjust refuses what cannot be kept.
	adjust func(a ask) error
	// adjusted follows a new plan: totals.
	adjusted func()
	// enough refuses an early end and says what is missing.
	enough func(z activities.Sizes) error
}

// hearAsks takes what the run asks.
func (s *stage) hearAsks(ctx workflow.Context) {
	ch := workflow.GetSignalChannel(ctx, signalAsk)
	s.asks = ch
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var a ask
			if !ch.Receive(ctx, &a) {
				return
			}
			s.take(ctx, a)
		}
	})
}

// take decides, and answers.
func (s *stage) take(ctx workflow.Context, a ask) {
	err := s.decide(a)
	if err == nil {
		s.tell(ctx)
	}
	out := answer{ID: a.ID}
	if err != nil {
		out.Error = err.Error()
	}
	if s.parent != "" {
		s.answering++
		_ = workflow.SignalExternalWorkflow(ctx, s.parent, "", signalAnswer, out).Get(ctx, nil) // a parent that is gone needs no answer
		s.answering--
	}
}

func (s *stage) decide(a ask) error {
	switch {
	case a.Finish && s.finish:
		return nil // asked twice
	case s.closing != "" && (a.Finish || len(a.Changes) > 0):
		return fmt.Errorf("%s %s", s.Name, s.closing)
	case a.Finish && s.limits.enough == nil:
		return fmt.Errorf("%s has made nothing yet", s.Name)
	case a.Finish:
		if err := s.limits.enough(a.Sizes); err != nil {
			return err
		}
		s.finish, s.asked, s.sizes = true, a.ID, a.Sizes
		return nil
	case s.finish && len(a.Changes) > 0:
		return fmt.Errorf("%s ends early already", s.Name)
	}
	if s.limits.adjust != nil {
		if err := s.limits.adjust(a); err != nil {
			return err
		}
	}
	s.brief, s.sizes = a.Brief, a.Sizes
	s.version++
	if s.limits.adjusted != nil {
		s.limits.adjusted()
	}
	return nil
}

// close says that nothing of the stage can change any more, and why.
func (s *stage) close(why string) { s.closing = why }

const ending = "is putting its rows together and ends by itself"

// early makes what is there the stage's whole: from here on the spec says so, and the stage is what a run with that spec
// would have made.
func (s *stage) early(ctx workflow.Context, changes map[string]any) error {
	s.close("ends early already")
	raw, err := json.Marshal(changes)
	if err != nil {
		return err
	}
	var out activities.AdjustOutput
	if err := workflow.ExecuteActivity(onData(ctx, "end "+s.Name+" early"), data.AdjustSpec,
		activities.AdjustInput{Plan: s.brief.Plan, Changes: raw, Stages: map[string]spec.Phase{s.Name: spec.UnderWay}}).Get(ctx, &out); err != nil {
		return err
	}
	s.brief, s.sizes = out.Brief, out.Sizes
	s.version++
	if s.limits.adjusted != nil {
		s.limits.adjusted()
	}
	var words []string
	for _, c := range out.Changes {
		words = append(words, fmt.Sprintf("%s is %s instead of %s", c.Key, c.To, c.From))
	}
	if len(words) > 0 {
		s.Said = append(s.Said, s.Name+" was ended early: "+strings.Join(words, ", "))
	}
	if s.parent != "" && len(out.Changes) > 0 {
		_ = workflow.SignalExternalWorkflow(ctx, s.parent, "", signalEarly, early{s.asked, s.Name, raw}).Get(ctx, nil) // a parent that is gone keeps no record
	}
	return nil
}

// again looks for the stage's key once more, if the plan has changed since.
func (s *stage) again(ctx workflow.Context, key string, kind string, upstream []string, adapters []activities.AdapterRef) (string, *activities.Stage, error) {
	if s.version == s.found {
		return key, nil, nil
	}
	return s.find(ctx, kind, upstream, adapters)
}

// number reads a change's new value, which the spec has checked.
func number(c spec.Change) int64 {
	n, err := strconv.ParseFloat(string(c.To), 64)
	if err != nil {
		return 0
	}
	return int64(n)
}

var errNothing = errors.New("no step is committed yet; the first segment commits some within its segment_seconds: ask again then")

// trainingLimits are those of a training.
func (s *stage) trainingLimits() limits {
	return limits{
		adjust: func(a ask) error {
			for _, c := range a.Changes {
				n := number(c)
				if c.Key != s.Name+".steps" || n == 0 || n >= s.Total && s.Total > 0 {
					continue
				}
				if n < s.Done {
					return fmt.Errorf("%s cannot be %d: %d steps are done", c.Key, n, s.Done)
				}
				if s.training {
					return fmt.Errorf("%s cannot be %d now: a segment is under way from step %d and may go beyond it; pause the run, wait until it stands, and ask again", c.Key, n, s.Done)
				}
			}
			return nil
		},
		enough: func(activities.Sizes) error {
			if s.Done == 0 {
				return fmt.Errorf("%s cannot end: %w", s.Name, errNothing)
			}
			return nil
		},
	}
}
