// Package metrics counts what a process does (tokens, rows, steps, waits, requests, memory) and shows the counts to
// Prometheus, with two pages that say whether the process lives and whether it can work.
//
// A [Set] has a registry of its own: nothing is global, and what is not counted costs nothing. Labels take few values, all
// of them known beforehand or bounded here: a stage, a reason, an outcome; never the id of a row or a run. The counts are
// of what this process did, committed or not: what a fault made it do twice is counted twice. Start reading at Define,
// which has every metric of ours; record.go is how they are counted, server.go how they are shown, temporal.go adds those
// of the Temporal SDK.
package metrics

import (
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Definition describes one metric of ours.
type Definition struct {
	Name   string
	Kind   string // counter, gauge, histogram
	Labels []string
	Help   string
}

// Set is the metrics of one process. Its methods are safe for concurrent use, and do nothing on a nil Set.
type Set struct {
	registry *prometheus.Registry
	defs     []Definition

	build                                      *prometheus.GaugeVec
	tokens, made, kept, dropped, steps, stages *prometheus.CounterVec
	step, stepsTotal                           *prometheus.GaugeVec
	values                                     map[string]*prometheus.GaugeVec
	stepSeconds, chunkSeconds, segmentSeconds  *prometheus.HistogramVec
	loadSeconds, activitySeconds, waitSeconds  *prometheus.HistogramVec
	loadFailures                               *prometheus.CounterVec
	running                                    *prometheus.GaugeVec
	teacherRequests, teacherTokens             *prometheus.CounterVec
	teacherSeconds                             *prometheus.HistogramVec
	storeRequests                              *prometheus.CounterVec
	storeSeconds                               *prometheus.HistogramVec
	serveRequests, serveTokens                 *prometheus.CounterVec
	serveSeconds                               *prometheus.HistogramVec
	serveAnswers                               *prometheus.GaugeVec

	before  []func() // each sets gauges just before they are shown
	mu      sync.Mutex
	reasons map[string]bool // values of the label reason that were seen
}

// Buckets, in seconds: of requests, of steps of training, and of what takes minutes.
var (
	quick  = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	middle = []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}
	long   = []float64{.05, .25, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200}
)

// trained are the values of the last training step, by the name that metrics.jsonl has for them.
var trained = map[string][2]string{
	"loss":            {"character_training_loss", "Loss of the last training step."},
	"preference_loss": {"character_training_preference_loss", "DPO loss of the last step without its NLL and KL terms; ln 2 at first."},
	"accuracy":        {"character_training_accuracy", "Share of the last DPO step's pairs whose chosen answer has the larger reward."},
	"margin":          {"character_training_margin", "Mean reward margin of the last DPO step."},
	"chosen_reward":   {"character_training_chosen_reward", "Mean reward of the chosen answers of the last DPO step."},
	"rejected_reward": {"character_training_rejected_reward", "Mean reward of the rejected answers of the last DPO step."},
	"learning_rate":   {"character_training_learning_rate", "Learning rate of the last step."},
	"grad_norm":       {"character_training_gradient_norm", "Norm of the last step's gradient before clipping."},
	"perplexity":      {"character_training_perplexity", "Perplexity of the last SFT step's response tokens."},
}

// Build says which program counts.
type Build struct {
	Program string // character, character-worker
	Version string
	Kernels string // kernel variant
}

// New makes a Set with the metrics of the Go runtime and of the process beside ours.
func New(b Build) *Set {
	s := Define()
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.build.WithLabelValues(b.Program, b.Version, b.Kernels).Set(1)
	return s
}

