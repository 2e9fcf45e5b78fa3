package activities

import (
	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/spec"
)

// method is counted up when a stage's code changes what it makes of the same inputs, so that a store's older results
// are not taken for those of the new code.
var method = map[string]int{KindPreferences: 1, KindDPO: 1, KindIntrospection: 1, KindSFT: 1, KindEvaluation: 1}

// shape is the part of the plan that shapes one stage's output. What changes speed only (chunk sizes, rows in
// parallel, segments, micro-batches) is left out: by the row law it changes no bit.
func shape(kind string, p Plan) any {
	s := p.Spec
	base := map[string]any{"method": method[kind], "model": p.Model, "variant": p.Variant, "seed": s.Seed, "constitution": p.Constitution.SHA256}
	train := func(t spec.Training) spec.Training {
		t.MicroTokens, t.SegmentSeconds, t.SegmentSteps = 0, 0, 0
		return t
	}
	switch kind {
	case KindPreferences:
		q, o := s.Preferences, s.TeacherOptions
		q.Chunk, q.Parallel, q.Prompts, q.File = 0, 0, "", ""
		o.Concurrency, o.KeyEnv, o.File = 0, "", ""
		base["preferences"], base["teacher"], base["options"], base["teacher_model"] = q, s.Teacher, o, p.sampling(p.Teacher)
		base["model"] = p.sampling(p.Model)
		base["file"], base["prompts"], base["recorded"], base["held_out"] = p.Pairs, p.Prompts, p.Recorded, s.Evaluation.HeldOut
	case KindDPO:
		base["train"] = train(s.DPO)
	case KindIntrospection:
		q := s.Introspection
		q.Chunk, q.Parallel, q.File = 0, 0, ""
		base["model"] = p.sampling(p.Model)
		base["file"], base["introspection"], base["system"] = p.Talks, q, s.TeacherOptions.System
	case KindSFT:
		base["train"] = train(s.SFT)
	case KindEvaluation:
		base["evaluation"], base["recorded"] = s.Evaluation, p.Recorded
		base["system"], base["examples"] = s.TeacherOptions.System, s.TeacherOptions.Examples
	}
	if own := ownOf(p, kind); own != nil {
		base["own"] = own
	}
	return base
}

// texts is the hash of what this program's own words add to a stage: wrappers around the constitution, prompt pools,
// recorded answers. A release that words them differently must not reuse what the old words made.
func texts(kind string, p Plan, c *constitution.Constitution, rec []constitution.Example) string {
	system, examples := teacherContext(p, c)
	var all []any
	switch kind {
	case KindPreferences:
		all = []any{system, examples, rec, constitution.GeneralPrompts()}
	case KindIntrospection:
		all = []any{reflectionSystem(p, c), interactionSystem(p, c), c.InteractionTrainingSystem(), constitution.ReflectionPrompts(), constitution.InteractionSeeds()}
	case KindEvaluation:
		all = []any{system, examples, c.TeacherSystem(), rec}
	}
	return dataset.InputHash(all)
}
