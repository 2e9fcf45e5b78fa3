package metrics

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Drawn counts an answer or a turn of a kind that the engine drew.
func (s *Set) Drawn(kind string, tokens int) {
	if s == nil {
		return
	}
	s.made.WithLabelValues(kind).Inc()
	s.tokens.WithLabelValues("generated", kind).Add(float64(tokens))
}

// Scored counts tokens of sequences of a kind that the engine scored.
func (s *Set) Scored(kind string, tokens int) {
	if s == nil {
		return
	}
	s.tokens.WithLabelValues("scored", kind).Add(float64(tokens))
}

// Trained counts one training step: the done-th of total. values are named as in metrics.jsonl.
func (s *Set) Trained(stage string, done, total, tokens int, took time.Duration, values map[string]float64) {
	if s == nil {
		return
	}
	s.steps.WithLabelValues(stage).Inc()
	s.tokens.WithLabelValues("trained", stage).Add(float64(tokens))
	s.stepSeconds.WithLabelValues(stage).Observe(took.Seconds())
	s.step.WithLabelValues(stage).Set(float64(done))
	s.stepsTotal.WithLabelValues(stage).Set(float64(total))
	for name, v := range values {
		if g := s.values[name]; g != nil {
			g.WithLabelValues(stage).Set(v)
		}
	}
}

// Loaded counts a model that was loaded, or could not be.
func (s *Set) Loaded(architecture, format string, took time.Duration, err error) {
	switch {
	case s == nil:
	case err != nil:
		s.loadFailures.WithLabelValues().Inc()
	default:
		s.loadSeconds.WithLabelValues(architecture, format).Observe(took.Seconds())
	}
}

// Chunk counts the rows of a chunk that was committed.
func (s *Set) Chunk(role string, kept int64, dropped map[string]int64, seconds float64) {
	if s == nil {
		return
	}
	s.chunkSeconds.WithLabelValues(role).Observe(seconds)
	s.kept.WithLabelValues(role).Add(float64(kept))
	for reason, n := range dropped {
		s.dropped.WithLabelValues(role, s.reason(reason)).Add(float64(n))
	}
}

// Segment counts a training segment whose checkpoint was committed.
func (s *Set) Segment(stage string, seconds float64) {
	if s == nil {
		return
	}
	s.segmentSeconds.WithLabelValues(stage).Observe(seconds)
}

// Stage counts a finished stage.
func (s *Set) Stage(kind string, reused bool) {
	if s == nil {
		return
	}
	s.stages.WithLabelValues(kind, map[bool]string{true: "true", false: "false"}[reused]).Inc()
}

// Activity counts the start of an attempt at an activity and returns what counts its end. wait is the time that it was
// scheduled before; negative where that is not known.
func (s *Set) Activity(queue, activity string, wait time.Duration) func(outcome string, took time.Duration) {
	if s == nil {
		return func(string, time.Duration) {}
	}
	if wait >= 0 {
		s.waitSeconds.WithLabelValues(queue).Observe(wait.Seconds())
	}
	running := s.running.WithLabelValues(queue)
	running.Inc()
	return func(outcome string, took time.Duration) {
		running.Dec()
		s.activitySeconds.WithLabelValues(activity, outcome).Observe(took.Seconds())
	}
}

// Asked counts a request to a teacher's endpoint.
func (s *Set) Asked(outcome string, took time.Duration, promptTokens, completionTokens int) {
	if s == nil {
		return
	}
	s.teacherRequests.WithLabelValues(outcome).Inc()
	s.teacherSeconds.WithLabelValues(outcome).Observe(took.Seconds())
	s.teacherTokens.WithLabelValues("prompt").Add(float64(max(0, promptTokens)))
	s.teacherTokens.WithLabelValues("completion").Add(float64(max(0, completionTokens)))
}

// Stored counts a request to S3.
func (s *Set) Stored(operation, outcome string, took time.Duration) {
	if s == nil {
		return
	}
	operation = strings.ReplaceAll(operation, " ", "_")
	s.storeRequests.WithLabelValues(operation, outcome).Inc()
	s.storeSeconds.WithLabelValues(operation).Observe(took.Seconds())
}

// Served counts the tokens of an answer of the OpenAI API.
func (s *Set) Served(model string, promptTokens, completionTokens int) {
	if s == nil {
		return
	}
	s.serveTokens.WithLabelValues(model, "prompt").Add(float64(promptTokens))
	s.serveTokens.WithLabelValues(model, "completion").Add(float64(completionTokens))
}

// maxReasons bounds the values of the label reason: filters may be the user's own.
const maxReasons, maxReasonBytes = 50, 60

// reason is a drop reason as a label; what is one too many is "other".
func (s *Set) reason(r string) string {
	r = strings.ToValidUTF8(r, "?")
	for len(r) > maxReasonBytes {
		_, n := utf8.DecodeLastRuneInString(r)
		r = r[:len(r)-n]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.reasons[r] {
		if len(s.reasons) >= maxReasons {
			return "other"
		}
		s.reasons[r] = true
	}
	return r
}
