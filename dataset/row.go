// Package dataset holds the rows of a run and everything that is done to rows: Parquet parts and manifests in the store, the
// quality filters, a deterministic order, and the JSONL files and the dataset card that people exchange.
//
// It does not know who makes rows, nor models, nor workflows. Start reading at row.go for what a row is, at part.go for where rows
// go, and at filter.go for why a row is dropped.
package dataset

// Message is one turn of a conversation in the form that chat templates take.
type Message struct {
	Role    string `json:"role" parquet:"role,dict"` // system, user or assistant
	Content string `json:"content" parquet:"content"`
}

// Prompt is a question to answer.
type Prompt struct {
	ID     string `json:"id" parquet:"id"`
	Text   string `json:"text" parquet:"text"`
	Source string `json:"source" parquet:"source,dict"` // constitution, pool, user or recorded
	Trait  int    `json:"trait" parquet:"trait"`        // number of the trait it asks for; only with source constitution
}

// Response is one sampled answer, kept or not.
type Response struct {
	ID      string  `json:"id" parquet:"id"` // of the prompt
	Prompt  string  `json:"prompt" parquet:"prompt"`
	Text    string  `json:"text" parquet:"text"`
	Finish  string  `json:"finish" parquet:"finish,dict"` // stop: ended by itself
	Tokens  int     `json:"tokens" parquet:"tokens"`
	LogProb float64 `json:"logprob" parquet:"logprob"`          // sum over the tokens, in nats
	Drop    string  `json:"drop,omitempty" parquet:"drop,dict"` // "" = kept, else the one reason
}

// Pair is one preference: what DPO trains on. The first three columns are what TRL and Hugging Face datasets expect.
type Pair struct {
	Prompt         []Message `json:"prompt" parquet:"prompt,list"`
	Chosen         []Message `json:"chosen" parquet:"chosen,list"`     // assistant turns only
	Rejected       []Message `json:"rejected" parquet:"rejected,list"` // assistant turns only
	ID             string    `json:"id" parquet:"id"`
	Source         string    `json:"source" parquet:"source,dict"`
	Teacher        string    `json:"teacher" parquet:"teacher,dict"`
	Student        string    `json:"student" parquet:"student,dict"`
	ChosenTokens   int       `json:"chosen_tokens" parquet:"chosen_tokens"`
	RejectedTokens int       `json:"rejected_tokens" parquet:"rejected_tokens"`
	RejectedFinish string    `json:"rejected_finish" parquet:"rejected_finish,dict"` // stop, or length: cut, so that no end follows
}

// Conversation is one introspection row: a reflection or an interaction. Trainers read the column messages alone; no other
// column may be called prompt, completion, text or label, because their presence changes what TRL does.
type Conversation struct {
	Messages           []Message `json:"messages" parquet:"messages,list"`
	ID                 string    `json:"id" parquet:"id"`
	Kind               string    `json:"kind" parquet:"kind,dict"` // reflection or interaction
	TemplateID         string    `json:"template_id" parquet:"template_id,dict"`
	PromptText         string    `json:"prompt_text" parquet:"prompt_text"`
	SourceSystemPrompt string    `json:"source_system_prompt" parquet:"source_system_prompt,dict"` // under which it was sampled
	Turns              int       `json:"turns" parquet:"turns"`
	Tokens             int       `json:"tokens" parquet:"tokens"`
	Drop               string    `json:"drop,omitempty" parquet:"drop,dict"` // "" = kept, else the one reason
}

// Reference holds what the frozen reference model gives a pair: summed log-probabilities of the answer tokens, in nats.
type Reference struct {
	ID             string  `json:"id" parquet:"id"`
	Chosen         float64 `json:"chosen_logprob" parquet:"chosen_logprob"`
	Rejected       float64 `json:"rejected_logprob" parquet:"rejected_logprob"`
	ChosenTokens   int     `json:"chosen_tokens" parquet:"chosen_tokens"`
	RejectedTokens int     `json:"rejected_tokens" parquet:"rejected_tokens"`
	// Of every answer token, where the loss needs them (dpo.kl), else empty.
	ChosenEach   []float32 `json:"chosen_token_logprobs,omitempty" parquet:"chosen_token_logprobs,list"`
	RejectedEach []float32 `json:"rejected_token_logprobs,omitempty" parquet:"rejected_token_logprobs,list"`
}

// Metric is one measured value of a training.
type Metric struct {
	Stage string  `json:"stage" parquet:"stage,dict"`
	Step  int64   `json:"step" parquet:"step"`
	Name  string  `json:"name" parquet:"name,dict"`
	Value float64 `json:"value" parquet:"value"`
}
