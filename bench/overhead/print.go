//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/opencharacter/opencharacter/tensor"
)

// goal is what the pipeline may cost of the loop's time, in percent.
const goal = 2

// report is the JSON line.
type report struct {
	Go      string  `json:"go"`
	Kernels string  `json:"kernels"`
	Threads int     `json:"threads"`
	LoadAvg string  `json:"load_average,omitempty"`
	Wall    float64 `json:"stages_wall_percent"` // median over rounds of what the stages take more than the loop's
	CPU     float64 `json:"stages_cpu_percent"`
	Rounds  []round `json:"rounds"`
}

// print writes the tables and the JSON line.
func (o options) print(out io.Writer, rounds []round) error {
	med := func(f func(r round) float64) float64 {
		var v []float64
		for _, r := range rounds {
			v = append(v, f(r))
		}
		slices.Sort(v)
		return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	}
	load, _ := os.ReadFile("/proc/loadavg") // absent elsewhere
	rep := report{Go: runtime.Version(), Kernels: tensor.Variant(), Threads: o.threads, LoadAvg: strings.TrimSpace(string(load)), Rounds: rounds}
	fmt.Fprintf(out, "\n%s, preset %s, %d rounds, %d threads, %s; medians, seconds. Rows, adapters and measurements are the same bytes.\n\n", o.constitution, o.preset, len(rounds), o.threads, rep.Kernels)
	fmt.Fprintf(out, "%-22s %9s %9s %8s %7s   %9s %9s %7s\n", "", "pipeline", "loop", "more", "%", "CPU", "loop", "%")
	line := func(name string, wall, loopWall, cpu, loopCPU func(r round) float64) {
		more := med(func(r round) float64 { return wall(r) - loopWall(r) })
		fmt.Fprintf(out, "%-22s %9.2f %9.2f %8.2f %7.1f   %9.2f %9.2f %7.1f\n", name, med(wall), med(loopWall), more, percent(med(wall), med(loopWall)), med(cpu), med(loopCPU), percent(med(cpu), med(loopCPU)))
	}
	for _, s := range stageNames {
		line(s, func(r round) float64 { return r.Pipeline.Stages[s].Wall }, func(r round) float64 { return r.Plain.Stages[s].Wall },
			func(r round) float64 { return r.Pipeline.Stages[s].CPU }, func(r round) float64 { return r.Plain.Stages[s].CPU })
	}
	none := func(round) float64 { return 0 }
	line("between the stages", func(r round) float64 { return r.Pipeline.Between.Wall }, none, func(r round) float64 { return r.Pipeline.Between.CPU }, none)
	wall := func(r round) float64 {
		return r.Pipeline.Between.Wall + all(r.Pipeline.Stages, func(t stageTook) float64 { return t.Wall })
	}
	loopWall := func(r round) float64 { return all(r.Plain.Stages, func(t took) float64 { return t.Wall }) }
	cpu := func(r round) float64 {
		return r.Pipeline.Between.CPU + all(r.Pipeline.Stages, func(t stageTook) float64 { return t.CPU })
	}
	loopCPU := func(r round) float64 { return all(r.Plain.Stages, func(t took) float64 { return t.CPU }) }
	line("from first stage to end", wall, loopWall, cpu, loopCPU)
	line("the whole command", func(r round) float64 { return r.Pipeline.Wall }, func(r round) float64 { return r.Plain.Wall },
		func(r round) float64 { return r.Pipeline.CPU }, func(r round) float64 { return r.Plain.CPU })
	rep.Wall = med(func(r round) float64 { return percent(wall(r), loopWall(r)) })
	rep.CPU = med(func(r round) float64 { return percent(cpu(r), loopCPU(r)) })

	fmt.Fprintf(out, "\nConstant: start of servers and worker %.1f s, spec and model %.1f s (the loop loads the model in %.1f s), stop %.1f s.\n",
		med(func(r round) float64 { return r.Pipeline.Start }), med(func(r round) float64 { return r.Pipeline.Load }),
		med(func(r round) float64 { return r.Plain.Load.Wall }), med(func(r round) float64 { return r.Pipeline.Stop }))
	fmt.Fprintf(out, "\nWhere the stages' time goes, seconds:\n%-22s %10s %10s %8s %8s %8s   %8s %8s %8s\n", "", "engine", "activities", "waiting", "data", "rest", "worker", "servers", "s3 (CPU)")
	for _, s := range stageNames {
		f := func(g func(stageTook) float64) float64 {
			return med(func(r round) float64 { return g(r.Pipeline.Stages[s]) })
		}
		role := func(name string) float64 { return f(func(t stageTook) float64 { return t.CPUs[name] }) }
		fmt.Fprintf(out, "%-22s %10.2f %10.0f %8.2f %8.2f %8.2f   %8.2f %8.2f %8.2f\n", s, f(func(t stageTook) float64 { return t.Engine }), f(func(t stageTook) float64 { return float64(t.Engines) }),
			f(func(t stageTook) float64 { return t.Wait }), f(func(t stageTook) float64 { return t.Data }), f(func(t stageTook) float64 { return t.Rest }), role("worker"), role("servers"), role("_s3"))
	}
	if o.whole {
		whole := func(r round) float64 { return all(r.Whole.Stages, func(t took) float64 { return t.Wall }) }
		fmt.Fprintf(out, "\nA loop that knows how many prompts it must try, and samples them in one go, takes %.2f s: %.1f %% less than the loop above.\n",
			med(whole), -med(func(r round) float64 { return percent(whole(r), loopWall(r)) }))
	}
	fmt.Fprintf(out, "\nFrom its first stage to its end the pipeline takes %+.1f %% of wall time and %+.1f %% of CPU time over the loop (medians of the rounds; goal %d %%).\n", rep.Wall, rep.CPU, goal)
	b, err := json.Marshal(rep)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", b)
	return err
}

func all[T any](stages map[string]T, of func(T) float64) (total float64) {
	for _, name := range stageNames {
		total += of(stages[name])
	}
	return total
}

// percent is how much more a is than b.
func percent(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return 100 * (a/b - 1)
}
