package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/codec"
	"github.com/opencharacter/opencharacter/workflows"
)

// errUnfinished ends `run` when the run itself did not reach its end.
var errUnfinished = errors.New("the run did not finish")

// query asks a run's progress query.
func query(ctx context.Context, c client.Client, id string) (workflows.Progress, error) {
	var p workflows.Progress
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	v, err := c.QueryWorkflow(ctx, id, "", workflows.QueryProgress)
	if err != nil {
		return p, err
	}
	return p, v.Get(&p)
}

// newest asks a running stage itself, of which the run hears less and less often, and reads the newest heartbeat of
// its running activity. An activity that is tried again says why in s.Step. Where neither answers, s stays what the run
// said.
func newest(ctx context.Context, c client.Client, keys *codec.Keys, s *workflows.StageProgress) (activities.Live, bool) {
	var l activities.Live
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var own workflows.StageProgress
	if v, err := c.QueryWorkflow(ctx, s.Workflow, "", workflows.QueryProgress); err == nil && v.Get(&own) == nil && own.State == workflows.Running {
		*s = own
	}
	d, err := c.DescribeWorkflowExecution(ctx, s.Workflow, "")
	if err != nil {
		return l, false
	}
	heard := false // counts are the sum of all that run at once; values are a training's, which runs alone
	for _, a := range d.PendingActivities {
		var one activities.Live
		if f := a.GetLastFailure(); f != nil && a.GetAttempt() > 1 {
			s.Step += fmt.Sprintf(", attempt %d after: %s", a.GetAttempt(), keys.Message(f))
		}
		if h := a.GetHeartbeatDetails(); h != nil && keys.DataConverter().FromPayloads(h, &one) == nil {
			l.Done, l.Total, l.Tokens, heard = l.Done+one.Done, l.Total+one.Total, l.Tokens+one.Tokens, true
			l.Values = one.Values
		}
	}
	return l, heard
}

// follow shows the run until it ends or the user detaches with Ctrl-C.
func follow(ctx context.Context, cmd *cobra.Command, e *env, id string) error {
	out := cmd.OutOrStdout()
	var v view = &lines{out: out, last: map[string]string{}}
	if f, ok := out.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		v = newBars(out)
	}
	defer v.end()
	heard, began := time.Now(), time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan struct{}) // closed at the run's end, which is not waited for by asking
	go func() {
		defer close(over)
		_ = e.client.GetWorkflow(ctx, id, "").Get(ctx, nil) // how it ended is told by its progress
	}()
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			v.end()
			flag := dataFlag(dataDir(cmd))
			if e.own {
				fmt.Fprintf(out, "\nDetached; run %s is safe, and stops here until somebody serves it: `character up%s` lets it go on, `character run --id %s%s` does and follows it.\nStopping the servers ...\n", id, flag, id, flag)
			} else {
				fmt.Fprintf(out, "\nDetached; run %s goes on. `character run --id %s%s` follows it again.\n", id, id, flag)
			}
			return nil
		case <-over:
			over = nil
		case <-time.After(min(2*time.Second, 500*time.Millisecond+time.Since(began)/40)): // asking twice a second takes 3 % of a core
		}
		p, err := query(ctx, e.client, id)
		if err != nil {
			if errors.Is(err, codec.ErrKey) {
				return fmt.Errorf("run %s: %w", id, err)
			}
			if time.Since(heard) > 3*time.Minute && ctx.Err() == nil {
				return fmt.Errorf("run %s does not answer: %w; is a worker running? `character doctor` checks", id, err)
			}
			continue
		}
		heard = time.Now()
		if p.State != workflows.Completed && turn%20 == 19 { // a terminated run cannot say so itself
			if d, err := e.client.DescribeWorkflowExecution(ctx, id, ""); err == nil && killed(d.WorkflowExecutionInfo.Status) {
				p.State, p.Error = workflows.Failed, "it was ended from outside ("+d.WorkflowExecutionInfo.Status.String()+")"
			}
		}
		for _, s := range p.Stages {
			var l activities.Live
			if s.State == workflows.Running {
				l, _ = newest(ctx, e.client, e.keys, &s)
			}
			v.stage(s, l)
		}
		if p.State == workflows.Completed || p.State == workflows.Failed || p.State == workflows.Cancelled {
			closed(ctx, e.client, id)
		}
		switch p.State {
		case workflows.Completed:
			v.end()
			return finished(out, e, p)
		case workflows.Failed, workflows.Cancelled:
			v.end()
			if p.State == workflows.Cancelled {
				fmt.Fprintf(out, "\nRun %s was cancelled. What was made is kept: start it again with the same --id, and finished stages are reused.\n", id)
			} else {
				fmt.Fprintf(out, "\nRun %s failed: %s\nWhat was made is kept. Mend the cause and start it again with the same --id: finished stages are reused.\n", id, p.Error)
			}
			return errUnfinished
		}
	}
}