// Define makes a Set of our metrics alone.
func Define() *Set {
	s := &Set{registry: prometheus.NewRegistry(), values: map[string]*prometheus.GaugeVec{}, reasons: map[string]bool{}}
	s.build = s.gauge("character_build_info", "Always 1: the program, its version and its kernel variant.", "program", "version", "kernels")

	s.tokens = s.counter("character_tokens_total", "Tokens that the engine generated (drawn), scored (whole sequences) or trained on (whole sequences), by work and kind of row.", "work", "kind")
	s.made = s.counter("character_answers_total", "Answers and turns that the engine drew, by kind.", "kind")
	s.kept = s.counter("character_rows_kept_total", "Rows of finished chunks that passed the filters, by role.", "role")
	s.dropped = s.counter("character_rows_dropped_total", "Rows of finished chunks that were dropped, by role and reason.", "role", "reason")
	s.chunkSeconds = s.histogram("character_chunk_seconds", "Time from the start of a chunk to its commit, by role.", long, "role")
	s.segmentSeconds = s.histogram("character_segment_seconds", "Time from the start of a training segment to its checkpoint, by stage.", long, "stage")
	s.stages = s.counter("character_stages_total", "Stages that were finished, or found finished in the store (reused), by stage.", "stage", "reused")

	s.steps = s.counter("character_training_steps_total", "Training steps that were made, by stage.", "stage")
	s.stepSeconds = s.histogram("character_training_step_seconds", "Time of a training step, by stage.", middle, "stage")
	s.step = s.gauge("character_training_step", "The last training step, counted from the begin of the stage.", "stage")
	s.stepsTotal = s.gauge("character_training_planned_steps", "Steps that the training of this stage has in all.", "stage")
	names := make([]string, 0, len(trained))
	for name := range trained {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		s.values[name] = s.gauge(trained[name][0], trained[name][1], "stage")
	}

	s.loadSeconds = s.histogram("character_model_load_seconds", "Time to load a model, by architecture and file format.", middle, "architecture", "format")
	s.loadFailures = s.counter("character_model_load_failures_total", "Models that could not be loaded.")
	s.activitySeconds = s.histogram("character_activity_seconds", "Time of an attempt at an activity, by activity and outcome (ok, failed, retry, cancelled, stopped).", long, "activity", "outcome")
	s.running = s.gauge("character_activities_running", "Attempts at activities that run now, by task queue.", "queue")
	s.waitSeconds = s.histogram("character_queue_wait_seconds", "Time from the scheduling of an activity to the start of its first attempt, by task queue.", long, "queue")

	s.teacherRequests = s.counter("character_teacher_requests_total", "Requests to teachers' endpoints, by outcome (ok, refused, throttled, server_error, network, unreadable).", "outcome")
	s.teacherSeconds = s.histogram("character_teacher_request_seconds", "Time of a request to a teacher's endpoint, by outcome.", middle, "outcome")
	s.teacherTokens = s.counter("character_teacher_tokens_total", "Tokens as teachers' endpoints count them, by direction (prompt, completion).", "direction")
	s.storeRequests = s.counter("character_store_requests_total", "Requests to S3, every attempt, by operation and outcome (ok, not_found, precondition, throttled, error).", "operation", "outcome")
	s.storeSeconds = s.histogram("character_store_request_seconds", "Time of a request to S3, by operation.", quick, "operation")

	s.serveRequests = s.counter("character_serve_requests_total", "Requests to the OpenAI API, by route and status code.", "route", "code")
	s.serveSeconds = s.histogram("character_serve_request_seconds", "Time of a request to the OpenAI API, by route.", middle, "route")
	s.serveTokens = s.counter("character_serve_tokens_total", "Tokens of the OpenAI API's answers, by model and direction (prompt, completion).", "model", "direction")
	s.serveAnswers = s.gauge("character_serve_answers", "Answers of the OpenAI API by state (active, waiting).", "state")
	return s
}

// Definitions lists our metrics in the order of their names.
func Definitions() []Definition {
	defs := Define().defs
	slices.SortFunc(defs, func(a, b Definition) int { return strings.Compare(a.Name, b.Name) })
	return defs
}

func (s *Set) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	s.add(v, Definition{Name: name, Kind: "counter", Labels: labels, Help: help})
	return v
}

func (s *Set) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	s.add(v, Definition{Name: name, Kind: "gauge", Labels: labels, Help: help})
	return v
}

func (s *Set) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	s.add(v, Definition{Name: name, Kind: "histogram", Labels: labels, Help: help})
	return v
}

func (s *Set) add(c prometheus.Collector, d Definition) {
	s.registry.MustRegister(c) // names are constants above
	s.defs = append(s.defs, d)
}
