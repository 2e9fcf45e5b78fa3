package tinymodel

// Settings are fields of a run's spec (for `character run --set`) that make a whole run on this model last some seconds,
// with several chunks and segments in every stage: something to interrupt anywhere.
func Settings() []string {
	return []string{
		"preferences.pairs=24", "preferences.min_pairs=8", "preferences.max_candidates=240", "preferences.chunk=12",
		"preferences.teacher.max_tokens=64", "preferences.student.max_tokens=64", "preferences.filter.repetition_threshold=-1",
		"dpo.rank=4", "dpo.alpha=4", "dpo.batch_size=2", "dpo.epochs=2", "dpo.segment_steps=3", "dpo.learning_rate=1e-3",
		"introspection.reflections=16", "introspection.interactions=3", "introspection.oversample=12", "introspection.chunk=8", "introspection.turns=2",
		"introspection.reflection.max_tokens=96", "introspection.interaction.max_tokens=96", "introspection.filter.min_chars=4", "introspection.filter.repetition_threshold=-1",
		"sft.rank=6", "sft.alpha=6", "sft.batch_size=2", "sft.epochs=2", "sft.segment_steps=3", "sft.learning_rate=1e-3",
		"evaluation.held_out=4", "evaluation.sampling.max_tokens=16", `evaluation.prompts=["Hello!","Who are you?"]`,
	}
}

// RunArgs are the arguments of a whole run of that kind on the model in folder dir.
func RunArgs(dir, id string) []string {
	args := []string{"run", "captain", "--id", id, "--model", dir}
	for _, s := range Settings() {
		args = append(args, "--set", s)
	}
	return args
}
