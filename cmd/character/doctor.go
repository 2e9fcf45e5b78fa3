package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/testenv/stack"
)

// finding is one line of the doctor's report.
type finding struct {
	Check string `json:"check"`
	Level string `json:"level"`          // ok, note (nothing fails by it) or fail
	What  string `json:"what"`           // as it is
	Todo  string `json:"todo,omitempty"` // what to do
}

const (
	levelOK   = "ok"
	levelNote = "note"
	levelFail = "fail"
)

// verdict is the finding of a check with two ends.
func verdict(check string, ok bool, what, todo string) finding {
	if ok {
		return finding{check, levelOK, what, ""}
	}
	return finding{check, levelFail, what, todo}
}

func doctorCmd() *cobra.Command {
	var deep, asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check this machine and what runs on it, and say what to do",
		Long: `Check disk, data directory, ports, the Temporal server's file, the bucket and every object that runs name, the S3
server's conditions and rights, clocks, workers, models, and runs that do not move. Each line that fails says what to do.
Nothing is changed. Objects are read and hashed when they are few; --deep reads them all.`,
		Example: "  character doctor\n  character doctor --deep --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{deep: deep}
			d.machine(cmd)
			d.services(cmd)
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), map[string]any{"findings": d.findings}); err != nil {
					return err
				}
			} else if err := d.print(cmd.OutOrStdout()); err != nil {
				return err
			}
			if n := d.failed(); n > 0 {
				return fmt.Errorf("%d of the checks failed; each line above says what to do", n)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&deep, "deep", false, "read and hash every object, however many there are")
	c.Flags().BoolVar(&asJSON, "json", false, `print {"findings":[{"check","level","what","todo"}]} for scripts`)
	return c
}

type doctor struct {
	deep     bool
	findings []finding
}

func (d *doctor) add(f ...finding) { d.findings = append(d.findings, f...) }

func (d *doctor) failed() (n int) {
	for _, f := range d.findings {
		if f.Level == levelFail {
			n++
		}
	}
	return n
}

func (d *doctor) print(out io.Writer) error {
	for _, f := range d.findings {
		mark, todo := f.Level, f.Todo
		if f.Level == levelFail {
			mark = "FAIL"
		}
		if todo != "" {
			todo = "; " + todo
		}
		fmt.Fprintf(out, "%-4s %s: %s%s\n", mark, f.Check, f.What, todo)
	}
	if d.failed() > 0 {
		return nil
	}
	_, err := fmt.Fprintln(out, "All well.")
	return err
}

// machine checks what can be seen without any server.
func (d *doctor) machine(cmd *cobra.Command) {
	dir := dataDir(cmd)
	d.add(checkKernels())
	d.add(checkDisk(dir, freeBytes))
	d.add(checkModels(hubOptions(cmd))...)
	if onCluster(cmd) {
		return
	}
	info, alive, err := stack.Read(dir)
	d.add(checkDirectory(info, alive, err))
	if err != nil {
		return
	}
	d.add(checkPorts(info, alive, portFree)...)
	d.add(checkSecrets(dir)...)
	if alive {
		return
	}
	// Nothing runs: the bucket is plain files.
	ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Minute)
	defer cancel()
	v, damage, err := d.inspect(ctx, localBucket(dir))
	if err != nil {
		d.add(finding{"objects", levelFail, err.Error(), "mend the disk or the rights on that folder"})
		return
	}
	state, err := stack.CheckTemporal(ctx, dir)
	d.add(checkTemporalFile(state, err, v))
	d.add(checkFuture(v, time.Now())...)
	d.add(d.checkObjects(v, damage)...)
	d.add(checkModelsOfRuns(v, hubOptions(cmd))...)
}

// services checks what runs.
func (d *doctor) services(cmd *cobra.Command) {
	if !onCluster(cmd) {
		if _, alive, err := stack.Read(dataDir(cmd)); err != nil || !alive {
			return
		}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Minute)
	defer cancel()
	e, err := openRunning(cmd)
	if err != nil {
		d.add(finding{"servers", levelFail, err.Error(), "start it, or give the right address"})
		return
	}
	defer e.close()
	d.add(checkRights(ctx, e.store)...)
	now, ahead, err := e.store.Now(ctx)
	d.add(checkS3Clock(now, ahead, err))
	polled, findings := queues(ctx, e.client)
	d.add(findings...)
	v, damage, err := d.inspect(ctx, e.store)
	if err != nil {
		d.add(finding{"objects", levelFail, err.Error(), "check that the S3 server runs"})
		return
	}
	if !now.IsZero() {
		d.add(checkFuture(v, now)...)
	}
	d.add(d.checkObjects(v, damage)...)
	if onCluster(cmd) {
		d.add(checkTemporalClock(polled, time.Now()))
	} else {
		d.add(checkModelsOfRuns(v, hubOptions(cmd))...)
	}
	d.add(checkWorkers(polled, identity(), v)...)
	d.versions(ctx, e, polled)
	runs, err := runsOf(ctx, e.client, v)
	if err != nil {
		d.add(finding{"runs", levelFail, err.Error(), "check the Temporal server"})
		return
	}
	d.add(checkLostRuns(runs)...)
	d.add(stuck(ctx, e.client, e.info.Namespace)...)
}

// inspect reads the bucket, and all of its objects when they are few or --deep is set.
func (d *doctor) inspect(ctx context.Context, b activities.Bucket) (*activities.Inventory, []activities.Damage, error) {
	v, err := activities.TakeInventory(ctx, b)
	if err != nil {
		return nil, nil, err
	}
	d.deep = d.deep || v.Bytes() < fewBytes
	damage, err := v.Check(ctx, d.deep)
	return v, damage, err
}

// fewBytes are read in a second or two.
const fewBytes = 256 << 20
