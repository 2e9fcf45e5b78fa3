package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/enums/v1"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/tensor"
	"github.com/opencharacter/opencharacter/testenv/stack"
)

func doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check this machine and what runs on it, and say what to do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{out: cmd.OutOrStdout()}
			d.machine(dataDir(cmd))
			d.models(hubOptions(cmd))
			d.services(cmd)
			if d.bad > 0 {
				return fmt.Errorf("%d of the checks failed; each line above says what to do", d.bad)
			}
			_, err := fmt.Fprintln(d.out, "All well.")
			return err
		},
	}
}

type doctor struct {
	out io.Writer
	bad int
}

// check prints one line; a failed check says what to do.
func (d *doctor) check(ok bool, what, todo string) {
	mark := "ok  "
	if !ok {
		mark, what = "FAIL", what+"; "+todo
		d.bad++
	}
	fmt.Fprintln(d.out, mark, what)
}

func (d *doctor) machine(dir string) {
	v := tensor.Variant()
	d.check(v != "generic", fmt.Sprintf("kernels: %s on %d cores", v, runtime.NumCPU()), "this CPU has no AVX2: everything works, some thirty times slower")
	at := dir
	for { // the data directory may not be there yet
		if _, err := os.Stat(at); err == nil || at == filepath.Dir(at) {
			break
		}
		at = filepath.Dir(at)
	}
	bytes, err := freeBytes(at)
	if err != nil {
		d.check(false, fmt.Sprintf("disk of %s: %v", dir, err), "choose another --data")
		return
	}
	free := float64(bytes) / 1e9
	d.check(free > 1, fmt.Sprintf("disk: %.1f GB free for %s", free, dir), "a run of the demo needs 1 GB; make room or choose another --data")
}

func (d *doctor) models(o hub.Options) {
	have, err := hub.List(o)
	if err != nil {
		d.check(false, "models: "+err.Error(), "mend or remove that folder")
		return
	}
	for _, m := range have {
		d.check(true, fmt.Sprintf("model %s: %.0f MB at %s", m.Name, float64(m.Size)/1e6, m.Path), "")
	}
	if len(have) == 0 {
		d.check(true, "no model is here yet: the first run gets one, or `character model pull smollm2-135m-instruct`", "")
	}
}

func (d *doctor) services(cmd *cobra.Command) {
	if !onCluster(cmd) {
		info, alive, err := stack.Read(dataDir(cmd))
		if err != nil {
			d.check(false, err.Error(), "see above")
			return
		}
		if !alive {
			d.check(true, fmt.Sprintf("nothing runs on %s: `character up` or `character run` starts it", dataDir(cmd)), "")
			return
		}
		d.check(info.Ready, fmt.Sprintf("servers of %s: Temporal %s, UI %s, S3 %s (pid %d)", info.Dir, info.Temporal, info.UI, info.S3, info.PID), "they are starting; try again in a moment")
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
	defer cancel()
	e, err := openRunning(cmd)
	if err != nil {
		d.check(false, err.Error(), "start it, or give the right address")
		return
	}
	defer e.close()
	err = e.store.Probe(ctx)
	d.check(err == nil, fmt.Sprintf("S3: conditional writes on bucket %s: %v", e.info.Bucket, orOK(err)), "use a bucket that supports If-None-Match and If-Match")
	for _, q := range []struct {
		name string
		kind enums.TaskQueueType
	}{{activities.DataQueue, enums.TASK_QUEUE_TYPE_WORKFLOW}, {activities.TeacherQueue, enums.TASK_QUEUE_TYPE_ACTIVITY}, {activities.EngineQueue, enums.TASK_QUEUE_TYPE_ACTIVITY}} {
		r, err := e.client.DescribeTaskQueue(ctx, q.name, q.kind)
		n := 0
		if err == nil {
			n = len(r.Pollers)
		}
		d.check(n > 0, fmt.Sprintf("task queue %s: %d workers", q.name, n), "start one: `character worker` (see logs/worker.log in the data directory)")
	}
}

func orOK(err error) any {
	if err == nil {
		return "work"
	}
	return err
}
