// Package spec is the run specification: what a user may say about a run, the presets, and how the two become
// one resolved spec that is stored with the run. It is pure data: it opens no file and knows no stage.
//
// Start at [Resolve]: preset first, the user's fields over it, unknown fields and impossible values refused.
package spec

// Spec says everything that shapes a run. In JSON every field is optional; a field left out has the preset's value.
type Spec struct {
	// Constitution is a built-in character's name, or "ref:KEY" of a constitution that the CLI uploaded.
	Constitution string `json:"constitution"`
	// Preset is demo, paper-scale or published.
	Preset string `json:"preset"`
	// Model is the student and, for the local teacher, the teacher: a known name or a path on the engine workers.
	Model string `json:"model"`
	// ModelSHA256 pins the model file; empty means "whatever the engine finds", recorded at resolve time.
	ModelSHA256 string `json:"model_sha256,omitempty"`
	// Compute is exact (bf16 weights, float32 activations and sums) or bf16 (activations are rounded to bf16 for products
	// with the weights: faster, with other bits).
	Compute string `json:"compute,omitempty"`
	// Weights is bf16 (all matrices rounded to that) or quantized: a model whose GGUF file holds Q4_0, Q4_1 or Q8_0 blocks
	// samples with the file's own numbers, in less memory traffic; training and scoring use bf16.
	Weights string `json:"weights,omitempty"`
	// MemoryLimit bounds the memory of one training pass's activations, in MiB; above it they are computed twice. It changes
	// no bit. 0 = no limit.
	MemoryLimit int `json:"memory_limit,omitempty"`
	// Seed makes the run: same seed, same inputs, same kernels, same bytes.
	Seed uint64 `json:"seed"`
	// Teacher is local, openai, recorded, or own:NAME: one that a program has added to its workers.
	Teacher string `json:"teacher"`
	// TeacherOptions says more about the teacher.
	TeacherOptions TeacherOptions `json:"teacher_options"`
	// Preferences shapes the first stage: pairs of answers.
	Preferences Preferences `json:"preferences"`
	// DPO is the training on the pairs.
	DPO Training `json:"dpo"`
	// Introspection shapes the third stage: reflections and conversations.
	Introspection Introspection `json:"introspection"`
	// SFT is the training on them, in a second adapter.
	SFT Training `json:"sft"`
	// Evaluation is what is measured in the end.
	Evaluation Evaluation `json:"evaluation"`
	// Export shapes the adapter that is written.
	Export Export `json:"export"`
}

// TeacherOptions says who answers with the constitution.
type TeacherOptions struct {
	// Model is another local model (teacher local; empty: the student), or the endpoint's model id (teacher openai).
	Model string `json:"model,omitempty"`
	// BaseURL is the OpenAI-compatible endpoint, up to and without /chat/completions.
	BaseURL string `json:"base_url,omitempty"`
	// KeyEnv names the environment variable of the teacher worker that holds the API key. The key itself never travels.
	KeyEnv string `json:"key_env,omitempty"`
	// File is "ref:KEY" of recorded answers (teacher recorded; empty: the built-in answers of that character).
	File string `json:"file,omitempty"`
	// System is short (a few lines and example turns, for small local models) or full (every trait).
	System string `json:"system"`
	// Examples is how many of the constitution's example turns stand before the prompt.
	Examples int `json:"examples"`
	// Concurrency is how many requests one teacher worker keeps in flight.
	Concurrency int `json:"concurrency"`
	// DisableThinking asks the endpoint to answer without reasoning.
	DisableThinking bool `json:"disable_thinking"`
	// AllowHTTP permits an endpoint without TLS that is not on loopback.
	AllowHTTP bool `json:"allow_http,omitempty"`
}

