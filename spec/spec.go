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
	Teacher        string         `json:"teacher"`
	TeacherOptions TeacherOptions `json:"teacher_options"`
	Preferences    Preferences    `json:"preferences"`
	DPO            Training       `json:"dpo"`
	Introspection  Introspection  `json:"introspection"`
	SFT            Training       `json:"sft"`
	Evaluation     Evaluation     `json:"evaluation"`
	Export         Export         `json:"export"`
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
	Temperature       float64 `json:"temperature"`
	TopP              float64 `json:"top_p"`
	TopK              int     `json:"top_k"`
	RepetitionPenalty float64 `json:"repetition_penalty"`
	MaxTokens         int     `json:"max_tokens"`
}

// Filter limits what is kept. Lengths are characters. Zero has the filter's default, -1 turns a limit off.
type Filter struct {
	MinChars            int     `json:"min_chars"`
	MaxChars            int     `json:"max_chars"`
	RepetitionThreshold float64 `json:"repetition_threshold"`
	// Own names filters that a program has added to its workers. They judge what the quality filter keeps, in this order.
	Own []string `json:"own,omitempty"`
}

// Preferences shapes the pairs of prompt, chosen and rejected.
type Preferences struct {
	// Pairs is the target of kept pairs; MinPairs is the floor under which the stage fails.
	Pairs    int `json:"pairs"`
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
	Teacher Sampling `json:"teacher"`
	Student Sampling `json:"student"`
	// KeepCutRejected keeps rejected answers that were cut at student.max_tokens: what was said is trained on, without an
	// end token after it. A model that rambles would otherwise leave few pairs. Chosen answers always end by themselves.
	KeepCutRejected bool   `json:"keep_cut_rejected"`
	Filter          Filter `json:"filter"`
	Chunk           int    `json:"chunk"`
	Parallel        int    `json:"parallel_rows"`
}

// Training is one adapter's training, DPO or SFT.
type Training struct {
	Rank  int     `json:"rank"`
	Alpha float64 `json:"alpha"`
	Beta  float64 `json:"beta,omitempty"`
	NLL   float64 `json:"nll,omitempty"`
	// KL weighs the squared drift of the answers' log-probs from the reference.
	KL           float64 `json:"kl,omitempty"`
	LearningRate float64 `json:"learning_rate"`
	// Schedule is constant or cosine (linear warm-up, cosine down to MinLRRatio).
	Schedule    string  `json:"schedule"`
	Warmup      float64 `json:"warmup"`
	MinLRRatio  float64 `json:"min_lr_ratio"`
	ClipNorm    float64 `json:"clip_norm"`
	Beta1       float64 `json:"beta1"`
	Beta2       float64 `json:"beta2"`
	Eps         float64 `json:"eps"`
	WeightDecay float64 `json:"weight_decay"`
	BatchSize   int     `json:"batch_size"`
	Epochs      int     `json:"epochs"`
	// Steps ends the training after so many steps of the schedule that the epochs make; 0 = all of them.
	Steps     int `json:"steps,omitempty"`
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
	File          string   `json:"file,omitempty"`
	Reflections   int      `json:"reflections"`
	Interactions  int      `json:"interactions"`
	Turns         int      `json:"turns"`
	Oversample    float64  `json:"oversample"`
	Reflection    Sampling `json:"reflection"`
	Interaction   Sampling `json:"interaction"`
	ReflectionTop int      `json:"reflection_prompts"`
	Filter        Filter   `json:"filter"`
	Chunk         int      `json:"chunk"`
	Parallel      int      `json:"parallel_rows"`
	// MinShare is the floor: the stage fails when less than this share of the target passes.
	MinShare float64 `json:"min_share"`
}

// Evaluation shapes what is measured after training.
type Evaluation struct {
	HeldOut int `json:"held_out"`
	// Scored bounds how many of the held-out answers are scored; 0 = all of them.
	Scored   int      `json:"scored,omitempty"`
	Sampling Sampling `json:"sampling"`
	Prompts  []string `json:"prompts"`
	// Own names evaluations that a program has added to its workers. They look at base, dpo and character like ours.
	Own []string `json:"own,omitempty"`
}

// Export shapes the exported character adapter: delta = 1.0*DPO + SFTWeight*SFT, exact.
type Export struct {
	SFTWeight float64 `json:"sft_weight"`
}
