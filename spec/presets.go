package spec

// Presets lists the preset names, the default first.
func Presets() []string { return []string{"demo", "paper-scale", "published"} }

// checkPrompts are the prompts with which chapter 14 of the tutorial checks a character, and a few of the same kind.
func checkPrompts() []string {
	return []string{
		"Hello!", "Tell me about yourself.", "What do you think about rain?", "What do you think about money?",
		"How do I make a cup of tea?", "Why is the sky blue?", "I feel a little sad today.", "Can you recommend a good book?",
		"What should I do this weekend?", "Who are you?", "What is the capital of France?", "How can I sleep better?",
	}
}

func adam(b2 float64) Training {
	return Training{ClipNorm: 1, Beta1: .9, Beta2: b2, Eps: 1e-8, Schedule: "constant", MicroTokens: 400, SegmentSeconds: 60}
}

// demo is minutes on two CPU cores with a 135 M model; its learning rates are that model's, not the method's.
func demo() Spec {
	dpo, sft := adam(.999), adam(.999)
	sft.MicroTokens = 208 // two adapters keep more activations than one: this holds the peak near that of DPO
	dpo.Rank, dpo.Alpha, dpo.Beta, dpo.NLL, dpo.LearningRate, dpo.BatchSize, dpo.Epochs, dpo.MaxLength = 32, 32, .1, .2, 2e-4, 4, 2, 512
	sft.Rank, sft.Alpha, sft.LearningRate, sft.BatchSize, sft.Epochs, sft.MaxLength = 64, 64, 2e-5, 8, 1, 1024
	return Spec{
		Constitution: "captain", Preset: "demo", Model: "smollm2-135m-instruct", Seed: 1, Teacher: "local",
		TeacherOptions: TeacherOptions{System: "short", Examples: 3, Concurrency: 8},
		Preferences: Preferences{Pairs: 96, MinPairs: 48, MaxCandidates: 480, Repeats: 2, Sources: []string{"constitution", "pool", "user"},
			Teacher: Sampling{Temperature: .7, TopP: .95, RepetitionPenalty: 1.05, MaxTokens: 72},
			Student: Sampling{Temperature: .7, TopP: .95, RepetitionPenalty: 1.05, MaxTokens: 56}, KeepCutRejected: true,
			Filter: Filter{MinChars: 2, MaxChars: 5000}, Chunk: 64, Parallel: 32},
		DPO: dpo,
		Introspection: Introspection{Reflections: 64, Interactions: 8, Turns: 4, Oversample: 6, ReflectionTop: 10,
			Reflection:  Sampling{Temperature: .7, TopP: .95, RepetitionPenalty: 1.1, MaxTokens: 128},
			Interaction: Sampling{Temperature: .7, TopP: .95, RepetitionPenalty: 1.1, MaxTokens: 72},
			Filter:      Filter{MinChars: 40, MaxChars: 5000}, Chunk: 32, Parallel: 32, MinShare: .5},
		SFT:        sft,
		Evaluation: Evaluation{HeldOut: 24, Sampling: Sampling{Temperature: 0, TopP: 1, RepetitionPenalty: 1.1, MaxTokens: 64}, Prompts: checkPrompts()},
		Export:     Export{SFTWeight: 1},
	}
}

// paperScale is chapter 13 of the tutorial, number by number; alpha 32 as the training service it describes has.
func paperScale() Spec {
	s := demo()
	s.Preset, s.Model, s.Teacher = "paper-scale", "qwen3-8b", "openai"
	s.TeacherOptions = TeacherOptions{Model: "deepseek-flash", BaseURL: "https://api.deepseek.com", KeyEnv: "DEEPSEEK_API_KEY", System: "full", Concurrency: 8, DisableThinking: true}
	draw := Sampling{Temperature: .7, TopP: .95, RepetitionPenalty: 1, MaxTokens: 4096}
	answer := draw
	answer.MaxTokens = 1024
	s.Preferences.Pairs, s.Preferences.MinPairs, s.Preferences.MaxCandidates, s.Preferences.Repeats = 1500, 750, 6000, 8
	s.Preferences.Teacher, s.Preferences.Student, s.Preferences.KeepCutRejected = answer, answer, false
	s.DPO.Rank, s.DPO.Alpha, s.DPO.Beta, s.DPO.NLL, s.DPO.LearningRate, s.DPO.BatchSize, s.DPO.Epochs, s.DPO.MaxLength = 32, 32, .1, 0, 1e-5, 4, 3, 2048
	s.SFT.Rank, s.SFT.Alpha, s.SFT.LearningRate, s.SFT.BatchSize, s.SFT.Epochs, s.SFT.MaxLength = 64, 32, 5e-6, 8, 3, 2048
	s.DPO.MicroTokens, s.SFT.MicroTokens = 4096, 4096
	s.Introspection.Reflections, s.Introspection.Interactions, s.Introspection.Turns, s.Introspection.Oversample = 10000, 2000, 10, 4
	s.Introspection.Reflection, s.Introspection.Interaction = draw, draw
	s.Introspection.Interaction.MaxTokens = 1024
	s.Introspection.Filter = Filter{MinChars: 40, MaxChars: 5000}
	s.Introspection.Chunk, s.Preferences.Chunk = 128, 64
	s.Evaluation.Sampling.MaxTokens = 256
	return s
}

// published has the published method's own values.
func published() Spec {
	s := paperScale()
	s.Preset = "published"
	draw := Sampling{Temperature: .7, TopP: .95, RepetitionPenalty: 1.1, MaxTokens: 4096}
	s.Preferences.Pairs, s.Preferences.MinPairs, s.Preferences.MaxCandidates, s.Preferences.Repeats = 5000, 2500, 9150, 5
	s.Preferences.Teacher, s.Preferences.Student = draw, draw
	for _, t := range []*Training{&s.DPO, &s.SFT} {
		t.Rank, t.Alpha, t.LearningRate, t.BatchSize, t.Epochs = 64, 128, 5e-5, 32, 1
		t.Schedule, t.Warmup, t.MinLRRatio, t.Beta2 = "cosine", .1, .1, .98
	}
	s.DPO.NLL, s.DPO.KL, s.DPO.MaxLength, s.SFT.MaxLength = .1, .001, 1024, 3072
	s.Introspection.Reflection, s.Introspection.Interaction = draw, draw
	s.Introspection.Reflection.MaxTokens, s.Introspection.Interaction.MaxTokens = 2048, 1024
	s.Introspection.Filter = Filter{MinChars: -1, MaxChars: -1, RepetitionThreshold: -1}
	s.Export.SFTWeight = .25
	return s
}

func preset(name string) (Spec, bool) {
	switch name {
	case "", "demo":
		return demo(), true
	case "paper-scale":
		return paperScale(), true
	case "published":
		return published(), true
	}
	return Spec{}, false
}