// closed waits until the workflow itself is over: it writes the run's record after its last stage, and the servers may
// be in this process.
func closed(ctx context.Context, c client.Client, id string) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_ = c.GetWorkflow(ctx, id, "").Get(ctx, nil) // how it ended is told by its progress
}

func finished(out io.Writer, e *env, p workflows.Progress) error {
	fmt.Fprintf(out, "\nRun %s is finished.\n", p.ID)
	for _, s := range p.Stages {
		for _, w := range s.Warnings {
			fmt.Fprintln(out, "  warning:", w)
		}
		if v := s.Values; s.Name == activities.KindEvaluation && v["held_out_rows"] > 0 {
			fmt.Fprintf(out, "  held-out gain (nats a token, %d unseen answers): base with the constitution in its prompt %+.3f, with the teacher's prompt %+.3f; after DPO %+.3f, final %+.3f\n",
				int(v["held_out_rows"]), v["gain_constitution"], v["gain_teacher_prompt"], v["gain_dpo"], v["gain_character"])
			if i, ok := v["index_dpo"]; ok {
				fmt.Fprintf(out, "  internalisation index: DPO %.2f, final %.2f (1 = as strong without the constitution as the base is with it)\n", i, v["index_character"])
			}
		}
	}
	fmt.Fprintf(out, "\n  character chat --id %s\n  character export %s --out %s-files\n  %s\n", p.ID, p.ID, p.ID, e.runURL(p.ID))
	return nil
}

// view shows stages as they go.
type view interface {
	stage(s workflows.StageProgress, l activities.Live)
	end()
}

// text is one stage's line without its bar.
func text(s workflows.StageProgress, l activities.Live) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d/%d %s", s.Done, s.Total, s.Unit)
	if s.Step != "" {
		fmt.Fprintf(&b, ", %s", s.Step)
	}
	if l.Total > 0 {
		fmt.Fprintf(&b, " [%d/%d]", l.Done, l.Total)
	}
	vals := s.Values
	if len(l.Values) > 0 {
		vals = l.Values
	}
	for _, k := range []string{"loss", "accuracy", "margin", "perplexity"} {
		if v, ok := vals[k]; ok {
			fmt.Fprintf(&b, ", %s %.3f", k, v)
		}
	}
	if len(s.Dropped) > 0 {
		var d []string
		for k, n := range s.Dropped {
			d = append(d, fmt.Sprintf("%s %d", k, n))
		}
		sort.Strings(d)
		fmt.Fprintf(&b, ", dropped: %s", strings.Join(d, ", "))
	}
	return b.String()
}

// lines prints a line when something changed: for files and pipes.
type lines struct {
	out  io.Writer
	last map[string]string
}

func (v *lines) stage(s workflows.StageProgress, _ activities.Live) {
	if s.State == workflows.Pending {
		return
	}
	t := fmt.Sprintf("%-13s %-9s %s", s.Name, s.State, text(s, activities.Live{}))
	if v.last[s.Name] != t {
		v.last[s.Name] = t
		fmt.Fprintf(v.out, "%s  %s\n", time.Now().Format("15:04:05"), t)
	}
}

func (v *lines) end() {}

// bars draws one live bar a stage.
type bars struct {
	p     *mpb.Progress
	bars  map[string]*mpb.Bar
	texts map[string]*atomic.Pointer[string]
	ended bool
}

func newBars(out io.Writer) *bars {
	return &bars{p: mpb.New(mpb.WithOutput(out), mpb.WithWidth(30), mpb.WithRefreshRate(300*time.Millisecond)), bars: map[string]*mpb.Bar{}, texts: map[string]*atomic.Pointer[string]{}}
}

func (v *bars) stage(s workflows.StageProgress, l activities.Live) {
	if s.State == workflows.Pending {
		return
	}
	b, ok := v.bars[s.Name]
	if !ok {
		txt := new(atomic.Pointer[string])
		txt.Store(new(string))
		v.texts[s.Name] = txt
		b = v.p.AddBar(0, mpb.PrependDecorators(decor.Name(fmt.Sprintf("%-14s", s.Name)), decor.Percentage(decor.WC{W: 5})),
			mpb.AppendDecorators(decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 8}), decor.Any(func(decor.Statistics) string { return "  " + *txt.Load() })))
		v.bars[s.Name] = b
	}
	done := s.Done
	if s.Unit == "steps" && int64(l.Done) > done && l.Total == int(s.Total) {
		done = int64(l.Done)
	}
	line := s.State + " " + text(s, l)
	v.texts[s.Name].Store(&line)
	b.SetTotal(max(s.Total, 1), s.State == workflows.Completed || s.State == workflows.Reused)
	b.SetCurrent(done)
}

func (v *bars) end() {
	if v.ended {
		return
	}
	v.ended = true
	for _, b := range v.bars {
		b.Abort(false)
	}
	v.p.Wait()
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
