package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/spec"
)

// Adjusted is the answer of an adjust update.
type Adjusted struct {
	Changes []spec.Change `json:"changes"` // none: the values were so already
	Spec    string        `json:"spec"`    // key of the resolved spec that counts from now on
}

// Finish is what finish-early takes: the stage that is meant. Left out, it is the present one; named, the update does
// the same however often it is sent.
type Finish struct {
	Stage string `json:"stage,omitempty"`
}

// Finishing is the answer of finish-early.
type Finishing struct {
	Stage string `json:"stage"`
	Note  string `json:"note"`
}

var errResolving = errors.New("the run's spec is not resolved yet; ask again in a moment")

// controls registers adjust and finish-early.
func (r *run) controls(ctx workflow.Context) error {
	r.adjusting, r.recording, r.answers = workflow.NewMutex(ctx), workflow.NewMutex(ctx), map[string]answer{}
	r.endings = workflow.GetSignalChannel(ctx, signalEarly)
	ch := workflow.GetSignalChannel(ctx, signalAnswer)
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var a answer
			if !ch.Receive(ctx, &a) {
				return
			}
			r.answers[a.ID] = a
		}
	})
	err := workflow.SetUpdateHandlerWithOptions(ctx, UpdateAdjust, r.adjust, workflow.UpdateHandlerOptions{
		Description: `Change fields of the spec that nothing made so far depends on, such as {"preferences.pairs": 200, "sft.epochs": 2}. The run then is one with that spec; what cannot change any more is refused by name`,
		Validator: func(_ workflow.Context, in Input) error {
			list, err := spec.ParseAdjust(in.raw)
			if err == nil {
				err = spec.CheckAdjust(list, r.phase)
			}
			return err
		}})
	if err != nil {
		return err
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, UpdateFinish, r.finishEarly, workflow.UpdateHandlerOptions{
		Description: `End the present stage with what it has, when that meets its floor, and go on with the next; {"stage": "preferences"} names the stage that is meant`,
		Validator: func(_ workflow.Context, in Finish) error {
			if in.Stage != "" && !slices.Contains(spec.Parts(), in.Stage) {
				return fmt.Errorf("finish-early: stage %.40q is not one of %s", in.Stage, strings.Join(spec.Parts(), ", "))
			}
			switch now := r.now(); {
			case r.brief.Plan.Key == "":
				return errResolving
			case in.Stage != "" && r.phase(in.Stage) == spec.Ahead:
				return fmt.Errorf("finish-early: %s has not begun", in.Stage)
			case in.Stage == "" && now == "":
				return errors.New("finish-early: no stage is under way just now; ask again in a moment")
			}
			return nil
		}})
}

// phase is how far a part of the spec is.
func (r *run) phase(part string) spec.Phase {
	i := r.index(part)
	switch {
	case i < 0:
		return spec.Ahead
	case ended(r.Stages[i].State) || slices.ContainsFunc(r.done, func(s activities.Stage) bool { return s.Kind == part }):
		return spec.Over
	case r.now() == part || r.Stages[i].State != Pending:
		return spec.UnderWay
	}
	return spec.Ahead
}

// now is the stage that is under way, "" between two.
func (r *run) now() string { return strings.TrimPrefix(strings.TrimPrefix(r.child, r.ID), "/") }

// phases are all of them, for the activity that checks.
func (r *run) phases() map[string]spec.Phase {
	m := map[string]spec.Phase{}
	for _, p := range spec.Parts() {
		m[p] = r.phase(p)
	}
	return m
}

// adjust makes a new plan, tells the running stage, and records what was changed. All of it happens, or nothing.
func (r *run) adjust(ctx workflow.Context, in Input) (Adjusted, error) {
	// After a reset the server sends what was asked before again, at once.
	if err := workflow.Await(ctx, func() bool { return r.brief.Plan.Key != "" }); err != nil {
		return Adjusted{}, err
	}
	if err := r.adjusting.Lock(ctx); err != nil {
		return Adjusted{}, err
	}
	defer r.adjusting.Unlock()
	list, err := spec.ParseAdjust(in.raw)
	if err != nil {
		return Adjusted{}, err
	}
	var out activities.AdjustOutput
	if err := workflow.ExecuteActivity(onData(ctx, "adjust the spec"), data.AdjustSpec, activities.AdjustInput{Plan: r.brief.Plan, Changes: in.raw, Stages: r.phases()}).Get(ctx, &out); err != nil {
		return Adjusted{}, errors.New(cause(err))
	}
	if len(out.Changes) == 0 {
		return Adjusted{Changes: []spec.Change{}, Spec: r.brief.Spec}, nil
	}
	a := ask{ID: workflow.GetCurrentUpdateInfo(ctx).ID, Brief: out.Brief, Sizes: out.Sizes}
	now, err := r.asks(ctx, func(stage string) ask {
		a.Changes = nil
		for _, c := range out.Changes {
			if strings.HasPrefix(c.Key, stage+".") {
				a.Changes = append(a.Changes, c)
			}
		}
		return a
	})
	if err == nil { // a stage may have ended while the plan was made, or instead of an answer; what one has answered holds
		err = spec.CheckAdjust(slices.DeleteFunc(list, func(s spec.Setting) bool { return now != "" && strings.HasPrefix(s.Key, now+".") }), r.phase)
	}
	if err != nil {
		return Adjusted{}, err
	}
	return Adjusted{out.Changes, out.Brief.Spec}, r.adopt(ctx, UpdateAdjust, a.ID, out)
}