// Sampling is how text is drawn from a model.
type Sampling struct {
	// Temperature divides the logits; 0 takes the most probable token.
	Temperature float64 `json:"temperature"`
	// TopP keeps the most probable tokens that together have this probability; 1 keeps all.
	TopP float64 `json:"top_p"`
	// TopK keeps that many of the most probable tokens; 0 keeps all.
	TopK int `json:"top_k"`
	// RepetitionPenalty makes tokens that were there before less probable; 1 = off.
	RepetitionPenalty float64 `json:"repetition_penalty"`
	// MaxTokens ends an answer that does not end by itself; it then counts as cut.
	MaxTokens int `json:"max_tokens"`
}

// Filter limits what is kept. Lengths are characters. Zero has the filter's default, -1 turns a limit off.
type Filter struct {
	// MinChars is the shortest text that is kept.
	MinChars int `json:"min_chars"`
	// MaxChars is the longest text that is kept.
	MaxChars int `json:"max_chars"`
	// RepetitionThreshold is the share of a text that may repeat what it said before, 0 to 1.
	RepetitionThreshold float64 `json:"repetition_threshold"`
	// Own names filters that a program has added to its workers. They judge what the quality filter keeps, in this order.
	Own []string `json:"own,omitempty"`
}

// Preferences shapes the pairs of prompt, chosen and rejected.
type Preferences struct {
	// Pairs is the target of kept pairs.
	Pairs int `json:"pairs"`
	// MinPairs is the floor of kept pairs under which the stage fails.
	MinPairs int `json:"min_pairs"`
	// MaxCandidates bounds how many prompts are tried for the target.
	MaxCandidates int `json:"max_candidates"`
	// Repeats is how often every prompt may be used, with other random numbers each time.
	Repeats int `json:"repeats"`
	// File is "ref:KEY" of pairs of the user's own (JSONL or Parquet with prompt, chosen, rejected): nothing is generated then.
	File string `json:"file,omitempty"`
	// Prompts is "ref:KEY" of the user's own prompts, used beside the constitution's questions and the general pool.
	Prompts string `json:"prompts,omitempty"`
	// Sources are the prompt sources in use: constitution, pool, user (recorded is implied by that teacher).
	Sources []string `json:"sources"`
	// Teacher is how chosen answers are drawn.
	Teacher Sampling `json:"teacher"`
	// Student is how rejected answers are drawn.
	Student Sampling `json:"student"`
	// KeepCutRejected keeps rejected answers that were cut at student.max_tokens: what was said is trained on, without an
	// end token after it. A model that rambles would otherwise leave few pairs. Chosen answers always end by themselves.
	KeepCutRejected bool `json:"keep_cut_rejected"`
	// Filter has the limits of the quality filters for both answers.
	Filter Filter `json:"filter"`
	// Chunk is how many prompts one activity answers before it commits them; it changes no bit.
	Chunk int `json:"chunk"`
	// Parallel is how many answers are drawn at once on one engine; it changes memory and speed, no bit.
	Parallel int `json:"parallel_rows"`
}

