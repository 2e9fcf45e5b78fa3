//go:build unix

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencharacter/opencharacter/activities"
)

// event is as much of a history's event as is needed here.
type event struct {
	EventID   string    `json:"eventId"`
	EventTime time.Time `json:"eventTime"`
	Scheduled *struct {
		ActivityType struct{ Name string }
		TaskQueue    struct{ Name string }
		Input        payloads
	} `json:"activityTaskScheduledEventAttributes"`
	Started *struct {
		ScheduledEventID string `json:"scheduledEventId"`
	} `json:"activityTaskStartedEventAttributes"`
	Completed *struct {
		ScheduledEventID string `json:"scheduledEventId"`
		Result           payloads
	} `json:"activityTaskCompletedEventAttributes"`
	ChildStarted *childEvent `json:"childWorkflowExecutionStartedEventAttributes"`
	ChildDone    *childEvent `json:"childWorkflowExecutionCompletedEventAttributes"`
}

type childEvent struct {
	WorkflowExecution struct {
		WorkflowID string `json:"workflowId"`
	}
}

type payloads struct{ Payloads []struct{ Data []byte } }

// into decodes the first payload, if there is one.
func (p payloads) into(v any) error {
	if len(p.Payloads) == 0 {
		return nil
	}
	return json.Unmarshal(p.Payloads[0].Data, v)
}

// childTimes are the begin and the end of each stage of a run.
func childTimes(events []event) map[string][2]time.Time {
	begun, out := map[string]time.Time{}, map[string][2]time.Time{}
	name := func(c *childEvent) string {
		return c.WorkflowExecution.WorkflowID[strings.LastIndexByte(c.WorkflowExecution.WorkflowID, '/')+1:]
	}
	for _, e := range events {
		switch {
		case e.ChildStarted != nil:
			begun[name(e.ChildStarted)] = e.EventTime
		case e.ChildDone != nil:
			out[name(e.ChildDone)] = [2]time.Time{begun[name(e.ChildDone)], e.EventTime}
		}
	}
	return out
}

// act is an activity that completed.
type act struct {
	kind                       string
	engine                     bool
	scheduled, started, closed time.Time
	input, result              payloads
}

func activitiesOf(events []event) ([]act, error) {
	open := map[string]*act{}
	var out []act
	for _, e := range events {
		switch {
		case e.Scheduled != nil:
			open[e.EventID] = &act{kind: e.Scheduled.ActivityType.Name, engine: e.Scheduled.TaskQueue.Name == activities.EngineQueue, scheduled: e.EventTime, input: e.Scheduled.Input}
		case e.Started != nil:
			open[e.Started.ScheduledEventID].started = e.EventTime
		case e.Completed != nil:
			a := open[e.Completed.ScheduledEventID]
			a.closed, a.result = e.EventTime, e.Completed.Result
			out = append(out, *a)
			delete(open, e.Completed.ScheduledEventID)
		}
	}
	if len(open) > 0 {
		return nil, fmt.Errorf("%d activities did not complete: the machine was too busy, run it again", len(open))
	}
	return out, nil
}

// note keeps of an activity what the loop needs and what is compared.
func (r *pipelineRun) note(a act) error {
	switch a.kind {
	case "Generate", "Converse":
		var in activities.ChunkInput
		if err := a.input.into(&in); err != nil {
			return err
		}
		r.job.Chunks[in.Role] = append(r.job.Chunks[in.Role], [2]int{in.From, in.To})
	case "KeepStage":
		var st activities.Stage
		if err := a.result.into(&st); err != nil {
			return err
		}
		switch st.Kind {
		case activities.KindPreferences, activities.KindIntrospection:
			if len(st.Parts) != 1 {
				return errors.New("the data set has several parts; choose a smaller run")
			}
			name := "pairs"
			if st.Kind == activities.KindIntrospection {
				name = "introspection"
			}
			r.Sums[name] = st.Parts[0].SHA256
		case activities.KindDPO, activities.KindSFT:
			r.Sums[st.Kind+" adapter"] = st.Adapter.Files[adapterFile].SHA256
		case activities.KindEvaluation:
			all := ""
			for _, p := range st.Parts {
				all += p.SHA256
			}
			r.Sums["evaluation"] = sum([]byte(all))
		}
	}
	return nil
}