// adopt makes a new plan the run's and records it.
func (r *run) adopt(ctx workflow.Context, update, id string, out activities.AdjustOutput) error {
	r.brief = out.Brief
	r.located()
	for _, c := range out.Changes {
		r.Adjusted = append(r.Adjusted, activities.Adjustment{Change: c, At: workflow.Now(ctx).UTC(), By: update + " " + id})
	}
	r.show(ctx)
	return r.record(ctx)
}

// located shows where spec and report are.
func (r *run) located() {
	r.Spec = r.brief.Spec
	if r.brief.Report != "" {
		r.Report = r.brief.Report + "/runs/" + r.ID
	}
}

// asks sends the running stage what is asked of it and waits for its answer. now is "" when none runs, or it ended without one.
func (r *run) asks(ctx workflow.Context, what func(stage string) ask) (now string, err error) {
	if err := workflow.Await(ctx, func() bool { return r.child == "" || r.up }); err != nil {
		return "", err
	}
	child, now := r.child, r.now()
	if child == "" {
		return "", nil
	}
	a := what(now)
	defer delete(r.answers, a.ID)
	if err := workflow.SignalExternalWorkflow(ctx, child, "", signalAsk, a).Get(ctx, nil); err != nil && ctx.Err() != nil {
		return "", err
	} else if err != nil { // it ended a moment ago, which the run hears in a moment
		return "", workflow.Await(ctx, func() bool { return r.child != child })
	}
	have := func() bool { _, ok := r.answers[a.ID]; return ok }
	if err := workflow.Await(ctx, func() bool { return have() || r.child != child }); err != nil {
		return "", err
	}
	if !have() {
		return "", nil
	}
	if why := r.answers[a.ID].Error; why != "" {
		return now, errors.New(why)
	}
	return now, nil
}

// finishEarly asks the present stage to end with what it has.
func (r *run) finishEarly(ctx workflow.Context, in Finish) (Finishing, error) {
	if err := r.adjusting.Lock(ctx); err != nil {
		return Finishing{}, err
	}
	defer r.adjusting.Unlock()
	stage := in.Stage
	if stage == "" {
		stage = r.now()
	}
	over := Finishing{stage, "it is over"}
	if stage == "" || r.phase(stage) == spec.Over {
		return over, nil
	}
	var out activities.AdjustOutput // of no change: what the plan's floors are
	if err := workflow.ExecuteActivity(onData(ctx, "read the floors of "+stage), data.AdjustSpec, activities.AdjustInput{Plan: r.brief.Plan}).Get(ctx, &out); err != nil {
		return Finishing{}, errors.New(cause(err))
	}
	if r.now() != stage {
		return over, nil
	}
	now, err := r.asks(ctx, func(string) ask {
		return ask{ID: workflow.GetCurrentUpdateInfo(ctx).ID, Finish: true, Brief: out.Brief, Sizes: out.Sizes}
	})
	switch {
	case err != nil:
		return Finishing{}, err
	case now != stage:
		return over, nil
	}
	return Finishing{stage, "it ends after the present chunk or segment, and the run goes on with the next stage"}, nil
}

// endedEarly takes over what stages that ended early changed in the spec.
func (r *run) endedEarly(ctx workflow.Context) error {
	var e early
	for r.endings.ReceiveAsync(&e) {
		if err := r.adjusting.Lock(ctx); err != nil {
			return err
		}
		var out activities.AdjustOutput
		err := workflow.ExecuteActivity(onData(ctx, "record the early end of "+e.Stage), data.AdjustSpec,
			activities.AdjustInput{Plan: r.brief.Plan, Changes: e.Changes, Stages: map[string]spec.Phase{e.Stage: spec.UnderWay}}).Get(ctx, &out)
		if err == nil {
			err = r.adopt(ctx, UpdateFinish, e.ID, out)
		}
		r.adjusting.Unlock()
		if err != nil {
			return err
		}
		e = early{}
	}
	return nil
}

// passPause tells the running stage that the run is paused, or is not any more.
func (r *run) passPause(ctx workflow.Context) {
	// A pause must not be lost on a child that is about to start.
	if err := workflow.Await(ctx, func() bool { return r.child == "" || r.up }); err == nil && r.child != "" {
		_ = workflow.SignalExternalWorkflow(ctx, r.child, "", signalPause, r.paused).Get(ctx, nil) // a child that just ended needs none
	}
	r.show(ctx)
}

// pauseSignals hears pause and resume as signals too: tctl cannot send updates.
func (r *run) pauseSignals(ctx workflow.Context) {
	for _, x := range []struct {
		name, what string
		to         bool
	}{{UpdatePause, "The update pause, for clients that cannot send updates", true}, {UpdateResume, "The update resume, for clients that cannot send updates", false}} {
		ch := workflow.GetSignalChannelWithOptions(ctx, x.name, workflow.SignalChannelOptions{Description: x.what})
		r.signals = append(r.signals, pauseSignal{ch, x.to})
		workflow.Go(ctx, func(ctx workflow.Context) {
			for ch.Receive(ctx, nil) {
				if r.paused != x.to {
					r.paused = x.to
					r.passPause(ctx)
				}
			}
		})
	}
}

// pauseSignal is a channel and what its signals set paused to.
type pauseSignal struct {
	ch workflow.ReceiveChannel
	to bool
}