// Training is one adapter's training, DPO or SFT.
type Training struct {
	// Rank is that of the LoRA matrices.
	Rank int `json:"rank"`
	// Alpha scales the adapter: its product counts alpha / rank.
	Alpha float64 `json:"alpha"`
	// Beta is DPO's strength of the reference: the smaller, the farther the model may go. DPO only.
	Beta float64 `json:"beta,omitempty"`
	// NLL weighs the mean negative log-prob of the chosen answer's tokens beside the preference loss. DPO only.
	NLL float64 `json:"nll,omitempty"`
	// KL weighs the squared drift of the answers' log-probs from the reference. DPO only.
	KL float64 `json:"kl,omitempty"`
	// LearningRate is AdamW's, at its highest.
	LearningRate float64 `json:"learning_rate"`
	// Schedule is constant or cosine (linear warm-up, cosine down to MinLRRatio).
	Schedule string `json:"schedule"`
	// Warmup is the share of the steps over which the learning rate rises to its full height.
	Warmup float64 `json:"warmup"`
	// MinLRRatio is the share of the learning rate at which cosine ends.
	MinLRRatio float64 `json:"min_lr_ratio"`
	// ClipNorm bounds the norm of a step's gradient; 0 = off.
	ClipNorm float64 `json:"clip_norm"`
	// Beta1 is AdamW's memory of the gradient.
	Beta1 float64 `json:"beta1"`
	// Beta2 is AdamW's memory of the squared gradient.
	Beta2 float64 `json:"beta2"`
	// Eps keeps AdamW from dividing by zero.
	Eps float64 `json:"eps"`
	// WeightDecay is AdamW's pull of the matrices to zero.
	WeightDecay float64 `json:"weight_decay"`
	// BatchSize is the rows (of DPO: pairs) of one step.
	BatchSize int `json:"batch_size"`
	// Epochs is how often every row is used.
	Epochs int `json:"epochs"`
	// Steps ends the training after so many steps of the schedule that the epochs make; 0 = all of them.
	Steps int `json:"steps,omitempty"`
	// MaxLength is the longest row in tokens; a longer one loses whole early turns, or is dropped and counted.
	MaxLength int `json:"max_length"`
	// MicroTokens bounds the tokens of one forward pass; it changes memory, never a bit of the result.
	MicroTokens int `json:"micro_tokens"`
	// SegmentSeconds is how long one activity trains before it commits a checkpoint.
	SegmentSeconds int `json:"segment_seconds"`
	// SegmentSteps ends a segment after so many steps even when time is left; 0 means time alone.
	SegmentSteps int `json:"segment_steps"`
}

// Introspection shapes the reflections and the interactions.
type Introspection struct {
	// File is "ref:KEY" of rows of the user's own (JSONL prompt, reflection or turns; JSONL or Parquet messages): nothing is generated then.
	File string `json:"file,omitempty"`
	// Reflections is the target of kept reflections: one question to the character about itself, and its answer.
	Reflections int `json:"reflections"`
	// Interactions is the target of kept conversations of the character with itself.
	Interactions int `json:"interactions"`
	// Turns is how many turns a conversation has, both sides together; the side that is trained has the last word, so an even number counts one more.
	Turns int `json:"turns"`
	// Oversample bounds how many rows are tried: this many times the target.
	Oversample float64 `json:"oversample"`
	// Reflection is how reflections are drawn.
	Reflection Sampling `json:"reflection"`
	// Interaction is how turns of conversations are drawn.
	Interaction Sampling `json:"interaction"`
	// ReflectionTop is how many of the built-in reflection prompts are used.
	ReflectionTop int `json:"reflection_prompts"`
	// Filter has the limits of the quality filters.
	Filter Filter `json:"filter"`
	// Chunk is how many rows one activity makes before it commits them; it changes no bit.
	Chunk int `json:"chunk"`
	// Parallel is how many answers are drawn at once on one engine; it changes memory and speed, no bit.
	Parallel int `json:"parallel_rows"`
	// MinShare is the floor: the stage fails when less than this share of the target passes.
	MinShare float64 `json:"min_share"`
}

// Evaluation shapes what is measured after training.
type Evaluation struct {
	// HeldOut is how many recorded answers are kept from training, to measure the gain on.
	HeldOut int `json:"held_out"`
	// Scored bounds how many of the held-out answers are scored; 0 = all of them.
	Scored int `json:"scored,omitempty"`
	// Sampling is how the answers to the check prompts are drawn.
	Sampling Sampling `json:"sampling"`
	// Prompts are what base, DPO and final model are asked, for people to read.
	Prompts []string `json:"prompts"`
	// Own names evaluations that a program has added to its workers. They look at base, dpo and character like ours.
	Own []string `json:"own,omitempty"`
}

// Export shapes the exported character adapter: delta = 1.0*DPO + SFTWeight*SFT, exact.
type Export struct {
	// SFTWeight is how much of the second adapter is in the exported one: 1 is all of it.
	SFTWeight float64 `json:"sft_weight"`
}
